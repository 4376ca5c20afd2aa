//! What a server sends in SPDY/3.1.

use bytes::Bytes;
use kdev::k8s::portforward::spdy::{Decoder, Frame};

use super::{Random, fuzz};

/// Takes `input` apart in pieces of random size; the frames until the first error.
fn decode(input: &[u8], random: &mut Random) -> Vec<Frame> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(1 + random.below(rest.len()));
        rest = more;
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return frames,
            }
        }
        assert!(piece.is_empty(), "bytes were left behind");
    }
    frames
}

/// Payload bytes per stream, and everything else as it came: what cuts must not change.
fn meaning(frames: &[Frame]) -> (usize, Vec<&Frame>) {
    let payload = frames.iter().map(|frame| match frame {
        Frame::Data { payload, .. } => payload.len(),
        _ => 0,
    });
    let control = frames
        .iter()
        .filter(|frame| !matches!(frame, Frame::Data { .. }));
    (payload.sum(), control.collect())
}

#[test]
fn spdy() {
    let seeds: &[&[u8]] = &[
        // SYN_REPLYs, data in two frames, both ends.
        b"\x80\x03\0\x02\0\0\0\x0c\0\0\0\x01\x78\xbb\xe3\xc6\xa7\xc2\0\0\
          \x80\x03\0\x02\0\0\0\x04\0\0\0\x03\0\0\0\x03\0\0\0\x05hello\
          \0\0\0\x03\x01\0\0\0\0\0\0\x01\x01\0\0\0",
        // A refusal: text on the error stream, both streams given up.
        b"\0\0\0\x01\0\0\0\x07refused\x80\x03\0\x03\0\0\0\x08\0\0\0\x01\0\0\0\x05\
          \x80\x03\0\x03\0\0\0\x08\0\0\0\x03\0\0\0\x05",
        // Pings of both sides, SETTINGS, WINDOW_UPDATE, GOAWAY.
        b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x01\x80\x03\0\x06\0\0\0\x04\0\0\0\x02\
          \x80\x03\0\x04\0\0\0\x04\0\0\0\0\x80\x03\0\x09\0\0\0\x08\0\0\0\x03\0\0\x10\0\
          \x80\x03\0\x07\0\0\0\x08\0\0\0\0\0\0\0\0",
    ];
    fuzz("spdy", seeds, |input, random| {
        let whole = decode(input, random);
        let again = decode(input, random);
        assert_eq!(
            meaning(&whole),
            meaning(&again),
            "the cuts changed what was read"
        );
        assert!(meaning(&whole).0 <= input.len());
    });
}
