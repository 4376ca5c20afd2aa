//! The bytes of one direction of a connection to events.

use crate::spdy::Reader;
use crate::{Form, What, websocket};

/// Longest head of a request or an answer.
const MAX_HEAD: usize = 64 * 1024;

/// Headers that say how the connection is upgraded; a value that is random each time is masked.
const KEPT: [(&str, bool); 7] = [
    ("connection", false),
    ("sec-websocket-accept", true),
    ("sec-websocket-key", true),
    ("sec-websocket-protocol", false),
    ("sec-websocket-version", false),
    ("upgrade", false),
    ("x-stream-protocol-version", false),
];

/// Decodes one direction.
pub struct Decoder {
    form: Form,
    bytes: Vec<u8>,
    headed: bool,
    /// What follows is of the form, not the body of a refusal.
    upgraded: bool,
    spdy: Reader,
}

impl Decoder {
    /// For a direction of a connection of `form`, from its first byte.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            bytes: Vec::new(),
            headed: false,
            upgraded: true,
            spdy: Reader::new(),
        }
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// When they are not of the form.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<What>, String> {
        self.bytes.extend_from_slice(bytes);
        let mut events = Vec::new();
        if !self.headed {
            let end = self.bytes.windows(4).position(|w| w == b"\r\n\r\n");
            let Some(end) = end else {
                return if self.bytes.len() > MAX_HEAD {
                    Err("the head does not end".to_owned())
                } else {
                    Ok(events)
                };
            };
            let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
            self.headed = true;
            let head = head_of(&String::from_utf8_lossy(&head));
            self.upgraded = !head[0].starts_with("HTTP/") || head[0].ends_with(" 101");
            events.push(What::Head(head));
        }
        if !self.upgraded {
            self.bytes.clear();
        } else if self.form == Form::Spdy {
            let bytes = std::mem::take(&mut self.bytes);
            events.extend(self.spdy.feed(&bytes)?);
        } else {
            while let Some((opcode, payload)) = websocket::take(&mut self.bytes) {
                self.message(opcode, payload, &mut events)?;
            }
        }
        Ok(events)
    }

    fn message(
        &mut self,
        opcode: u8,
        payload: Vec<u8>,
        events: &mut Vec<What>,
    ) -> Result<(), String> {
        match (opcode, self.form) {
            (websocket::CLOSE, _) => {
                let code = payload
                    .first_chunk::<2>()
                    .map_or(0, |c| u16::from_be_bytes(*c));
                events.push(What::Close { code });
            }
            (websocket::BINARY, Form::V4) => {
                // Go's clients open the channels of a stream with empty messages.
                if let Some((channel, payload)) = payload.split_first()
                    && !payload.is_empty()
                {
                    events.push(What::Data {
                        stream: u32::from(*channel),
                        payload: payload.to_vec(),
                    });
                }
            }
            (websocket::BINARY, _) => events.extend(self.spdy.feed(&payload)?),
            // Pings and pongs.
            (9 | 10, _) => {}
            (other, _) => return Err(format!("a WebSocket frame of opcode {other}")),
        }
        Ok(())
    }
}

/// A request line without its version, or an answer's without its reason, and the headers kept.
fn head_of(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let words = first.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.to_ascii_lowercase();
        let (_, random) = KEPT.iter().find(|(kept, _)| *kept == name)?;
        let value = if *random { "RANDOM" } else { value.trim() };
        Some(format!("{name}: {value}"))
    });
    let mut headers: Vec<String> = headers.collect();
    headers.sort();
    headers.insert(0, words);
    headers
}
