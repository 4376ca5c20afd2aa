//! Byte streams: what every layer hands to the next, and the loop that joins two of them.

mod accept;
pub mod datagram;
#[cfg(all(feature = "client", target_os = "linux"))]
pub mod listening;
mod pass;
#[cfg(all(feature = "client", target_os = "linux"))]
mod peer;
#[cfg(all(feature = "client", target_os = "linux"))]
mod sock_diag;
pub mod text;
mod traffic;
#[cfg(feature = "client")]
pub mod user;

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use accept::{accept, accept_each};
pub(crate) use pass::pass_writes;
pub use traffic::{Traffic, TrafficSnapshot};

/// Bytes that [`splice`] holds per direction: two frames of a port-forward, four TLS records.
pub const SPLICE_BUFFER: usize = 64 << 10;

/// An ordered byte stream with two directions that end on their own.
///
/// `poll_shutdown` ends the writing direction in order (a FIN); the reading direction goes on.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Makes the peer see a failure instead of an orderly end when this stream is dropped.
    fn reset(&mut self) {}
}

/// Why a stream failed, for people: of a peer that goes without a goodbye, TLS libraries say where
/// their manual is.
#[must_use]
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the peer closed it in the middle".to_owned(),
        _ => error.to_string(),
    }
}

/// A stream whose type does not matter any more.
pub type BoxIo = Box<dyn Io>;

impl Io for BoxIo {
    fn reset(&mut self) {
        (**self).reset();
    }
}

impl Io for TcpStream {
    fn reset(&mut self) {
        // Fails only on a socket that is gone already.
        let _ = self.set_zero_linger();
    }
}

impl Io for tokio::io::DuplexStream {}

/// A stream whose first bytes were already read, for example to see which protocol it speaks.
#[derive(Debug)]
pub struct Prefixed<T> {
    prefix: bytes::Bytes,
    inner: T,
}

impl<T> Prefixed<T> {
    /// Reads of the result give `prefix` first, then what `inner` has.
    pub fn new(prefix: bytes::Bytes, inner: T) -> Self {
        Self { prefix, inner }
    }

    /// Has `bytes` read again, before all others.
    pub fn put_back(&mut self, bytes: bytes::Bytes) {
        self.prefix = match self.prefix.is_empty() {
            true => bytes,
            false => [bytes, std::mem::take(&mut self.prefix)].concat().into(),
        };
    }

    /// The stream behind the first bytes.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// The bytes not read again yet, and the stream behind them.
    pub fn into_parts(self) -> (bytes::Bytes, T) {
        (self.prefix, self.inner)
    }
}

impl<T: Io> Io for Prefixed<T> {
    fn reset(&mut self) {
        self.inner.reset();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix.split_to(n));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    pass_writes!(inner);
}

/// What went through a [`splice`], in bytes, whether it ended well or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes that the first stream sent to the second.
    pub forth: u64,
    /// Bytes that the second stream sent to the first.
    pub back: u64,
}

/// Joins two streams until both directions have ended. The end of one direction is passed on and
/// leaves the other direction open; a failure resets both streams.
///
/// There is no idle limit: an established stream lives as long as its ends want.
pub async fn splice<A: Io, B: Io>(a: A, b: B) -> (Transferred, io::Result<()>) {
    let mut both = Splice {
        a,
        b,
        forth: Pipe::new(),
        back: Pipe::new(),
    };
    let result = std::future::poll_fn(|cx| both.poll(cx)).await;
    if result.is_err() {
        both.a.reset();
        both.b.reset();
    }
    (
        Transferred {
            forth: both.forth.written,
            back: both.back.written,
        },
        result,
    )
}

struct Splice<A, B> {
    a: A,
    b: B,
    forth: Pipe,
    back: Pipe,
}

impl<A: Io, B: Io> Splice<A, B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let forth = self.forth.poll(cx, &mut self.a, &mut self.b)?;
        let back = self.back.poll(cx, &mut self.b, &mut self.a)?;
        if forth.is_ready() && back.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

thread_local! {
    /// What the directions of a thread that have no buffer of their own read into; bytes stay in it
    /// only within one poll.
    static SCRATCH: Cell<Box<[u8]>> = Cell::default();
}

/// One direction. It has a buffer of its own only while there are bytes that the other stream has
/// not taken, so that an idle direction is free however much it carried.
struct Pipe {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    written: u64,
    state: PipeState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PipeState {
    Open,
    Ending,
    Ended,
}

impl Pipe {
    fn new() -> Self {
        Self {
            buffer: Box::default(),
            start: 0,
            end: 0,
            written: 0,
            state: PipeState::Open,
        }
    }

    fn poll<R: Io, W: Io>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.start < self.end {
                let n =
                    ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.start..self.end]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += n;
                self.written += n as u64;
            }
            match self.state {
                PipeState::Ended => return Poll::Ready(Ok(())),
                PipeState::Ending => {
                    match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                        // The peer closed both directions while its end was on the way.
                        Err(e) if e.kind() != io::ErrorKind::NotConnected => {
                            return Poll::Ready(Err(e));
                        }
                        _ => self.state = PipeState::Ended,
                    }
                    continue;
                }
                PipeState::Open => {}
            }
            let read = match self.buffer.is_empty() {
                true => {
                    // Taken out of its place, since nobody knows what the streams' own code does.
                    let mut scratch = SCRATCH.take();
                    if scratch.is_empty() {
                        scratch = vec![0; SPLICE_BUFFER].into_boxed_slice();
                    }
                    let read = self.through(cx, from, to, &mut scratch);
                    SCRATCH.set(scratch);
                    read
                }
                false => {
                    let mut buf = ReadBuf::new(&mut self.buffer);
                    let read = Pin::new(&mut *from).poll_read(cx, &mut buf);
                    (self.start, self.end) = (0, buf.filled().len());
                    read.map_ok(|()| self.end)
                }
            };
            match read {
                Poll::Pending => {
                    // All of it went on.
                    self.buffer = Box::default();
                    // Only now: more may have come that goes out with it in one write.
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => self.state = PipeState::Ending,
                Poll::Ready(result) => drop(result?),
            }
        }
    }

    /// Reads into `scratch` and writes that. What the other stream does not take at once is kept.
    fn through<R: Io, W: Io>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(scratch);
        ready!(Pin::new(from).poll_read(cx, &mut buf))?;
        let bytes = buf.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = match Pin::new(to).poll_write(cx, bytes) {
            Poll::Pending => 0,
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(taken) => taken?,
        };
        self.written += taken as u64;
        let rest = &bytes[taken..];
        if !rest.is_empty() {
            self.buffer = vec![0; SPLICE_BUFFER].into_boxed_slice();
            self.buffer[..rest.len()].copy_from_slice(rest);
            (self.start, self.end) = (0, rest.len());
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

#[cfg(test)]
mod tests;
