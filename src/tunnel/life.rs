//! Whether the other end is still there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::backlog::Backlog;
use crate::io::{Io, pass_writes};

/// Silence after which the other end is asked for a sign of life.
pub const PING_EVERY: Duration = Duration::from_secs(2);
/// Silence after which it counts as dead: two questions without an answer.
pub const DEAD_AFTER: Duration = Duration::from_secs(6);

/// The slowest line that is carried over, in bytes per second (1 Mbit/s): what was written may be
/// so long on its way, and whatever answers it comes after that.
const SLOWEST: u64 = 128 << 10;
/// What is on its way for less than this delays nobody's answer: requests and pings go on being
/// written to a peer that is gone.
const QUEUED: Duration = Duration::from_millis(250);
/// Longest that what was written counts as on its way.
const LONGEST_WAY: Duration = Duration::from_secs(24);

/// Why a tunnel ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// In order, by one side's will.
    #[error("closed")]
    Closed,
    /// Nothing came for [`DEAD_AFTER`], and longer where bulk was on its way.
    #[error("nothing was heard for {} s", DEAD_AFTER.as_secs())]
    Silent,
    /// The stream under it broke, or the peer broke the protocol.
    #[error("{0}")]
    Broken(String),
}

/// When bytes last moved, in milliseconds since the tunnel began.
#[derive(Debug)]
struct Moves {
    began: Instant,
    received: AtomicU64,
    /// When a write went through that had had to wait.
    squeezed: AtomicU64,
    /// Until when what was written is on its way, over the slowest line.
    under_way: AtomicU64,
    /// The same when it last was much.
    queued: AtomicU64,
}

impl Moves {
    fn wrote(&self, bytes: usize) {
        let now = self.now();
        let takes = (bytes as u64).saturating_mul(1000) / SLOWEST;
        let until = self.under_way.load(Ordering::Relaxed).max(now) + takes;
        let longest = now + LONGEST_WAY.as_secs() * 1000;
        let until = until.min(longest);
        self.under_way.store(until, Ordering::Relaxed);
        if Duration::from_millis(until - now) >= QUEUED {
            self.queued.store(until, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Tells how long nothing was heard.
#[derive(Clone, Debug)]
pub(super) struct Life(Arc<Moves>);

impl Life {
    /// How long nothing came, where that may mean death: a line that is full and still takes
    /// bytes delays the answer to a ping as well, so taking them counts as life.
    pub(super) fn silence(&self) -> Duration {
        let last = self.0.received.load(Ordering::Relaxed);
        let last = last.max(self.0.squeezed.load(Ordering::Relaxed));
        Duration::from_millis(self.0.now().saturating_sub(last))
    }

    /// Whether the other end counts as dead: nothing came for [`DEAD_AFTER`], and nothing much that
    /// was written can be on its way any more. Queues between the two ends hold megabytes, and a peer
    /// that only reads says nothing before it has got them.
    pub(super) fn is_over(&self) -> bool {
        let queued = self.0.queued.load(Ordering::Relaxed);
        let since = Duration::from_millis(self.0.now().saturating_sub(queued));
        self.silence().min(since) >= DEAD_AFTER
    }
}

/// A stream that remembers when bytes moved, and tells the backlog what was written.
#[derive(Debug)]
pub(super) struct Watched<T> {
    inner: T,
    moves: Arc<Moves>,
    backlog: Arc<Backlog>,
    waiting: bool,
}

impl<T> Watched<T> {
    pub(super) fn new(inner: T, backlog: Arc<Backlog>) -> (Self, Life) {
        let moves = Arc::new(Moves {
            began: Instant::now(),
            received: AtomicU64::new(0),
            squeezed: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            queued: AtomicU64::new(0),
        });
        let watched = Self {
            inner,
            moves: moves.clone(),
            backlog,
            waiting: false,
        };
        (watched, Life(moves))
    }

    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Pending => self.waiting = true,
            Poll::Ready(Ok(n)) => {
                self.backlog.written(*n);
                self.moves.wrote(*n);
                if std::mem::take(&mut self.waiting) {
                    let now = self.moves.now();
                    self.moves.squeezed.store(now, Ordering::Relaxed);
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        result
    }
}

impl<T: Io> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            let now = self.moves.now();
            self.moves.received.store(now, Ordering::Relaxed);
        }
        result
    }
}

impl<T: Io> AsyncWrite for Watched<T> {
    pass_writes!(inner, wrote);
}
