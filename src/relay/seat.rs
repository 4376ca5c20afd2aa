//! A caller's place in the budget: what it holds, whether it moves, and how it is asked to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::memory::{IDLE, Memory, Place, SILENT, STUCK};
use super::metered::{Metered, Purse};
use super::part::Charge;
use super::share::Host;

/// How long one that is closed between two requests has to go, where its protocol says goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// A caller's socket.
pub(super) type Caller = Metered<Arc<Seat>>;

/// Why a caller is closed for others. The lesser goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// It has had no request under way for a while.
    Idle,
    /// It does not take what it asked for.
    Stuck,
    /// It is between two requests.
    Pausing,
    /// It has a request under way of which nothing moves.
    Silent,
    /// Its address holds more than its share.
    Share,
}

/// Nobody has asked it to go.
const STAYS: u8 = 0;
/// It goes if it is still idle.
const IF_IDLE: u8 = 1;
/// It goes.
const GOES: u8 = 2;

/// A caller's place. It is given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    memory: Memory,
    place: Place,
    host: Arc<Host>,
    own: Charge,
    born: Instant,
    /// Milliseconds after `born` at which a byte was last moved.
    moved: AtomicU64,
    /// Requests, or connections that are passed on as a whole.
    serving: AtomicUsize,
    /// Those of them that go to a kdev.
    matched: AtomicUsize,
    /// Bytes that leave with it.
    bytes: AtomicUsize,
    /// Whether it has not taken what was written.
    stuck: AtomicBool,
    /// Whether it is given time to go.
    polite: AtomicBool,
    closing: AtomicU8,
    asked: Notify,
    /// Whether what was last given to it to write is not written yet.
    unwritten: AtomicBool,
    writer: AtomicWaker,
}

impl Seat {
    pub(super) fn new(memory: Memory, place: Place, host: Arc<Host>, own: Charge) -> Self {
        host.add(own.bytes(), false);
        Self {
            bytes: AtomicUsize::new(own.bytes()),
            memory,
            place,
            host,
            own,
            born: Instant::now(),
            moved: AtomicU64::new(0),
            serving: AtomicUsize::new(0),
            stuck: AtomicBool::new(false),
            polite: AtomicBool::new(false),
            matched: AtomicUsize::new(0),
            closing: AtomicU8::new(STAYS),
            asked: Notify::new(),
            unwritten: AtomicBool::new(false),
            writer: AtomicWaker::new(),
        }
    }

    /// Room for a request of `bytes`, to a kdev (`matched`) or the pods; `None` when there is none.
    pub(super) fn request(self: &Arc<Self>, matched: bool, bytes: usize) -> Option<Served> {
        let part = match matched {
            true => self.memory.matched(),
            false => self.memory.all(),
        };
        // Before there is room: it must not be closed for its own request.
        let mut served = Served {
            seat: self.clone(),
            matched,
            held: None,
        };
        self.serving.fetch_add(1, Ordering::Relaxed);
        self.matched.fetch_add(matched.into(), Ordering::Relaxed);
        self.touch();
        let charge = self.memory.take(part, bytes, Some(&self.host))?;
        served.held = Some(self.holds(bytes, matched, charge));
        Some(served)
    }

    fn holds(self: &Arc<Self>, bytes: usize, matched: bool, charge: Charge) -> Held {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.host.add(bytes, matched);
        Held {
            seat: self.clone(),
            bytes,
            matched,
            _charge: charge,
        }
    }

    /// Whether some of its requests go to a kdev.
    pub(super) fn is_matched(&self) -> bool {
        self.matched.load(Ordering::Relaxed) > 0
    }

    /// The address that it calls from.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Why it may be closed for others, and since when it has moved nothing; `None` when it was asked
    /// to go.
    pub(super) fn may_go(&self, now: Instant) -> Option<(Why, Instant)> {
        if self.closing.load(Ordering::Relaxed) != STAYS {
            return None;
        }
        let since = self.born + Duration::from_millis(self.moved.load(Ordering::Relaxed));
        let still = now.duration_since(since);
        let why = match self.serving.load(Ordering::Relaxed) > 0 {
            false if still >= IDLE => Why::Idle,
            false => Why::Pausing,
            true if still >= STUCK && self.stuck.load(Ordering::Relaxed) => Why::Stuck,
            true if still >= SILENT => Why::Silent,
            true => Why::Share,
        };
        Some((why, since))
    }

    /// Asks it to go. Returns the bytes that leave with it.
    pub(super) fn close(&self, why: Why) -> usize {
        let closing = match why {
            Why::Idle | Why::Pausing => IF_IDLE,
            Why::Stuck | Why::Silent | Why::Share => GOES,
        };
        self.closing.store(closing, Ordering::Release);
        self.asked.notify_waiters();
        self.leaving()
    }

    /// Bytes that leave with it, where it was asked to go.
    pub(super) fn leaving(&self) -> usize {
        match self.closing.load(Ordering::Relaxed) {
            STAYS => 0,
            _ => self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Completes when it is asked to go, in order where it is idle.
    pub(super) async fn asked(&self) {
        loop {
            let mut asked = std::pin::pin!(self.asked.notified());
            // Before looking, so that it is not missed.
            asked.as_mut().enable();
            match self.closing.load(Ordering::Acquire) {
                STAYS => asked.await,
                // It was quicker: it is served, and counts as staying.
                IF_IDLE if self.serving.load(Ordering::Relaxed) > 0 => {
                    self.closing.store(STAYS, Ordering::Release);
                }
                _ => return,
            }
        }
    }

    /// Completes when it has to be gone.
    pub(super) async fn cut(&self) {
        loop {
            self.asked().await;
            if self.closing.load(Ordering::Relaxed) != IF_IDLE {
                return;
            }
            if self.polite.load(Ordering::Relaxed) {
                sleep(GOODBYE).await;
            }
            if self.serving.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    /// Its protocol has a word for a connection's end, which takes a moment.
    pub(super) fn says_goodbye(&self) {
        self.polite.store(true, Ordering::Relaxed);
    }

    fn touch(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// Ready when what it was last given is written: then it may be given more.
    pub(super) fn poll_written(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.unwritten.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.writer.register(cx.waker());
        match self.unwritten.load(Ordering::Acquire) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    /// It was given something to write.
    pub(super) fn given(&self) {
        self.unwritten.store(true, Ordering::Release);
    }
}

impl Purse for Arc<Seat> {
    type Held = Held;

    fn pin(&self, bytes: usize) -> Held {
        let matched = self.is_matched();
        let part = match matched {
            true => self.memory.matched(),
            false => self.memory.all(),
        };
        self.holds(bytes, matched, self.memory.pin(part, bytes))
    }

    fn moved(&self) {
        self.touch();
    }

    fn stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    fn written(&self) {
        if self.unwritten.swap(false, Ordering::AcqRel) {
            self.writer.wake();
        }
    }
}

/// What a caller's connection holds, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    seat: Arc<Seat>,
    bytes: usize,
    matched: bool,
    _charge: Charge,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.seat.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.seat.host.free(self.bytes, self.matched);
    }
}

/// A request that is served, until it is dropped.
#[derive(Debug)]
pub(super) struct Served {
    seat: Arc<Seat>,
    matched: bool,
    held: Option<Held>,
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.held.take());
        self.seat.touch();
        let matched = usize::from(self.matched);
        self.seat.matched.fetch_sub(matched, Ordering::Relaxed);
        self.seat.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.host.free(self.own.bytes(), false);
        self.memory.left(self.place);
    }
}
