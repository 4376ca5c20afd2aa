//! Sockets that say what they hold.
//!
//! A socket holds bytes where its peer does not take what was written, and where nobody reads what
//! came. Both show in how it is used: a write that has to wait, and a read after which nobody asked
//! whether there is more. As long as that lasts, the socket's buffer counts as full.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::memory::Memory;
use super::part::{Charge, Part};
use crate::io::Io;

/// What a socket's bytes are charged to.
pub(super) trait Purse: Send + Unpin + 'static {
    /// Charged until it is dropped.
    type Held: Send + Unpin + std::fmt::Debug;

    /// Charges what is there already.
    fn pin(&self, bytes: usize) -> Self::Held;

    /// Bytes moved.
    fn moved(&self) {}

    /// The peer does not take what was written, or does again.
    fn stuck(&self, _stuck: bool) {}

    /// All that was written has gone to the kernel.
    fn written(&self) {}
}

impl Purse for (Memory, Part) {
    type Held = Charge;

    fn pin(&self, bytes: usize) -> Charge {
        self.0.pin(&self.1, bytes)
    }
}

/// What a full buffer costs, per direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Bytes that came and that nobody has read.
    pub(super) unread: usize,
    /// Bytes that were written and not taken, here and in whoever writes.
    pub(super) unsent: usize,
    /// Most bytes that are read at a time. hyper keeps a buffer that is twice as large as what it
    /// could fill last.
    pub(super) read: usize,
}

/// A socket that says what it holds.
#[derive(Debug)]
pub(super) struct Metered<P: Purse> {
    socket: TcpStream,
    purse: P,
    cost: Cost,
    unread: Option<P::Held>,
    unsent: Option<P::Held>,
}

impl<P: Purse> Metered<P> {
    pub(super) fn new(socket: TcpStream, purse: P, cost: Cost) -> Self {
        Self {
            socket,
            purse,
            cost,
            unread: None,
            unsent: None,
        }
    }

    /// What its bytes are charged to.
    pub(super) fn purse(&self) -> &P {
        &self.purse
    }

    /// Whether something that was written has to wait.
    pub(super) fn is_stuck(&self) -> bool {
        self.unsent.is_some()
    }

    /// Ready when there is something to read, without a buffer for it.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_read_ready(cx)
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending if self.unsent.is_none() => {
                self.purse.stuck(true);
                self.unsent = Some(self.purse.pin(self.cost.unsent));
            }
            Poll::Pending => {}
            Poll::Ready(_) => {
                if self.unsent.take().is_some() {
                    self.purse.stuck(false);
                }
                self.purse.moved();
            }
        }
        written
    }
}

impl<P: Purse> Drop for Metered<P> {
    fn drop(&mut self) {
        // Whoever did not take what was written would have the kernel keep it.
        if self.is_stuck() {
            self.socket.reset();
        }
    }
}

impl<P: Purse> Io for Metered<P> {
    fn reset(&mut self) {
        self.socket.reset();
    }
}

impl<P: Purse> AsyncRead for Metered<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (before, room) = (buf.filled().len(), buf.remaining().min(this.cost.read));
        let mut some = (&mut this.socket).take(room as u64);
        let read = Pin::new(&mut some).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        if came > 0 {
            this.purse.moved();
        }
        // What fills less than there was room for is all that there was.
        if came == 0 || came < room {
            this.unread = None;
        } else if this.unread.is_none() {
            this.unread = Some(this.purse.pin(this.cost.unread));
        }
        read
    }
}

impl<P: Purse> AsyncWrite for Metered<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.purse.written();
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
