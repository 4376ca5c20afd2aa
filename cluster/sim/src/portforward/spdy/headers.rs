//! Header blocks: names and values, through one zlib stream per direction.

use std::collections::BTreeMap;
use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary;

/// The largest inflated block taken; port-forward's are under 100 bytes.
const LARGEST: usize = 64 * 1024;

/// Headers that SPDY forbids in requests.
const FORBIDDEN: [&str; 5] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
];

pub(super) type Headers = BTreeMap<String, String>;

/// The receiving side.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Inflates and parses one block. Every block must come through here, in order.
    pub(super) fn block(&mut self, mut input: &[u8]) -> io::Result<Headers> {
        let mut out = Vec::with_capacity(1024);
        loop {
            let before = (self.0.total_in(), out.len());
            let status = match self
                .0
                .decompress_vec(input, &mut out, FlushDecompress::Sync)
            {
                Ok(status) => status,
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary::bytes())
                        .map_err(invalid)?;
                    Status::Ok
                }
                Err(error) => return Err(invalid(error)),
            };
            let consumed = (self.0.total_in() - before.0) as usize;
            input = &input[consumed.min(input.len())..];
            if out.len() > LARGEST {
                return Err(invalid("header block too large"));
            }
            if out.len() == out.capacity() {
                out.reserve(1024);
            } else if input.is_empty() {
                return parse(&out);
            } else if consumed == 0 && out.len() == before.1 && status != Status::Ok {
                return Err(invalid("header block does not inflate"));
            }
        }
    }
}

/// The sending side.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> io::Result<Self> {
        let mut deflate = Compress::new(Compression::best(), true);
        deflate
            .set_dictionary(&dictionary::bytes())
            .map_err(invalid)?;
        Ok(Self(deflate))
    }

    /// An empty block: all that port-forward's replies carry.
    pub(super) fn empty_block(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(64);
        self.0
            .compress_vec(&0_u32.to_be_bytes(), &mut out, FlushCompress::Sync)
            .map_err(invalid)?;
        Ok(out)
    }
}

fn parse(block: &[u8]) -> io::Result<Headers> {
    let mut rest = block;
    let mut headers = Headers::new();
    for _ in 0..number(&mut rest)? {
        let name = text(&mut rest)?;
        let value = text(&mut rest)?;
        if name.to_lowercase() != name || FORBIDDEN.contains(&name.as_str()) {
            return Err(invalid("illegal header name"));
        }
        if headers.insert(name, value).is_some() {
            return Err(invalid("duplicate header"));
        }
    }
    Ok(headers)
}

fn number(rest: &mut &[u8]) -> io::Result<u32> {
    let (head, tail) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| invalid("short block"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn text(rest: &mut &[u8]) -> io::Result<String> {
    let length = number(rest)? as usize;
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or_else(|| invalid("short block"))?;
    *rest = tail;
    Ok(String::from_utf8_lossy(head).into_owned())
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
