//! What a server sends in a WebSocket.

use bytes::Bytes;
use kdev::k8s::portforward::websocket::{Decoder, Event};

use super::{Random, fuzz};

/// The payload of all messages, where each began, and whether an error ended it.
fn decode(input: &[u8], random: &mut Random) -> (Vec<u8>, Vec<usize>, bool) {
    let mut decoder = Decoder::new();
    let (mut payload, mut starts) = (Vec::new(), Vec::new());
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(1 + random.below(rest.len()));
        rest = more;
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(Event::Data {
                    payload: bytes,
                    first,
                })) => {
                    assert!(!bytes.is_empty());
                    if first {
                        starts.push(payload.len());
                    }
                    payload.extend_from_slice(&bytes);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return (payload, starts, true),
            }
        }
        assert!(piece.is_empty(), "bytes were left behind");
    }
    (payload, starts, false)
}

#[test]
fn websocket() {
    let seeds: &[&[u8]] = &[
        b"\x82\x05hello\x82\x00\x82\x7e\x00\x03abc",
        b"\x02\x03abc\x89\x04ping\x80\x03def",
        b"\x82\x7f\0\0\0\0\0\0\0\x02hi\x88\x04\x03\xe8ok",
        b"\x82\x03\0\x90\x1f\x82\x03\x01\x90\x1f\x82\x06\0hello\x82\x08\x01refused",
    ];
    fuzz("websocket", seeds, |input, random| {
        let whole = decode(input, random);
        assert_eq!(
            whole,
            decode(input, random),
            "the cuts changed what was read"
        );
        assert!(whole.0.len() <= input.len());
    });
}
