//! Closing a connection on which the peer still sends.
//!
//! A response that does not wait for the rest of its request (nobody takes it, or the app wants none of
//! it) is lost where the connection is closed while more comes: the kernel answers that with a reset, and
//! the peer drops what it has not read yet. So what comes is read for a while first (RFC 9112, 9.6).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::io::Io;

/// How long a peer may go on sending. Whoever reads while it sends has seen the response long before.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes that it may send.
const MOST: usize = 64 << 20;
/// Bytes that are read and forgotten at a time.
const PIECE: usize = 8 << 10;

/// A stream that is still there when whoever served it has ended. Cloning is shallow.
#[derive(Debug)]
pub(super) struct Lingering<T>(Arc<Mutex<T>>);

impl<T> Clone for Lingering<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Io> Lingering<T> {
    pub(super) fn new(inner: T) -> Self {
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Reads what comes until the peer has seen that this direction has ended.
    pub(super) async fn linger(mut self) {
        let reading = async {
            let (mut piece, mut left) = (vec![0; PIECE], MOST);
            while let Ok(read @ 1..) = self.read(&mut piece).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        };
        // Who has not had enough by then has lost the response.
        let _ = timeout(LIMIT, reading).await;
    }

    /// Does something with the stream itself.
    pub(super) fn with<R>(&self, what: impl FnOnce(&mut T) -> R) -> R {
        what(&mut self.inner())
    }

    fn inner(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Io> Io for Lingering<T> {
    fn reset(&mut self) {
        self.inner().reset();
    }
}

impl<T: Io> AsyncRead for Lingering<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner()).poll_read(cx, buf)
    }
}

impl<T: Io> AsyncWrite for Lingering<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_heard_to_its_end_and_no_longer_than_it_may_take() {
        let (silent, _near) = duplex(PIECE);
        let began = Instant::now();
        Lingering::new(silent).linger().await;
        assert_eq!(began.elapsed(), LIMIT);

        let (stream, mut near) = duplex(PIECE);
        let leaves = async {
            near.write_all(&[7; 3 * PIECE]).await.unwrap();
            drop(near);
        };
        let began = Instant::now();
        tokio::join!(Lingering::new(stream).linger(), leaves);
        assert_eq!(began.elapsed(), Duration::ZERO);

        let (stream, mut near) = duplex(PIECE);
        let mut sent = 0;
        let floods = async {
            while near.write_all(&[7; PIECE]).await.is_ok() {
                sent += PIECE;
            }
        };
        let began = Instant::now();
        tokio::join!(Lingering::new(stream).linger(), floods);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!((MOST..MOST + 3 * PIECE).contains(&sent), "{sent}");
    }
}
