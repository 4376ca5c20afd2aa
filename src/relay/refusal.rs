//! What a caller is told whose head hyper refuses: it answers by a status alone, which says neither
//! who refuses nor why.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::{ERROR_HEADER, MAX_HEAD, MAX_HEADERS};
use crate::io::Io;

/// What hyper says of a head that is too large.
const BARE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
connection: close\r\ncontent-length: 0\r\n\r\n";

/// A stream on which hyper's bare refusal goes out with its reason.
#[derive(Debug)]
pub(super) struct Reasoned<T> {
    inner: T,
    /// What is still to be written in the place of a refusal.
    instead: Bytes,
}

impl<T> Reasoned<T> {
    pub(super) fn new(inner: T) -> Self {
        Self {
            inner,
            instead: Bytes::new(),
        }
    }

    /// The stream itself.
    pub(super) fn inner(&self) -> &T {
        &self.inner
    }

    /// The same, to change it.
    pub(super) fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Whether no refusal waits to be written.
    pub(super) fn is_written(&self) -> bool {
        self.instead.is_empty()
    }
}

fn refusal() -> Bytes {
    let text = format!(
        "kdev: the head of this request has more than {} KiB or {MAX_HEADERS} lines, which is more \
         than an intercepted Service's relay reads\n",
        MAX_HEAD >> 10
    );
    let head = format!(
        "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
         content-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         {ERROR_HEADER}: head-too-large\r\n\r\n",
        text.len()
    );
    (head + &text).into()
}

impl<T: AsyncWrite + Unpin> Reasoned<T> {
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.instead))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Io> Io for Reasoned<T> {
    fn reset(&mut self) {
        self.inner.reset();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Reasoned<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Reasoned<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if buf == BARE {
            // What does not go out now does so before anything else, or when it is flushed.
            self.instead = refusal();
            return match self.poll_instead(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(buf.len())),
            };
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        if let (Some(buf), None) = (filled.next(), filled.next()) {
            return self.poll_write(cx, buf);
        }
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
