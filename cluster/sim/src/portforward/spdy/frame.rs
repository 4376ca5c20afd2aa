//! Frames of SPDY/3.1, read as strictly as the real servers read them.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::{Headers, Inflater};

/// `RST_STREAM` statuses that servers send.
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const CANCEL: u32 = 5;

const FIN: u8 = 0x01;
const UNIDIRECTIONAL: u8 = 0x02;

/// Control frames carry headers of a few dozen bytes; more is an attack or garbage.
const LARGEST_CONTROL: usize = 64 * 1024;

#[derive(Debug)]
pub(super) enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    },
    Reset {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Data {
        id: u32,
        fin: bool,
        data: Bytes,
    },
    /// Parsed and without effect: SYN_REPLY, SETTINGS, HEADERS, WINDOW_UPDATE.
    Ignored,
}

/// Reads one frame; `None` at a clean end. Any error ends the connection.
pub(super) async fn read<R: AsyncRead + Unpin>(
    from: &mut R,
    inflater: &mut Inflater,
) -> io::Result<Option<Frame>> {
    let mut head = [0; 8];
    let first = from.read(&mut head[..1]).await?;
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let flags = head[4];
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    if word & 0x8000_0000 != 0 {
        if length > LARGEST_CONTROL {
            return Err(invalid("control frame too large"));
        }
        let body = payload(from, length).await?;
        return control(word as u16, flags, &body, inflater).map(Some);
    }
    let data = payload(from, length).await?.into();
    match word {
        0 => Err(invalid("data on stream zero")),
        id => Ok(Some(Frame::Data {
            id,
            fin: flags & FIN != 0,
            data,
        })),
    }
}

async fn payload<R: AsyncRead + Unpin>(from: &mut R, length: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(body)
}

fn control(kind: u16, flags: u8, body: &[u8], inflater: &mut Inflater) -> io::Result<Frame> {
    let fin = flags & FIN != 0;
    match kind {
        1 => {
            let id = nonzero(word(body, 0)?)?;
            let block = body.get(10..).ok_or_else(|| invalid("short SYN_STREAM"))?;
            let headers = inflater.block(block)?;
            Ok(Frame::SynStream {
                id,
                fin,
                unidirectional: flags & UNIDIRECTIONAL != 0,
                headers,
            })
        }
        2 | 8 => {
            nonzero(word(body, 0)?)?;
            inflater.block(&body[4..])?;
            Ok(Frame::Ignored)
        }
        3 => {
            nonzero(word(body, 4)?)?;
            Ok(Frame::Reset {
                id: nonzero(word(body, 0)?)?,
            })
        }
        4 => Ok(Frame::Ignored),
        6 if flags == 0 => Ok(Frame::Ping {
            id: nonzero(word(body, 0)?)?,
        }),
        7 if flags == 0 && body.len() == 8 => Ok(Frame::GoAway),
        9 if flags == 0 && body.len() == 8 => Ok(Frame::Ignored),
        _ => Err(invalid("invalid control frame")),
    }
}

/// A control frame: `80 03`, type, no flags, length, body.
pub(super) fn encode_control(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + body.len());
    out.extend_from_slice(&[0x80, 0x03]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub(super) fn syn_reply(id: u32, block: &[u8]) -> Vec<u8> {
    encode_control(2, &[&id.to_be_bytes(), block].concat())
}

pub(super) fn reset(id: u32, status: u32) -> Vec<u8> {
    encode_control(3, &[id.to_be_bytes(), status.to_be_bytes()].concat())
}

pub(super) fn ping(id: u32) -> Vec<u8> {
    encode_control(6, &id.to_be_bytes())
}

pub(super) fn go_away(last: u32) -> Vec<u8> {
    encode_control(7, &[last.to_be_bytes(), 0_u32.to_be_bytes()].concat())
}

/// A data frame; its payload stays under 16 MiB because nothing here reads more than 32 KiB.
pub(super) fn data(id: u32, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload.len());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32 | u32::from(fin) << 24).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

fn word(body: &[u8], at: usize) -> io::Result<u32> {
    let bytes = body
        .get(at..at + 4)
        .and_then(|bytes| bytes.first_chunk::<4>());
    bytes
        .map(|bytes| u32::from_be_bytes(*bytes))
        .ok_or_else(|| invalid("short control frame"))
}

fn nonzero(number: u32) -> io::Result<u32> {
    if number == 0 {
        Err(invalid("zero where SPDY allows none"))
    } else {
        Ok(number)
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
