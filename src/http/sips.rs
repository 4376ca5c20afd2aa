//! Reading in small pieces.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::MAX_BUFFER;
use crate::io::{BoxIo, Io, pass_writes};

/// Bytes of one read. hyper doubles its buffer when a read fills it, up to what a head may have; with
/// this it stays at [`MAX_BUFFER`] while bodies go through.
const SIP: usize = MAX_BUFFER / 2;

/// A stream that gives few bytes at a time.
pub(super) struct Sips {
    io: BoxIo,
}

impl Sips {
    pub(super) fn of(io: BoxIo) -> Self {
        Self { io }
    }
}

impl Io for Sips {
    fn reset(&mut self) {
        self.io.reset();
    }
}

impl AsyncRead for Sips {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() <= SIP {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let mut sip = ReadBuf::new(buf.initialize_unfilled_to(SIP));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut sip))?;
        let read = sip.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sips {
    pass_writes!(io);
}
