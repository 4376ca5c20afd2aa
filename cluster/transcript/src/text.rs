//! Recordings as text, a line per event.

use std::fmt;
use std::str::FromStr;

use crate::{Event, Side, Transcript, What};

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(lines) => write!(f, "HEAD {}", lines.join(" | ")),
            Self::Open {
                stream,
                fin,
                headers,
            } => {
                let fin = if *fin { "FIN" } else { "-" };
                write!(f, "SYN_STREAM {stream} {fin}")?;
                headers
                    .iter()
                    .try_for_each(|(name, value)| write!(f, " {name}={value}"))
            }
            Self::Reply { stream } => write!(f, "SYN_REPLY {stream}"),
            Self::Data { stream, payload } => {
                write!(f, "DATA {stream} \"{}\"", payload.escape_ascii())
            }
            Self::Fin { stream } => write!(f, "FIN {stream}"),
            Self::Reset { stream, status } => write!(f, "RST_STREAM {stream} {status}"),
            Self::GoAway => f.write_str("GOAWAY"),
            Self::Close { code } => write!(f, "CLOSE {code}"),
            Self::End => f.write_str("END"),
            Self::PodRemoved => f.write_str("POD_REMOVED"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Client => '>',
            Side::Server => '<',
            Side::Cluster => '!',
        };
        write!(f, "{side} {}", self.what)
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "# {note}")?;
        }
        self.events
            .iter()
            .try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl FromStr for Transcript {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut transcript = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(note) = line.strip_prefix("# ") {
                transcript.notes.push(note.to_owned());
                continue;
            }
            let event = event(line).ok_or_else(|| format!("not an event: {line}"))?;
            transcript.events.push(event);
        }
        Ok(transcript)
    }
}

fn event(line: &str) -> Option<Event> {
    let (side, rest) = line.split_once(' ')?;
    let side = match side {
        ">" => Side::Client,
        "<" => Side::Server,
        "!" => Side::Cluster,
        _ => return None,
    };
    let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
    let stream = || first.parse().ok();
    let what = match kind {
        "HEAD" => What::Head(rest.split(" | ").map(str::to_owned).collect()),
        "SYN_STREAM" => {
            let mut words = more.split(' ');
            let fin = words.next()? == "FIN";
            let headers = words.map(|word| {
                let (name, value) = word.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            });
            What::Open {
                stream: stream()?,
                fin,
                headers: headers.collect::<Option<_>>()?,
            }
        }
        "SYN_REPLY" => What::Reply { stream: stream()? },
        "DATA" => What::Data {
            stream: stream()?,
            payload: unescape(more.strip_prefix('"')?.strip_suffix('"')?)?,
        },
        "FIN" => What::Fin { stream: stream()? },
        "RST_STREAM" => What::Reset {
            stream: stream()?,
            status: more.parse().ok()?,
        },
        "GOAWAY" => What::GoAway,
        "CLOSE" => What::Close {
            code: first.parse().ok()?,
        },
        "END" => What::End,
        "POD_REMOVED" => What::PodRemoved,
        _ => return None,
    };
    Some(Event { side, what })
}

/// Undoes `escape_ascii`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            quoted => quoted,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let text = "# a note\n\
            > HEAD POST /api | upgrade: SPDY/3.1\n\
            > SYN_STREAM 1 - port=80 streamtype=error\n\
            < SYN_REPLY 1\n\
            ! POD_REMOVED\n\
            < DATA 3 \"a\\\"b\\n\\x00\"\n\
            < FIN 3\n\
            > RST_STREAM 3 5\n\
            > CLOSE 1000\n\
            > END\n";
        let transcript: Transcript = text.parse().unwrap();
        assert_eq!(transcript.to_string(), text);
        assert!("> NONSENSE 1".parse::<Transcript>().is_err());
    }
}
