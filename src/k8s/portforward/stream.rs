//! One stream to a port of a pod, as the layers above see it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::connection::Shared;
use super::lock;
use super::outgoing::Pair;
use super::spdy::STATUS_CANCEL;
use crate::dial::DialError;
use crate::io::Io;

/// Payload bytes that a stream holds for a reader that is slower than the network. Above it the
/// whole connection waits, since SPDY here has no flow control.
pub(super) const RECEIVE_HIGH: usize = 1 << 20;
/// Where a waiting connection goes on.
pub(super) const RECEIVE_LOW: usize = RECEIVE_HIGH / 2;

/// A stream that has moved this many bytes is bulk: its connection takes no new streams, which
/// would stand behind it.
const BULK: u64 = 1 << 20;

/// Longest error text that is kept. The runtime sends one line.
const MAX_ERROR_TEXT: usize = 4 << 10;

/// Pieces smaller than this are copied together, so that a tiny one does not keep the whole
/// receive buffer alive that it arrived in.
const SMALL_PIECE: usize = 8 << 10;
/// Bytes that are copied together at most.
const COPIED_TOGETHER: usize = 64 << 10;

/// How long an end without any byte waits for the error stream to say why. The runtime sends both
/// ends together.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(2);

/// Sent bytes that are surely in the pod's socket by the time its runtime ends the stream, and so
/// do not wait for a reader: less than any socket buffer.
pub(super) const SMALL_UPLOAD: u64 = 64 << 10;

/// Bytes that are taken and dropped after the runtime ended the stream, while the app still has
/// to read what came before. An error at once could take the pod's last words with it.
const MAX_DROPPED: u64 = 4 << 20;

/// What both ends of the code, the connection's reader and the stream's owner, know of a stream.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) pair: Pair,
    /// What it leads to, for messages.
    target: String,
    received: AtomicU64,
    sent: AtomicU64,
    /// Bytes sent since some were last received.
    unanswered: AtomicU64,
    /// We ended our direction.
    finished: AtomicBool,
    /// The server accepted the error stream, and so its worker was alive.
    error_accepted: AtomicBool,
    incoming: Mutex<Incoming>,
    /// The queue is above [`RECEIVE_HIGH`]; the connection waits for it.
    pub(super) full: AtomicBool,
}

