use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};
use proptest::prelude::*;

use super::decode::{Decoder, Frame, SpdyError};
use super::encode::{self, Encoder, StreamType};
use super::*;

/// Reads our own SYN_STREAMs as a server does, through one zlib stream.
struct Server {
    inflate: Decompress,
}

impl Server {
    fn headers(&mut self, block: &[u8]) -> Vec<(String, String)> {
        let mut plain = vec![0; 4 << 10];
        let made = self.inflate.total_out();
        let mut result = self
            .inflate
            .decompress(block, &mut plain, FlushDecompress::Sync);
        if let Err(e) = &result
            && e.needs_dictionary().is_some()
        {
            let taken = self.inflate.total_in() as usize;
            self.inflate
                .set_dictionary(&dictionary::dictionary())
                .unwrap();
            result = self
                .inflate
                .decompress(&block[taken..], &mut plain, FlushDecompress::Sync);
        }
        result.unwrap();
        plain.truncate((self.inflate.total_out() - made) as usize);
        let mut at = 0;
        let mut number = |plain: &[u8]| {
            let n = u32::from_be_bytes(plain[at..at + 4].try_into().unwrap()) as usize;
            at += 4;
            (n, at)
        };
        let (count, _) = number(&plain);
        let mut headers = Vec::new();
        let mut cursor = 4;
        for _ in 0..count {
            let mut pair = Vec::new();
            for _ in 0..2 {
                let n = u32::from_be_bytes(plain[cursor..cursor + 4].try_into().unwrap()) as usize;
                cursor += 4;
                pair.push(String::from_utf8(plain[cursor..cursor + n].to_vec()).unwrap());
                cursor += n;
            }
            headers.push((pair[0].clone(), pair[1].clone()));
        }
        assert_eq!(cursor, plain.len());
        headers
    }
}

#[test]
fn the_first_syn_stream_has_the_bytes_of_a_real_one() {
    let mut out = BytesMut::new();
    Encoder::new().syn_stream(&mut out, 1, StreamType::Error, 8080, 0);
    let len = out.len() - 8;
    assert_eq!(&out[..5], [0x80, 3, 0, 1, 1]);
    assert_eq!(&out[5..8], &(len as u32).to_be_bytes()[1..]);
    assert_eq!(&out[8..18], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    // A zlib header that asks for the SPDY dictionary, as every implementation sends it.
    assert_eq!(out[18] & 0x0f, 8);
    assert_ne!(out[19] & 0x20, 0);
    assert_eq!(&out[20..24], [0xe3, 0xc6, 0xa7, 0xc2]);
}

#[test]
fn header_blocks_inflate_in_order() {
    let mut encoder = Encoder::new();
    let mut server = Server {
        inflate: Decompress::new(true),
    };
    for i in 0..500u32 {
        let half = if i % 2 == 0 {
            StreamType::Error
        } else {
            StreamType::Data
        };
        let mut out = BytesMut::new();
        let port = (i * 131 % 65_535 + 1) as u16;
        encoder.syn_stream(&mut out, 2 * i + 1, half, port, i * 7);
        let expected = [
            (
                "streamtype",
                if i % 2 == 0 { "error" } else { "data" }.to_owned(),
            ),
            ("port", port.to_string()),
            ("requestid", (i * 7).to_string()),
        ]
        .map(|(k, v)| (k.to_owned(), v));
        assert_eq!(server.headers(&out[18..]), expected);
        assert_eq!(out[4] == FLAG_FIN, i % 2 == 0);
    }
}

fn drain(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Frame>, SpdyError> {
    let mut input = Bytes::copy_from_slice(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next(&mut input)? {
        frames.push(frame);
    }
    assert!(input.is_empty());
    Ok(frames)
}

/// Puts the pieces of DATA frames together again, so that cuts do not matter.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut out: Vec<Frame> = Vec::new();
    for frame in frames {
        match (out.last_mut(), &frame) {
            (
                Some(Frame::Data {
                    stream,
                    payload,
                    fin,
                }),
                Frame::Data {
                    stream: s,
                    payload: more,
                    fin: f,
                },
            ) if stream == s && !*fin => {
                let mut whole = BytesMut::from(&payload[..]);
                whole.extend_from_slice(more);
                *payload = whole.freeze();
                *fin = *f;
            }
            _ => out.push(frame),
        }
    }
    out
}

fn frame() -> impl Strategy<Value = (Vec<u8>, Frame)> {
    let id = 1..=MAX_STREAM_ID;
    prop_oneof![
        (id.clone(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(stream, payload)| {
            let mut out = BytesMut::new();
            encode::data_header(&mut out, stream, payload.len(), true);
            out.put_slice(&payload);
            (
                out.to_vec(),
                Frame::Data {
                    stream,
                    payload: payload.into(),
                    fin: true,
                },
            )
        }),
        (id.clone(), any::<u32>()).prop_map(|(stream, status)| {
            let mut out = BytesMut::new();
            encode::rst_stream(&mut out, stream, status);
            (out.to_vec(), Frame::Reset { stream, status })
        }),
        any::<u32>().prop_map(|id| {
            let mut out = BytesMut::new();
            encode::ping(&mut out, id);
            (out.to_vec(), Frame::Ping { id })
        }),
        Just(()).prop_map(|()| {
            let mut out = BytesMut::new();
            encode::goaway(&mut out);
            (out.to_vec(), Frame::GoAway)
        }),
        (id, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(stream, fin, block)| {
                let mut out = vec![0x80, 3, 0, 2, u8::from(fin), 0, 0, 4 + block.len() as u8];
                out.extend_from_slice(&stream.to_be_bytes());
                out.extend_from_slice(&block);
                (out, Frame::SynReply { stream, fin })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn frames_survive_any_cut(
        frames in prop::collection::vec(frame(), 0..20),
        cuts in prop::collection::vec(1usize..50, 1..50),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let mut decoder = Decoder::new();
        let mut got = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            got.extend(drain(&mut decoder, piece).unwrap());
            rest = more;
        }
        let expected: Vec<Frame> = frames.into_iter().map(|(_, frame)| frame).collect();
        prop_assert_eq!(joined(got), expected);
    }

    #[test]
    fn garbage_never_panics_and_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let mut decoder = Decoder::new();
        let _ = drain_any(&mut decoder, &bytes);
    }
}

fn drain_any(decoder: &mut Decoder, bytes: &[u8]) -> Result<(), SpdyError> {
    let mut input = Bytes::copy_from_slice(bytes);
    while decoder.next(&mut input)?.is_some() {}
    Ok(())
}

#[test]
fn what_is_not_spdy_is_named() {
    let error = |bytes: &[u8]| drain(&mut Decoder::new(), bytes).unwrap_err();
    assert_eq!(error(&[0x80, 2, 0, 1, 0, 0, 0, 0]), SpdyError::Version(2));
    assert_eq!(error(&[0x80, 3, 0, 5, 0, 0, 0, 0]), SpdyError::Type(5));
    assert_eq!(
        error(&[0x80, 3, 0, 1, 0, 0xff, 0, 0]),
        SpdyError::TooLarge {
            kind: 1,
            len: 0xff_0000
        }
    );
    assert_eq!(
        error(&[0x80, 3, 0, 7, 0, 0, 0, 0]),
        SpdyError::Length { kind: 7, len: 0 }
    );
    assert_eq!(
        error(&[0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0]),
        SpdyError::Stream { kind: 2, stream: 0 }
    );
}
