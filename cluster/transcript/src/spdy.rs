//! SPDY/3.1 frames, as much as port-forward uses.
//! Source: draft-mbelshe-httpbis-spdy-00.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::What;

/// A constant that its own checksum vouches for: no second copy is needed.
#[path = "../../sim/src/portforward/spdy/dictionary.rs"]
mod dictionary;

/// Largest header block; port-forward's are under 100 bytes.
const MAX_BLOCK: usize = 64 * 1024;
const FIN: u8 = 1;

/// Frames of one direction to events.
pub(crate) struct Reader {
    inflate: Decompress,
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            inflate: Decompress::new(true),
            buffer: Vec::new(),
        }
    }

    /// Takes bytes; pings, settings and window updates say nothing and are left out.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<What>, String> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(head) = self.buffer.first_chunk::<8>().copied() {
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if self.buffer.len() < 8 + length {
                break;
            }
            let body: Vec<u8> = self.buffer.drain(..8 + length).skip(8).collect();
            self.frame(head, body, &mut events)?;
        }
        Ok(events)
    }

    fn frame(
        &mut self,
        head: [u8; 8],
        body: Vec<u8>,
        events: &mut Vec<What>,
    ) -> Result<(), String> {
        let fin = head[4] & FIN != 0;
        let number = |at: usize| {
            let bytes = body.get(at..at + 4).and_then(|b| b.first_chunk::<4>());
            bytes.map(|b| u32::from_be_bytes(*b)).ok_or("a short frame")
        };
        if head[0] & 0x80 == 0 {
            let stream = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            if !body.is_empty() {
                events.push(What::Data {
                    stream,
                    payload: body,
                });
            }
            if fin {
                events.push(What::Fin { stream });
            }
            return Ok(());
        }
        match u16::from_be_bytes([head[2], head[3]]) {
            1 => events.push(What::Open {
                stream: number(0)?,
                fin,
                headers: self.headers(body.get(10..).ok_or("a short SYN_STREAM")?)?,
            }),
            2 => {
                self.headers(body.get(4..).ok_or("a short SYN_REPLY")?)?;
                events.push(What::Reply { stream: number(0)? });
                if fin {
                    events.push(What::Fin { stream: number(0)? });
                }
            }
            3 => events.push(What::Reset {
                stream: number(0)?,
                status: number(4)?,
            }),
            7 => events.push(What::GoAway),
            4 | 6 | 9 => {}
            other => return Err(format!("a frame of type {other}")),
        }
        Ok(())
    }

    fn headers(&mut self, mut block: &[u8]) -> Result<Vec<(String, String)>, String> {
        let mut out = Vec::with_capacity(MAX_BLOCK);
        while !block.is_empty() {
            let before = self.inflate.total_in();
            let result = self
                .inflate
                .decompress_vec(block, &mut out, FlushDecompress::Sync);
            let taken = (self.inflate.total_in() - before) as usize;
            block = &block[taken..];
            match result {
                Ok(_) if taken > 0 => {}
                Ok(_) => return Err("a header block that does not inflate".to_owned()),
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.inflate.set_dictionary(&dictionary::bytes());
                    set.map_err(|e| e.to_string())?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        parse(&out).ok_or_else(|| "a header block cut short".to_owned())
    }
}

fn parse(mut block: &[u8]) -> Option<Vec<(String, String)>> {
    let number = |block: &mut &[u8]| {
        let (bytes, rest) = block.split_first_chunk::<4>()?;
        *block = rest;
        Some(u32::from_be_bytes(*bytes) as usize)
    };
    let count = number(&mut block)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let mut texts = [const { String::new() }; 2];
        for text in &mut texts {
            let length = number(&mut block)?;
            let (bytes, rest) = block.split_at_checked(length)?;
            *text = String::from_utf8_lossy(bytes).into_owned();
            block = rest;
        }
        let [name, value] = texts;
        headers.push((name, value));
    }
    headers.sort();
    Some(headers)
}

/// Events of one direction to frames.
pub(crate) struct Writer {
    deflate: Compress,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let mut deflate = Compress::new(Compression::fast(), true);
        deflate
            .set_dictionary(&dictionary::bytes())
            .expect("a fresh deflate stream takes a dictionary");
        Self { deflate }
    }

    /// The frame of an event; none for what is no frame.
    pub(crate) fn frame(&mut self, what: &What) -> Vec<u8> {
        let data = |stream: &u32, fin: u8, payload: &[u8]| {
            let length = payload.len() as u32 | u32::from(fin) << 24;
            [&stream.to_be_bytes(), &length.to_be_bytes(), payload].concat()
        };
        match what {
            What::Open {
                stream,
                fin,
                headers,
            } => {
                let block = self.block(headers);
                let body = [&stream.to_be_bytes()[..], &[0; 6], &block].concat();
                control(1, u8::from(*fin), &body)
            }
            What::Reply { stream } => {
                let block = self.block(&[]);
                control(2, 0, &[&stream.to_be_bytes()[..], &block].concat())
            }
            What::Reset { stream, status } => {
                control(3, 0, &[stream.to_be_bytes(), status.to_be_bytes()].concat())
            }
            What::GoAway => control(7, 0, &[0; 8]),
            What::Data { stream, payload } => data(stream, 0, payload),
            What::Fin { stream } => data(stream, FIN, b""),
            What::Head(_) | What::Close { .. } | What::End | What::PodRemoved => Vec::new(),
        }
    }

    fn block(&mut self, headers: &[(String, String)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 128);
        self.deflate
            .compress_vec(&plain, &mut out, FlushCompress::Sync)
            .expect("deflate with room in its output cannot fail");
        out
    }
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32 | u32::from(flags) << 24;
    let kind = kind.to_be_bytes();
    [&[0x80, 3], &kind[..], &length.to_be_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let events = [
            What::Open {
                stream: 1,
                fin: true,
                headers: vec![header("port", "80"), header("streamtype", "error")],
            },
            What::Open {
                stream: 3,
                fin: false,
                headers: vec![header("port", "80"), header("streamtype", "data")],
            },
            What::Reply { stream: 1 },
            What::Data {
                stream: 3,
                payload: b"hello".to_vec(),
            },
            What::Fin { stream: 3 },
            What::Reset {
                stream: 3,
                status: 5,
            },
            What::GoAway,
        ];
        let mut writer = Writer::new();
        let bytes: Vec<u8> = events.iter().flat_map(|e| writer.frame(e)).collect();
        for size in [1, 7, bytes.len()] {
            let mut reader = Reader::new();
            let pieces = bytes.chunks(size).map(|piece| reader.feed(piece).unwrap());
            assert_eq!(pieces.flatten().collect::<Vec<_>>(), events);
        }
    }
}
