//! WebSocket framing (RFC 6455) for the client's end of a byte stream: the codec, without I/O.
//!
//! Only what a port-forward needs: binary messages out, whole frames at a time and masked in
//! place; messages in, in pieces as they arrive.

use base64::Engine as _;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha1::{Digest, Sha1};

use super::parts::fill;

/// Room that must stand free before a payload for its frame header: 2 bytes, 8 of length, 4 of
/// mask.
pub const HEADER_ROOM: usize = 14;

/// Largest payload of a control frame (RFC 6455, 5.5).
const MAX_CONTROL: usize = 125;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// A frame that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A whole binary message.
    Binary,
    /// A ping.
    Ping,
    /// The answer to a ping.
    Pong,
    /// The end of the connection; the payload starts with the code.
    Close,
}

impl Opcode {
    fn number(self) -> u8 {
        match self {
            Self::Binary => BINARY,
            Self::Ping => PING,
            Self::Pong => PONG,
            Self::Close => CLOSE,
        }
    }
}

/// Makes a frame of `buffer[HEADER_ROOM..]` in place: writes the header right before the payload
/// and masks the payload with `mask`. Returns where the frame starts.
pub fn frame_in_place(buffer: &mut [u8], opcode: Opcode, mask: [u8; 4]) -> usize {
    let len = buffer.len() - HEADER_ROOM;
    let start = match len {
        0..=125 => {
            buffer[9] = 0x80 | len as u8;
            8
        }
        126..=0xffff => {
            buffer[7] = 0x80 | 126;
            buffer[8..10].copy_from_slice(&(len as u16).to_be_bytes());
            6
        }
        _ => {
            buffer[1] = 0x80 | 127;
            buffer[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            0
        }
    };
    buffer[start] = 0x80 | opcode.number();
    buffer[10..HEADER_ROOM].copy_from_slice(&mask);
    apply_mask(&mut buffer[HEADER_ROOM..], mask);
    start
}

/// Appends one masked frame to `out`, its payload being `head` and then `tail`.
pub fn put_frame(out: &mut BytesMut, opcode: Opcode, head: &[u8], tail: &[u8], mask: [u8; 4]) {
    put_frame_of(out, opcode, head.len() + tail.len(), mask, |out| {
        out.put_slice(head);
        out.put_slice(tail);
    });
}

/// Appends one masked frame to `out`, its payload being the `len` bytes that `fill` appends.
pub fn put_frame_of(
    out: &mut BytesMut,
    opcode: Opcode,
    len: usize,
    mask: [u8; 4],
    fill: impl FnOnce(&mut BytesMut),
) {
    out.put_u8(0x80 | opcode.number());
    match len {
        0..=125 => out.put_u8(0x80 | len as u8),
        126..=0xffff => {
            out.put_u8(0x80 | 126);
            out.put_u16(len as u16);
        }
        _ => {
            out.put_u8(0x80 | 127);
            out.put_u64(len as u64);
        }
    }
    out.put_slice(&mask);
    let start = out.len();
    fill(out);
    debug_assert_eq!(out.len(), start + len, "what was announced");
    apply_mask(&mut out[start..], mask);
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    // Eight bytes at a time let the compiler use whatever vectors there are.
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece of a message, never empty.
    Data {
        /// The bytes, a slice of the input.
        payload: Bytes,
        /// Whether a message begins with this piece.
        first: bool,
    },
    /// A ping, to be answered with the same payload.
    Ping(Bytes),
    /// The answer to a ping.
    Pong(Bytes),
    /// The peer closes, with its code (1005 where it gave none) and reason.
    Close(u16, String),
}

/// Why bytes are not what a WebSocket server may send. The connection cannot go on after that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// Reserved bits are set, and no extension was agreed on.
    #[error("frame with reserved bits {0:#04x}")]
    Reserved(u8),
    /// An opcode that the specification does not define.
    #[error("frame with unknown opcode {0:#x}")]
    Opcode(u8),
    /// Servers must not mask.
    #[error("masked frame from a server")]
    Masked,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("control frame with opcode {0:#x} is fragmented or too long")]
    Control(u8),
    /// A continuation of nothing, or a new message inside a message.
    #[error("frame with opcode {0:#x} out of order")]
    Order(u8),
}

