//! A stream of a pool: one of a tunnel, counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::load::Meter;
use crate::io::{Io, Traffic, pass_writes};
use crate::tunnel::Stream;

/// A stream out of the relay. Dropping it before both directions have ended resets it.
#[derive(Debug)]
pub struct PoolStream {
    stream: Stream,
    meter: Meter,
    traffic: Arc<Traffic>,
}

impl PoolStream {
    pub(super) fn new(stream: Stream, meter: Meter, traffic: Arc<Traffic>) -> Self {
        traffic.stream_opened();
        Self {
            stream,
            meter,
            traffic,
        }
    }

    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &result {
            self.meter.moved(*n);
            self.traffic.sent(*n as u64);
        }
        result
    }
}

impl Drop for PoolStream {
    fn drop(&mut self) {
        self.traffic.stream_closed();
    }
}

impl Io for PoolStream {
    fn reset(&mut self) {
        self.stream.reset();
    }
}

impl AsyncRead for PoolStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.meter.moved(read);
        self.traffic.received(read as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PoolStream {
    pass_writes!(stream, wrote);
}
