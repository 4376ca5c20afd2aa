//! Connections to apps, counted for `kdev status`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::{Io, Traffic, pass_writes};

/// A connection to an app. What the app sends goes into the cluster, and what it gets comes from
/// there.
pub(super) struct Counted<T> {
    app: T,
    traffic: Arc<Traffic>,
}

impl<T> Counted<T> {
    pub(super) fn new(app: T, traffic: Arc<Traffic>) -> Self {
        traffic.stream_opened();
        Self { app, traffic }
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.traffic.received(*bytes as u64);
        }
        result
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        self.traffic.stream_closed();
    }
}

impl<T: Io> Io for Counted<T> {
    fn reset(&mut self) {
        self.app.reset();
    }
}

impl<T: Io> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.app).poll_read(cx, buf))?;
        self.traffic.sent((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl<T: Io> AsyncWrite for Counted<T> {
    pass_writes!(app, wrote);
}
