//! One stream to a port of a pod, as the layers above see it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::lock;
use super::refusals::Refusals;
use super::shared::Shared;
use super::spdy::STATUS_CANCEL;
use super::state::{Failure, Piece, RECEIVE_HIGH, SMALL_UPLOAD, StreamState};
use crate::addr::Namespaced;
use crate::dial::DialError;
use crate::io::Io;

/// Where a waiting connection goes on.
pub(super) const RECEIVE_LOW: usize = RECEIVE_HIGH / 2;

/// How long an end without any byte waits for the error stream to say why. The runtime sends both
/// ends together.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that are taken and dropped after the runtime ended the stream, while the app still has
/// to read what came before. An error at once could take the pod's last words with it.
const MAX_DROPPED: u64 = 4 << 20;

/// A byte stream to a port of a pod.
pub struct PodStream {
    state: Arc<StreamState>,
    pod: Option<Namespaced>,
    connection: Arc<Shared>,
    /// Whether the connection carries nothing else, and ends with this.
    alone: bool,
    write_ended: bool,
    /// Bytes dropped after the runtime ended the stream.
    dropped: u64,
    /// Where a refusal is noted.
    refusals: Option<(Arc<Refusals>, u16)>,
    /// Runs while an empty end waits for the error stream.
    verdict: Option<Pin<Box<Sleep>>>,
}

impl PodStream {
    pub(super) fn new(state: Arc<StreamState>, connection: Arc<Shared>) -> Self {
        Self {
            state,
            pod: None,
            connection,
            alone: false,
            write_ended: false,
            dropped: 0,
            refusals: None,
            verdict: None,
        }
    }

    /// The same stream as the only one that its connection will ever carry.
    pub(super) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Says which pod it leads to.
    pub(super) fn leads_to(&mut self, pod: Namespaced) {
        self.pod = Some(pod);
    }

    /// The pod that it leads to, where that was said.
    pub(super) fn pod(&self) -> Option<&Namespaced> {
        self.pod.as_ref()
    }

    /// Notes in `refusals` when the pod refuses its `port`.
    pub(super) fn note_refusal(&mut self, refusals: Arc<Refusals>, port: u16) {
        self.refusals = Some((refusals, port));
    }

    fn fail(&mut self, failure: Failure) -> io::Error {
        let failure = match failure {
            Failure::Dial(failure) => failure,
            Failure::Reset(reset) => return io::Error::new(io::ErrorKind::ConnectionReset, reset),
        };
        if matches!(failure, DialError::Refused { .. })
            && let Some((refusals, port)) = self.refusals.take()
        {
            refusals.note(port);
        }
        failure.into_io()
    }

    /// Gives the stream up.
    fn abort(&self) {
        self.connection
            .outgoing
            .reset(self.state.pair.data, STATUS_CANCEL);
        // A pod that does not read holds up the server's worker, and the reset stands behind it.
        if self.state.unanswered.load(Ordering::Relaxed) > SMALL_UPLOAD {
            self.connection.retire("an upload was given up");
        }
    }

    /// Waits until the server reports a failure or sends a byte, for at most `limit`.
    pub(super) async fn early_failure(&self, limit: Duration) -> Option<DialError> {
        let of_dial = |failure| match failure {
            Failure::Dial(failure) => Some(failure),
            // The pod took it; the first read says what came of that.
            Failure::Reset(_) => None,
        };
        let judged = std::future::poll_fn(|cx| {
            let mut incoming = lock(&self.state.incoming);
            if incoming.queued > 0 || (incoming.ended && incoming.error_ended) {
                return Poll::Ready(self.state.failure(&incoming).and_then(of_dial));
            }
            match self.state.failure(&incoming) {
                Some(failure) => Poll::Ready(of_dial(failure)),
                None => {
                    incoming.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        tokio::time::timeout(limit, judged).await.unwrap_or(None)
    }

    /// Notes that the queue shrank, and lets the connection go on once it is low enough.
    fn consumed(&self, queued: usize) {
        if queued <= RECEIVE_LOW && self.state.full.swap(false, Ordering::AcqRel) {
            self.connection.resume();
        }
    }
}

impl AsyncRead for PodStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut incoming = lock(&this.state.incoming);
        if incoming.queued > 0 {
            while buf.remaining() > 0
                && let Some(front) = incoming.queue.front_mut()
            {
                let n = front.bytes().len().min(buf.remaining());
                buf.put_slice(&front.bytes()[..n]);
                match front {
                    Piece::Slice(bytes) => bytes.advance(n),
                    Piece::Copied(bytes) => bytes.advance(n),
                }
                if front.bytes().is_empty() {
                    incoming.queue.pop_front();
                }
                incoming.queued -= n;
            }
            let queued = incoming.queued;
            drop(incoming);
            this.consumed(queued);
            return Poll::Ready(Ok(()));
        }
        if let Some(failure) = this.state.failure(&incoming) {
            drop(incoming);
            return Poll::Ready(Err(this.fail(failure)));
        }
        if incoming.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if incoming.ended {
            let judged = incoming.error_ended || this.state.received.load(Ordering::Relaxed) > 0;
            if judged {
                return Poll::Ready(Ok(()));
            }
            incoming.reader = Some(cx.waker().clone());
            drop(incoming);
            let verdict = this
                .verdict
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(VERDICT_TIMEOUT)));
            ready!(verdict.as_mut().poll(cx));
            return Poll::Ready(Ok(()));
        }
        incoming.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for PodStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let given: usize = bufs.iter().map(|buf| buf.len()).sum();
        let this = &mut *self;
        {
            let mut incoming = lock(&this.state.incoming);
            if let Some(failure) = this.state.failure(&incoming) {
                drop(incoming);
                return Poll::Ready(Err(this.fail(failure)));
            }
            if incoming.reset || this.write_ended {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if incoming.ended {
                // The runtime ends both directions together. Nobody would read this there, and
                // it would hold up a worker of the server.
                if this.dropped > MAX_DROPPED {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                this.dropped += given as u64;
                return Poll::Ready(Ok(given));
            }
            incoming.writer = Some(cx.waker().clone());
        }
        if given == 0 {
            return Poll::Ready(Ok(0));
        }
        match ready!(
            self.connection
                .outgoing
                .poll_data(cx, self.state.pair.data, bufs)
        ) {
            Some(taken) => {
                self.state.sent.fetch_add(taken as u64, Ordering::Relaxed);
                let unanswered = &self.state.unanswered;
                unanswered.fetch_add(taken as u64, Ordering::Relaxed);
                self.connection.counters.traffic.sent(taken as u64);
                // An end that the reader took in meanwhile was judged without these bytes.
                if self.state.is_over() {
                    self.connection.judge(&self.state);
                }
                Poll::Ready(Ok(taken))
            }
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Nothing to wait for: the connection's writer is already on it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_ended {
            self.write_ended = true;
            self.state.finished.store(true, Ordering::Relaxed);
            self.connection.outgoing.finish(self.state.pair.data);
        }
        Poll::Ready(Ok(()))
    }
}

impl Io for PodStream {
    fn reset(&mut self) {
        self.abort();
        self.write_ended = true;
    }
}

impl Drop for PodStream {
    fn drop(&mut self) {
        if self.alone {
            self.connection.outgoing.close();
        }
        let over = {
            let incoming = lock(&self.state.incoming);
            (incoming.ended && self.write_ended) || incoming.reset
        };
        if !over {
            self.abort();
        }
        self.connection.forget(&self.state);
    }
}

impl std::fmt::Debug for PodStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodStream")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
