//! WebSocket messages (RFC 6455), as much as port-forward uses.

/// A binary message.
pub(crate) const BINARY: u8 = 2;
/// The close message.
pub(crate) const CLOSE: u8 = 8;
const CONTINUATION: u8 = 0;

/// Takes one complete frame from the front of `bytes`: its opcode and payload, unmasked.
pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [first, second] = *bytes.first_chunk::<2>()?;
    let (length, mut at) = match second & 0x7f {
        126 => (
            usize::from(u16::from_be_bytes(*bytes[2..].first_chunk()?)),
            4,
        ),
        127 => {
            let length = u64::from_be_bytes(*bytes[2..].first_chunk()?);
            (usize::try_from(length).ok()?, 10)
        }
        short => (usize::from(short), 2),
    };
    let mut key = [0; 4];
    if second & 0x80 != 0 {
        key = *bytes.get(at..)?.first_chunk()?;
        at += 4;
    }
    let payload = bytes.get(at..at + length)?.iter();
    let payload = payload.zip(key.iter().cycle()).map(|(b, k)| b ^ k);
    let payload = payload.collect();
    bytes.drain(..at + length);
    let opcode = match first & 0x0f {
        // Payloads are joined anyway.
        CONTINUATION => BINARY,
        opcode => opcode,
    };
    Some((opcode, payload))
}

/// A frame; clients' are masked.
pub(crate) fn put(out: &mut Vec<u8>, opcode: u8, masked: bool, payload: &[u8]) {
    let key = if masked { [7, 11, 13, 17] } else { [0; 4] };
    let bit = if masked { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(bit | short as u8),
        medium @ 126..=0xffff => {
            out.push(bit | 126);
            out.extend((medium as u16).to_be_bytes());
        }
        long => {
            out.push(bit | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend(key);
    }
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
}