#[derive(Debug, Default)]
struct Incoming {
    queue: VecDeque<Piece>,
    queued: usize,
    /// The server sends nothing more.
    ended: bool,
    /// The server gave the stream up.
    reset: bool,
    /// What stood on the error stream.
    error_text: Vec<u8>,
    error_ended: bool,
    /// The connection below is lost; why.
    lost: Option<DialError>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
enum Piece {
    Slice(Bytes),
    Copied(BytesMut),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Slice(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

impl StreamState {
    pub(super) fn new(pair: Pair, target: String) -> Self {
        Self {
            pair,
            target,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            error_accepted: AtomicBool::new(false),
            incoming: Mutex::default(),
            full: AtomicBool::new(false),
        }
    }

    /// Whether the stream carries bulk; see [`BULK`].
    pub(super) fn is_bulk(&self) -> bool {
        self.received.load(Ordering::Relaxed) + self.sent.load(Ordering::Relaxed) > BULK
    }

    /// Takes payload in. Returns whether the stream is full now.
    pub(super) fn push(&self, payload: Bytes) -> bool {
        self.received
            .fetch_add(payload.len() as u64, Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
        let mut incoming = lock(&self.incoming);
        incoming.queued += payload.len();
        match incoming.queue.back_mut() {
            Some(Piece::Copied(tail))
                if payload.len() < SMALL_PIECE && tail.len() < COPIED_TOGETHER =>
            {
                tail.extend_from_slice(&payload);
            }
            _ if payload.len() < SMALL_PIECE => {
                incoming
                    .queue
                    .push_back(Piece::Copied(BytesMut::from(&payload[..])));
            }
            _ => incoming.queue.push_back(Piece::Slice(payload)),
        }
        let full = incoming.queued >= RECEIVE_HIGH;
        if full {
            self.full.store(true, Ordering::Release);
        }
        wake(incoming.reader.take());
        full
    }

    /// The server ended the data stream in order.
    pub(super) fn end(&self) {
        let mut incoming = lock(&self.incoming);
        incoming.ended = true;
        wake(incoming.reader.take());
    }

    /// The server gave the data stream up.
    pub(super) fn reset(&self) {
        let mut incoming = lock(&self.incoming);
        incoming.reset = true;
        wake(incoming.reader.take());
        wake(incoming.writer.take());
    }

    /// A piece of the error stream.
    pub(super) fn error_text(&self, text: &[u8], end: bool) {
        let mut incoming = lock(&self.incoming);
        let room = MAX_ERROR_TEXT.saturating_sub(incoming.error_text.len());
        incoming
            .error_text
            .extend_from_slice(&text[..text.len().min(room)]);
        incoming.error_ended |= end;
        wake(incoming.reader.take());
    }

    /// Notes that the server took the error stream.
    pub(super) fn error_accepted(&self) {
        self.error_accepted.store(true, Ordering::Relaxed);
    }

    /// Whether the server refused the stream and has yet to say whether it drops what was sent.
    pub(super) fn awaits_end(&self) -> bool {
        let incoming = lock(&self.incoming);
        !incoming.error_text.is_empty()
            && self.sent.load(Ordering::Relaxed) > 0
            && !incoming.reset
            && incoming.lost.is_none()
            && !(incoming.ended && incoming.error_ended)
    }

    /// What the runtime may have left unread, once it ended both streams without a reset.
    pub(super) fn remains(&self) -> Remains {
        let incoming = lock(&self.incoming);
        let sent = self.sent.load(Ordering::Relaxed);
        if !incoming.ended || !incoming.error_ended || incoming.reset || sent == 0 {
            return Remains::Nothing;
        }
        let refused = !incoming.error_text.is_empty();
        if refused && self.received.load(Ordering::Relaxed) == 0 {
            return Remains::Bytes;
        }
        let read_to_our_end = self.finished.load(Ordering::Relaxed) && !refused;
        let unanswered = self.unanswered.load(Ordering::Relaxed) > 0;
        if !read_to_our_end && (unanswered || sent > SMALL_UPLOAD) {
            Remains::Perhaps
        } else {
            Remains::Nothing
        }
    }

    /// Whether the stream waits for a worker of the server that has to do with it.
    pub(super) fn needs_worker(&self, of: impl Fn(u32) -> bool) -> bool {
        let unborn = !self.error_accepted.load(Ordering::Relaxed);
        of(self.pair.data) || (of(self.pair.error) && unborn)
    }

    /// The connection below was lost.
    pub(super) fn lose(&self, why: &DialError) {
        let mut incoming = lock(&self.incoming);
        if !incoming.ended {
            incoming.lost = Some(why.clone());
        }
        incoming.error_ended = true;
        wake(incoming.reader.take());
        wake(incoming.writer.take());
    }

    /// The failure that the server or the connection reported, once there is one.
    fn failure(&self, incoming: &Incoming) -> Option<DialError> {
        if !incoming.error_text.is_empty() {
            let text = String::from_utf8_lossy(&incoming.error_text)
                .trim()
                .to_owned();
            return Some(refusal(&self.target, &text));
        }
        if let Some(lost) = &incoming.lost {
            return Some(lost.clone());
        }
        // Older runtimes give no text: a stream given up before its first byte never had a pod.
        (incoming.reset && self.received.load(Ordering::Relaxed) == 0)
            .then(|| refusal(&self.target, ""))
    }
}

/// How long a refusal is remembered: it costs a dial of this port some milliseconds.
const REFUSAL_KEPT: Duration = Duration::from_secs(30);

/// What is left of a stream at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    Nothing,
    /// Perhaps bytes that nobody will read.
    Perhaps,
    /// Bytes that nobody will read.
    Bytes,
}

/// Reads the runtime's text of why it could not connect.
pub(super) fn refusal(target: &str, text: &str) -> DialError {
    let target = target.to_owned();
    // "error forwarding port 81 to pod X, uid : failed to execute portforward in network
    // namespace …: failed to dial 81: dial tcp4 127.0.0.1:81: connect: connection refused"
    if text.is_empty() || text.contains("connection refused") {
        return DialError::Refused {
            target,
            reason: "nothing listens on that port".to_owned(),
        };
    }
    if text.contains("reset by peer") || text.contains("broken pipe") {
        return DialError::Refused {
            target,
            reason: "the pod closed the connection".to_owned(),
        };
    }
    DialError::Unreachable {
        target,
        reason: text.to_owned(),
        fix: String::new(),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A byte stream to a port of a pod.
pub struct PodStream {
    state: Arc<StreamState>,
    connection: Arc<Shared>,
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
            connection,
            write_ended: false,
            dropped: 0,
            refusals: None,
            verdict: None,
        }
    }

    /// Notes in `refusals` when the pod refuses its `port`.
    pub(super) fn note_refusal(&mut self, refusals: Arc<Refusals>, port: u16) {
        self.refusals = Some((refusals, port));
    }

    fn fail(&mut self, failure: DialError) -> io::Error {
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
        let judged = std::future::poll_fn(|cx| {
            let mut incoming = lock(&self.state.incoming);
            if incoming.queued > 0 || (incoming.ended && incoming.error_ended) {
                return Poll::Ready(self.state.failure(&incoming));
            }
            match self.state.failure(&incoming) {
                Some(failure) => Poll::Ready(Some(failure)),
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
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
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
                this.dropped += buf.len() as u64;
                return Poll::Ready(Ok(buf.len()));
            }
            incoming.writer = Some(cx.waker().clone());
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match ready!(
            self.connection
                .outgoing
                .poll_data(cx, self.state.pair.data, buf)
        ) {
            Some(taken) => {
                self.state.sent.fetch_add(taken as u64, Ordering::Relaxed);
                let unanswered = &self.state.unanswered;
                unanswered.fetch_add(taken as u64, Ordering::Relaxed);
                self.connection.traffic.sent(taken as u64);
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

/// Ports of one pod that refused a connection not long ago.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    ports: Mutex<HashMap<u16, Instant>>,
}

impl Refusals {
    fn note(&self, port: u16) {
        let mut ports = lock(&self.ports);
        ports.retain(|_, at| at.elapsed() < REFUSAL_KEPT);
        ports.insert(port, Instant::now());
    }

    /// Whether `port` refused a moment ago, and so may do it again.
    pub(super) fn expects(&self, port: u16) -> bool {
        let at = lock(&self.ports).get(&port).copied();
        at.is_some_and(|at| at.elapsed() < REFUSAL_KEPT)
    }
}

impl std::fmt::Debug for PodStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodStream")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
