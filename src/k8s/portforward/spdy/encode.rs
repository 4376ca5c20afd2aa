//! Frames that we send.

use bytes::{BufMut, BytesMut};
use flate2::{Compress, Compression, FlushCompress};

use super::dictionary::dictionary;
use super::{
    CONTROL, FLAG_FIN, GOAWAY, MAX_DATA, MAX_STREAM_ID, PING, RST_STREAM, SYN_STREAM, VERSION,
};

/// Which half of a port-forward pair a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamType {
    /// Carries the runtime's error text towards us and nothing towards it.
    Error,
    /// Carries the bytes.
    Data,
}

impl StreamType {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Data => "data",
        }
    }
}

/// Writes frames of one connection. Header blocks share one zlib stream, so frames must reach the
/// wire in the order in which they were encoded.
#[derive(Debug)]
pub struct Encoder {
    compress: Compress,
    /// A header block before compression, kept to spare the allocation.
    block: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// The encoder of a fresh connection.
    #[must_use]
    pub fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        compress
            .set_dictionary(&dictionary())
            .expect("a fresh deflate stream takes a dictionary");
        Self {
            compress,
            block: Vec::with_capacity(128),
        }
    }

    /// SYN_STREAM of one half of the pair `request_id` to the pod's `port`. The error half is
    /// closed towards the server by the same frame.
    pub fn syn_stream(
        &mut self,
        out: &mut BytesMut,
        id: u32,
        half: StreamType,
        port: u16,
        request_id: u32,
    ) {
        debug_assert!(id % 2 == 1 && id <= MAX_STREAM_ID);
        let start = out.len();
        let flags = if half == StreamType::Error {
            FLAG_FIN
        } else {
            0
        };
        put_control(out, SYN_STREAM, flags, 0);
        out.put_u32(id);
        out.put_u32(0); // associated to no stream
        out.put_u16(0); // priority 0 (highest), credential slot 0
        self.block.clear();
        self.block.put_u32(3);
        put_header(&mut self.block, "streamtype", half.name());
        put_header(&mut self.block, "port", itoa(port.into()).as_str());
        put_header(&mut self.block, "requestid", itoa(request_id).as_str());
        self.deflate(out);
        let len = out.len() - start - 8;
        out[start + 5..start + 8].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
    }

    /// Appends the compressed block, flushed so that the peer can inflate it now.
    fn deflate(&mut self, out: &mut BytesMut) {
        let mut input = self.block.as_slice();
        let mut chunk = [0; 256];
        loop {
            let (taken, made) = (self.compress.total_in(), self.compress.total_out());
            self.compress
                .compress(input, &mut chunk, FlushCompress::Sync)
                .expect("deflate with room in its output cannot fail");
            input = &input[(self.compress.total_in() - taken) as usize..];
            let n = (self.compress.total_out() - made) as usize;
            out.put_slice(&chunk[..n]);
            if input.is_empty() && n < chunk.len() {
                return;
            }
        }
    }
}

/// The header of a DATA frame whose payload of `len` bytes follows.
pub(crate) fn data_header(out: &mut BytesMut, id: u32, len: usize, fin: bool) {
    debug_assert!(len <= MAX_DATA);
    out.put_u32(id);
    let flags = if fin { FLAG_FIN } else { 0 };
    out.put_u32(u32::from(flags) << 24 | len as u32);
}

/// RST_STREAM.
pub(crate) fn rst_stream(out: &mut BytesMut, id: u32, status: u32) {
    put_control(out, RST_STREAM, 0, 8);
    out.put_u32(id);
    out.put_u32(status);
}

/// PING; ids that we choose are odd, the peer's come back as they were.
pub(crate) fn ping(out: &mut BytesMut, id: u32) {
    put_control(out, PING, 0, 4);
    out.put_u32(id);
}

/// GOAWAY with status OK: the server opens no streams, so the last good one is 0.
pub(crate) fn goaway(out: &mut BytesMut) {
    put_control(out, GOAWAY, 0, 8);
    out.put_u32(0);
    out.put_u32(0);
}

fn put_control(out: &mut BytesMut, kind: u16, flags: u8, len: u32) {
    out.put_u16(u16::from(CONTROL) << 8 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | len);
}

fn put_header(block: &mut Vec<u8>, name: &str, value: &str) {
    for text in [name, value] {
        block.put_u32(text.len() as u32);
        block.put_slice(text.as_bytes());
    }
}

/// A number in decimal without an allocation: a dial writes two of them.
fn itoa(number: u32) -> Decimal {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return Decimal { digits, at };
        }
    }
}

struct Decimal {
    digits: [u8; 10],
    at: usize,
}

impl Decimal {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[self.at..]).expect("digits are ASCII")
    }
}
