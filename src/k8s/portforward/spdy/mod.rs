//! SPDY/3.1 as Kubernetes speaks it: the codec, without I/O.
//!
//! Only what a port-forward needs is here. Headers that a server sends are never looked at, so
//! they are skipped without being inflated.
//! Source: draft-mbelshe-httpbis-spdy-00 with the habits of `moby/spdystream`.

mod decode;
mod dictionary;
pub(super) mod encode;

pub use decode::{Decoder, Frame, SpdyError};
pub use encode::{Encoder, StreamType};

/// Largest payload of a DATA frame that we send. The container runtime reads 32 KiB at a time.
pub const MAX_DATA: usize = 32 << 10;

/// Largest control frame that is accepted. The largest one a server sends is a SYN_REPLY with a
/// few headers, far below 1 KiB.
pub const MAX_CONTROL: usize = 16 << 10;

/// Largest stream id (31 bits).
pub const MAX_STREAM_ID: u32 = 0x7fff_ffff;

/// RST_STREAM status `PROTOCOL_ERROR`.
pub const STATUS_PROTOCOL_ERROR: u32 = 1;
/// RST_STREAM status `REFUSED_STREAM`.
pub const STATUS_REFUSED_STREAM: u32 = 3;
/// RST_STREAM status `CANCEL`.
pub const STATUS_CANCEL: u32 = 5;

const VERSION: u16 = 3;
const CONTROL: u8 = 0x80;
const FLAG_FIN: u8 = 0x01;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

#[cfg(test)]
mod tests;