/// Takes a connection's bytes apart, however they are cut. Message payloads are slices of the
/// input; at most a control frame is held between calls.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a frame header or of a control frame.
    partial: BytesMut,
    /// Payload bytes of the current frame that have not arrived.
    remaining: u64,
    /// A message is not complete.
    in_message: bool,
    /// No byte of the current message was handed out.
    first: bool,
}

impl Decoder {
    /// The decoder of a fresh connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event off the front of `input`; `None` when more bytes are needed, and then
    /// all of `input` was taken.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Event>, WebSocketError> {
        loop {
            if self.remaining > 0 {
                if input.is_empty() {
                    return Ok(None);
                }
                let n = usize::try_from(self.remaining)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                self.remaining -= n as u64;
                let first = std::mem::take(&mut self.first);
                return Ok(Some(Event::Data {
                    payload: input.split_to(n),
                    first,
                }));
            }
            if !fill(&mut self.partial, input, 2) {
                return Ok(None);
            }
            let (head, length) = (self.partial[0], self.partial[1]);
            let (fin, opcode) = (head & 0x80 != 0, head & 0x0f);
            if head & 0x70 != 0 {
                return Err(WebSocketError::Reserved(head & 0x70));
            }
            if length & 0x80 != 0 {
                return Err(WebSocketError::Masked);
            }
            if opcode >= CLOSE {
                let len = usize::from(length);
                if !fin || len > MAX_CONTROL {
                    return Err(WebSocketError::Control(opcode));
                }
                if !matches!(opcode, CLOSE | PING | PONG) {
                    return Err(WebSocketError::Opcode(opcode));
                }
                if !fill(&mut self.partial, input, 2 + len) {
                    return Ok(None);
                }
                let payload = self.partial.split().freeze().slice(2..);
                return Ok(Some(control(opcode, payload)));
            }
            match (opcode, self.in_message) {
                (BINARY | TEXT, false) | (CONTINUATION, true) => {}
                (BINARY | TEXT | CONTINUATION, _) => return Err(WebSocketError::Order(opcode)),
                _ => return Err(WebSocketError::Opcode(opcode)),
            }
            let header = match length {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            if !fill(&mut self.partial, input, header) {
                return Ok(None);
            }
            self.remaining = match header {
                2 => u64::from(length),
                _ => self.partial[2..header]
                    .iter()
                    .fold(0, |n, byte| n << 8 | u64::from(*byte)),
            };
            self.partial.clear();
            self.first |= opcode != CONTINUATION;
            self.in_message = !fin;
        }
    }
}

fn control(opcode: u8, mut payload: Bytes) -> Event {
    match opcode {
        PING => Event::Ping(payload),
        PONG => Event::Pong(payload),
        _ => {
            let code = if payload.len() >= 2 {
                payload.get_u16()
            } else {
                1005
            };
            Event::Close(code, String::from_utf8_lossy(&payload).into_owned())
        }
    }
}

