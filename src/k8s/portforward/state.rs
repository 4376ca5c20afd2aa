//! What both ends of the code, the connection's reader and the stream's owner, know of a stream.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use super::lock;
use super::outgoing::Pair;
use crate::dial::DialError;

/// Payload bytes that a stream holds for a reader that is slower than the network. Above it the
/// whole connection waits, since SPDY here has no flow control.
pub(super) const RECEIVE_HIGH: usize = 1 << 20;

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

/// Sent bytes that are surely in the pod's socket by the time its runtime ends the stream, and so
/// do not wait for a reader: less than any socket buffer.
pub(super) const SMALL_UPLOAD: u64 = 64 << 10;

/// A stream, as both know it.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) pair: Pair,
    /// What it leads to, for messages.
    pub(super) target: String,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    /// Bytes sent since some were last received.
    pub(super) unanswered: AtomicU64,
    /// We ended our direction.
    pub(super) finished: AtomicBool,
    /// The server accepted the error stream, and so its worker was alive.
    pub(super) error_accepted: AtomicBool,
    pub(super) incoming: Mutex<Incoming>,
    /// The queue is above [`RECEIVE_HIGH`]; the connection waits for it.
    pub(super) full: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) queue: VecDeque<Piece>,
    pub(super) queued: usize,
    /// The server sends nothing more.
    pub(super) ended: bool,
    /// The server gave the stream up.
    pub(super) reset: bool,
    /// What stood on the error stream.
    pub(super) error_text: Vec<u8>,
    pub(super) error_ended: bool,
    /// The connection below is lost; why.
    pub(super) lost: Option<DialError>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

#[derive(Debug)]
pub(super) enum Piece {
    Slice(Bytes),
    Copied(BytesMut),
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
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

    /// Whether the server ended or refused the stream.
    pub(super) fn is_over(&self) -> bool {
        let incoming = lock(&self.incoming);
        incoming.ended || !incoming.error_text.is_empty()
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
    pub(super) fn failure(&self, incoming: &Incoming) -> Option<Failure> {
        let received = self.received.load(Ordering::Relaxed);
        if !incoming.error_text.is_empty() {
            let text = String::from_utf8_lossy(&incoming.error_text);
            let text = text.trim();
            return Some(match is_reset(text) {
                true => Failure::Reset(PodReset { received }),
                false => Failure::Dial(refusal(&self.target, text)),
            });
        }
        if let Some(lost) = &incoming.lost {
            return Some(Failure::Dial(lost.clone()));
        }
        // Older runtimes give no text: a stream given up before its first byte never had a pod.
        (incoming.reset && received == 0).then(|| Failure::Dial(refusal(&self.target, "")))
    }
}

/// What is left of a stream at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    Nothing,
    /// Perhaps bytes that nobody will read.
    Perhaps,
    /// Bytes that nobody will read.
    Bytes,
}

/// Why a stream failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It reached no pod, or lost the way there.
    Dial(DialError),
    /// The pod had it.
    Reset(PodReset),
}

/// A pod took a connection and broke it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pod reset the connection after it had sent {received} B")]
pub struct PodReset {
    /// Bytes that came from the pod before.
    pub received: u64,
}

impl PodReset {
    /// What an I/O error is, where it is this.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

/// Whether the runtime's text is of a connection that it had: "… read: connection reset by peer".
fn is_reset(text: &str) -> bool {
    text.contains("reset by peer") || text.contains("broken pipe")
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
