//! Frames that we receive.

use bytes::{Bytes, BytesMut};

use super::{
    CONTROL, FLAG_FIN, GOAWAY, HEADERS, MAX_CONTROL, MAX_STREAM_ID, PING, RST_STREAM, SETTINGS,
    SYN_REPLY, SYN_STREAM, VERSION, WINDOW_UPDATE,
};
use crate::k8s::portforward::parts::fill;

/// Bytes before the payload of any frame.
const HEADER: usize = 8;

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Payload of a stream: a whole DATA frame's or a part of it, in order. `fin` comes with the
    /// last part.
    Data {
        /// The stream.
        stream: u32,
        /// The bytes; empty only when `fin` is set.
        payload: Bytes,
        /// Whether the server sends nothing more on this stream.
        fin: bool,
    },
    /// The server accepted a stream. It has not dialled yet.
    SynReply {
        /// The stream.
        stream: u32,
        /// Whether the server sends nothing more on this stream.
        fin: bool,
    },
    /// The server opened a stream, which no port-forward server does.
    SynStream {
        /// The stream.
        stream: u32,
    },
    /// The server gave a stream up.
    Reset {
        /// The stream.
        stream: u32,
        /// Why, by the numbers of the specification.
        status: u32,
    },
    /// More headers of a stream, skipped.
    Headers {
        /// The stream.
        stream: u32,
        /// Whether the server sends nothing more on this stream.
        fin: bool,
    },
    /// A ping of the server's, or the answer to one of ours.
    Ping {
        /// Odd for ours, even for the server's.
        id: u32,
    },
    /// The server accepts no new streams.
    GoAway,
    /// SETTINGS or WINDOW_UPDATE, which mean nothing here.
    Ignored,
}

/// Why bytes are not SPDY/3.1. The connection cannot go on after any of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    /// A control frame of another version.
    #[error("control frame of SPDY version {0}, expected {VERSION}")]
    Version(u16),
    /// A type that the specification does not know.
    #[error("unknown control frame type {0}")]
    Type(u16),
    /// A control frame that is longer than any server sends.
    #[error("control frame type {kind} of {len} bytes, at most {MAX_CONTROL} are accepted")]
    TooLarge {
        /// The frame's type.
        kind: u16,
        /// The length that its header gives.
        len: usize,
    },
    /// A control frame too short for its type, or with a length that its type does not allow.
    #[error("control frame type {kind} cannot have {len} bytes")]
    Length {
        /// The frame's type.
        kind: u16,
        /// The length that its header gives.
        len: usize,
    },
    /// A stream id or status that is not allowed where it stands.
    #[error("control frame type {kind} names stream {stream}")]
    Stream {
        /// The frame's type.
        kind: u16,
        /// The id.
        stream: u32,
    },
}

/// Takes a connection's bytes apart, however they are cut. Payloads are slices of the input, not
/// copies; at most [`MAX_CONTROL`] bytes are held between calls.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a control frame or of any frame's header.
    partial: BytesMut,
    /// The DATA frame whose payload is arriving.
    data: Option<Data>,
}

#[derive(Debug)]
struct Data {
    stream: u32,
    remaining: usize,
    fin: bool,
}

impl Decoder {
    /// The decoder of a fresh connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next frame off the front of `input`; `None` when more bytes are needed, and then
    /// all of `input` was taken.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Frame>, SpdyError> {
        if let Some(data) = &mut self.data {
            if input.is_empty() {
                return Ok(None);
            }
            let payload = input.split_to(data.remaining.min(input.len()));
            data.remaining -= payload.len();
            let (stream, done) = (data.stream, data.remaining == 0);
            let fin = done && data.fin;
            if done {
                self.data = None;
            }
            return Ok(Some(Frame::Data {
                stream,
                payload,
                fin,
            }));
        }
        if !fill(&mut self.partial, input, HEADER) {
            return Ok(None);
        }
        let header = &self.partial[..HEADER];
        let len =
            usize::from(header[5]) << 16 | usize::from(header[6]) << 8 | usize::from(header[7]);
        let fin = header[4] & FLAG_FIN != 0;
        if header[0] & CONTROL == 0 {
            let stream = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
            self.partial.clear();
            if len == 0 {
                let payload = Bytes::new();
                return Ok(Some(Frame::Data {
                    stream,
                    payload,
                    fin,
                }));
            }
            self.data = Some(Data {
                stream,
                remaining: len,
                fin,
            });
            return self.next(input);
        }
        let version = u16::from_be_bytes([header[0] & !CONTROL, header[1]]);
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        let kind = u16::from_be_bytes([header[2], header[3]]);
        if len > MAX_CONTROL {
            return Err(SpdyError::TooLarge { kind, len });
        }
        if !fill(&mut self.partial, input, HEADER + len) {
            return Ok(None);
        }
        let frame = control(kind, fin, &self.partial[HEADER..]);
        self.partial.clear();
        frame.map(Some)
    }
}

fn control(kind: u16, fin: bool, body: &[u8]) -> Result<Frame, SpdyError> {
    let short = SpdyError::Length {
        kind,
        len: body.len(),
    };
    let word = |at: usize| {
        body.get(at..at + 4)
            .map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]))
            .ok_or_else(|| short.clone())
    };
    let stream = || match word(0)? & MAX_STREAM_ID {
        0 => Err(SpdyError::Stream { kind, stream: 0 }),
        stream => Ok(stream),
    };
    let exactly = |len: usize| {
        if body.len() == len {
            Ok(())
        } else {
            Err(short.clone())
        }
    };
    match kind {
        SYN_STREAM => {
            word(8)?;
            Ok(Frame::SynStream { stream: stream()? })
        }
        SYN_REPLY => Ok(Frame::SynReply {
            stream: stream()?,
            fin,
        }),
        RST_STREAM => {
            exactly(8)?;
            Ok(Frame::Reset {
                stream: stream()?,
                status: word(4)?,
            })
        }
        HEADERS => Ok(Frame::Headers {
            stream: stream()?,
            fin,
        }),
        PING => {
            exactly(4)?;
            Ok(Frame::Ping { id: word(0)? })
        }
        GOAWAY => exactly(8).map(|()| Frame::GoAway),
        SETTINGS | WINDOW_UPDATE => Ok(Frame::Ignored),
        _ => Err(SpdyError::Type(kind)),
    }
}