/// The `Sec-WebSocket-Accept` that answers `key` (RFC 6455, 4.2.2).
#[must_use]
pub fn accept_for(key: &str) -> String {
    let digest = Sha1::new()
        .chain_update(key.as_bytes())
        .chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_handshake_of_the_specification() {
        assert_eq!(
            accept_for("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn the_masked_hello_of_the_specification() {
        let mut out = BytesMut::new();
        put_frame(
            &mut out,
            Opcode::Binary,
            b"He",
            b"llo",
            [0x37, 0xfa, 0x21, 0x3d],
        );
        assert_eq!(
            &out[..],
            [
                0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
    }

    /// What a server receives: the frame's payload, unmasked.
    fn unmasked(frame: &[u8]) -> (u8, Vec<u8>) {
        let (at, len) = match frame[1] & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
            127 => (
                10,
                u64::from_be_bytes(frame[2..10].try_into().unwrap()) as usize,
            ),
            n => (2, usize::from(n)),
        };
        let mask: [u8; 4] = frame[at..at + 4].try_into().unwrap();
        let mut payload = frame[at + 4..].to_vec();
        assert_eq!(payload.len(), len);
        payload
            .iter_mut()
            .enumerate()
            .for_each(|(i, byte)| *byte ^= mask[i % 4]);
        (frame[0] & 0x0f, payload)
    }

    /// A frame as a server sends it.
    fn server_frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first_byte];
        match payload.len() {
            n @ 0..=125 => frame.push(n as u8),
            n @ 126..=0xffff => {
                frame.push(126);
                frame.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                frame.push(127);
                frame.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    fn events(pieces: &[&[u8]]) -> Result<Vec<Event>, WebSocketError> {
        let mut decoder = Decoder::new();
        let mut events = Vec::new();
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(event) = decoder.next(&mut input)? {
                events.push(event);
            }
        }
        Ok(events)
    }

    proptest! {
        #[test]
        fn what_we_send_is_what_a_server_reads(
            payload in prop::collection::vec(any::<u8>(), 0..70_000),
            mask in any::<[u8; 4]>(),
        ) {
            let mut out = BytesMut::new();
            let (head, tail) = payload.split_at(payload.len().min(1));
            put_frame(&mut out, Opcode::Binary, head, tail, mask);
            prop_assert_eq!(unmasked(&out), (BINARY, payload.clone()));
            let mut buffer = vec![0; HEADER_ROOM];
            buffer.extend_from_slice(&payload);
            let start = frame_in_place(&mut buffer, Opcode::Binary, mask);
            prop_assert_eq!(&buffer[start..], &out[..]);
        }

        #[test]
        fn messages_survive_any_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..10),
            cuts in prop::collection::vec(1usize..40, 1..40),
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                // Fragments with a ping between them are one message.
                let (head, tail) = message.split_at(message.len() / 2);
                bytes.extend(server_frame(0x02, head));
                bytes.extend(server_frame(0x89, b"alive?"));
                bytes.extend(server_frame(0x80, tail));
            }
            let mut pieces = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            let mut got: Vec<Vec<u8>> = Vec::new();
            let mut pings = 0;
            for event in events(&pieces).unwrap() {
                match event {
                    Event::Data { payload, first } => {
                        if first { got.push(Vec::new()) }
                        got.last_mut().unwrap().extend_from_slice(&payload);
                    }
                    Event::Ping(payload) => {
                        prop_assert_eq!(&payload[..], b"alive?");
                        pings += 1;
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(pings, messages.len());
            prop_assert_eq!(got, messages);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _ = events(&[&bytes]);
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_named() {
        for (bytes, error) in [
            (&[0xc2, 0][..], WebSocketError::Reserved(0x40)),
            (&[0x83, 0], WebSocketError::Opcode(3)),
            (&[0x8b, 0], WebSocketError::Opcode(0xb)),
            (&[0x82, 0x81, 0, 0, 0, 0, 0], WebSocketError::Masked),
            (&[0x09, 0], WebSocketError::Control(9)),
            (&[0x89, 126, 0, 126], WebSocketError::Control(9)),
            (&[0x80, 1, 0], WebSocketError::Order(0)),
            (&[0x02, 1, 0, 0x82, 1, 0], WebSocketError::Order(2)),
        ] {
            assert_eq!(events(&[bytes]).unwrap_err(), error);
        }
    }

    #[test]
    fn close_carries_code_and_reason() {
        let frame = server_frame(0x88, &[0x03, 0xe8, b'o', b'k']);
        assert_eq!(
            events(&[&frame]).unwrap(),
            [Event::Close(1000, "ok".into())]
        );
        assert_eq!(
            events(&[&server_frame(0x88, b"")]).unwrap(),
            [Event::Close(1005, String::new())]
        );
    }
}
