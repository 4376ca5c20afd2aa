//! Datagrams inside a stream: capsules (RFC 9297, 3.2 and 3.5) with context 0 (RFC 9298, 5).

use bytes::{Buf as _, BufMut as _, BytesMut};

/// The capsule type of a datagram.
const DATAGRAM: u64 = 0x00;
/// The context of a plain UDP payload.
const UDP_PAYLOAD: u64 = 0;
/// Most bytes of a UDP payload (RFC 9298, 5).
pub const MAX_PAYLOAD: usize = 65_527;
/// Most bytes before a payload in its capsule: type, length and context as this side writes them.
pub const MAX_HEAD: usize = 1 + 4 + 1;
/// Most bytes of a capsule: a payload and its context.
const MAX_CAPSULE: u64 = MAX_PAYLOAD as u64 + 8;

/// Why the bytes are no capsules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a capsule of {0} bytes is more than a datagram may have")]
pub struct TooLong(pub u64);

/// Appends `payload` as a capsule.
///
/// # Panics
/// When it is longer than [`MAX_PAYLOAD`]: no UDP datagram is.
pub fn encode(payload: &[u8], out: &mut BytesMut) {
    out.reserve(payload.len() + 8);
    encode_head(payload.len(), out);
    out.put_slice(payload);
}

/// Appends what stands before a payload of `length` bytes in its capsule.
///
/// # Panics
/// When that is more than [`MAX_PAYLOAD`]: no UDP datagram is.
pub fn encode_head(length: usize, out: &mut BytesMut) {
    assert!(length <= MAX_PAYLOAD, "no datagram is that long");
    put_varint(out, DATAGRAM);
    put_varint(out, length as u64 + 1);
    put_varint(out, UDP_PAYLOAD);
}

/// How many bytes the capsule has that `bytes` begins with, its head included; `None` where that
/// cannot be told yet.
#[must_use]
pub fn capsule(bytes: &[u8]) -> Option<usize> {
    let mut head = bytes;
    let (_, length) = (varint(&mut head)?, varint(&mut head)?);
    usize::try_from(length)
        .ok()?
        .checked_add(bytes.len() - head.len())
}

/// Cuts the next datagram's payload off `bytes`; `None` until enough has come. Capsules and
/// contexts of other kinds are skipped, as the RFCs ask.
///
/// # Errors
/// When a capsule claims more bytes than a datagram may have: the stream is of no more use.
pub fn decode(bytes: &mut BytesMut) -> Result<Option<BytesMut>, TooLong> {
    loop {
        let mut head = &bytes[..];
        let (Some(kind), Some(length)) = (varint(&mut head), varint(&mut head)) else {
            return Ok(None);
        };
        if length > MAX_CAPSULE {
            return Err(TooLong(length));
        }
        let header = bytes.len() - head.len();
        // At most MAX_CAPSULE, so it fits.
        #[allow(clippy::cast_possible_truncation)]
        let length = length as usize;
        if head.len() < length {
            return Ok(None);
        }
        bytes.advance(header);
        let mut value = bytes.split_to(length);
        let mut rest = &value[..];
        if kind == DATAGRAM && varint(&mut rest) == Some(UDP_PAYLOAD) {
            let context = value.len() - rest.len();
            value.advance(context);
            return Ok(Some(value));
        }
    }
}

/// Reads a variable-length integer (RFC 9000, 16) and moves past it.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let start = u64::from(first & 0x3f);
    Some(
        number[1..]
            .iter()
            .fold(start, |n, b| n << 8 | u64::from(*b)),
    )
}

/// Writes a variable-length integer below 2^30: all that is needed here.
fn put_varint(out: &mut BytesMut, number: u64) {
    #[allow(clippy::cast_possible_truncation)]
    match number {
        0..=0x3f => out.put_u8(number as u8),
        0x40..=0x3fff => out.put_u16(number as u16 | 0x4000),
        _ => out.put_u32(number as u32 | 0x8000_0000),
    }
}
