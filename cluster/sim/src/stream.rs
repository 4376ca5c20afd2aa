//! The byte stream that a pod's port is handed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Bytes in flight towards a pod that is not reading: the stand-in for the socket buffers between
/// container runtime and pod. Real ones take about 4 MiB; less makes tests with stalled pods short.
const PIPE: usize = 256 * 1024;

/// One connection as the pod sees it. Dropping it closes it; [`SimStream::reset`] aborts it.
pub struct SimStream {
    io: DuplexStream,
    reset: Arc<AtomicBool>,
}

impl SimStream {
    /// Ends the connection as a TCP reset would: the other end reads an error, not an end of file.
    pub fn reset(self) {
        self.reset.store(true, Ordering::Release);
    }
}

/// The container runtime's end of a [`SimStream`].
pub(crate) struct RuntimeEnd {
    io: DuplexStream,
    reset: Arc<AtomicBool>,
}

/// The two ends of one connection to a pod.
pub(crate) fn pair() -> (SimStream, RuntimeEnd) {
    let (pod, runtime) = tokio::io::duplex(PIPE);
    let reset = Arc::new(AtomicBool::new(false));
    (
        SimStream {
            io: pod,
            reset: reset.clone(),
        },
        RuntimeEnd { io: runtime, reset },
    )
}

impl AsyncRead for RuntimeEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let at_end = matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        if at_end && self.reset.load(Ordering::Acquire) {
            let kind = io::ErrorKind::ConnectionReset;
            return Poll::Ready(Err(io::Error::new(kind, "read: connection reset by peer")));
        }
        polled
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

macro_rules! write_through {
    ($name:ty) => {
        impl AsyncWrite for $name {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.io).poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.io).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.io).poll_shutdown(cx)
            }
        }
    };
}

write_through!(SimStream);
write_through!(RuntimeEnd);

/// Joins a pod's connection with a real socket until both directions ended.
pub(crate) async fn join(mut pod: SimStream, mut socket: tokio::net::TcpStream) {
    if tokio::io::copy_bidirectional(&mut pod, &mut socket)
        .await
        .is_err()
    {
        pod.reset();
    }
}
