//! Bytes that come or go in several pieces: slices that are written at once share frames, headers that are
//! read in parts are put together.

use std::io::IoSlice;

use bytes::{Buf as _, BufMut, Bytes, BytesMut};

/// What is left of several slices.
pub(super) struct Parts<'a> {
    slices: std::slice::Iter<'a, IoSlice<'a>>,
    current: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(super) fn new(slices: &'a [IoSlice<'a>]) -> Self {
        Self {
            slices: slices.iter(),
            current: &[],
        }
    }

    /// Appends the next `count` bytes, which there must be.
    pub(super) fn put(&mut self, out: &mut BytesMut, mut count: usize) {
        while count > 0 {
            while self.current.is_empty() {
                match self.slices.next() {
                    Some(slice) => self.current = slice,
                    None => return,
                }
            }
            let (piece, rest) = self.current.split_at(count.min(self.current.len()));
            out.put_slice(piece);
            self.current = rest;
            count -= piece.len();
        }
    }
}

/// Moves bytes of `input` to `held` until those are `wanted`; whether they are.
pub(super) fn fill(held: &mut BytesMut, input: &mut Bytes, wanted: usize) -> bool {
    let missing = wanted.saturating_sub(held.len());
    let n = missing.min(input.len());
    held.extend_from_slice(&input[..n]);
    input.advance(n);
    n == missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_order_however_they_are_cut() {
        let slices = [&b"abc"[..], b"", b"de", b"f"].map(IoSlice::new);
        for cut in 1..=6 {
            let (mut parts, mut out) = (Parts::new(&slices), BytesMut::new());
            for at in (0..6).step_by(cut) {
                parts.put(&mut out, cut.min(6 - at));
            }
            assert_eq!(&out[..], b"abcdef", "{cut}");
        }
    }
}
