//! One bound for what all tunnels of a process hold in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::tally::Tally;

/// Most bytes that one tunnel may have on the way to this side, and so in its memory: enough for
/// 1 Gbit/s over 80 ms, twice, since a window is only widened when half of it was read.
const WIDEST: u32 = 32 << 20;
/// Bytes of one stream that may be on the way, unless a budget says otherwise: 600 Mbit/s over
/// 20 ms.
const STREAM_WINDOW: u32 = 2 << 20;
/// Fewest, below which a tunnel is of little use.
const NARROWEST: u32 = 256 << 10;
/// Where a window that grows with its use begins: what HTTP/2 grants anyway (RFC 9113, 6.9.2). It
/// doubles in each round trip, as the congestion window of the line does, which begins narrower.
const FIRST: u32 = 64 << 10;
/// A window that grew and of which less than half was read for so long is halved.
const UNUSED: Duration = Duration::from_secs(5);
/// What a tunnel may have waiting to be written, as a part of its window.
const BACKLOG_SHARE: u32 = 16;
/// Fewest bytes of a backlog: one full frame.
const SMALLEST_BACKLOG: u32 = 64 << 10;

/// The bytes that a process grants to all of its tunnels together.
#[derive(Clone, Debug)]
pub struct Budget {
    total: u32,
    stream: u32,
    parts: u32,
    grows: bool,
    tunnels: Arc<watch::Sender<Tunnels>>,
}

/// Who shares a budget.
#[derive(Clone, Copy, Debug, Default)]
struct Tunnels {
    all: u32,
    /// Those whose windows grew.
    busy: u32,
}

impl Budget {
    /// A budget of `total` bytes, of which each tunnel may have its part from the beginning on.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self {
            total,
            stream: STREAM_WINDOW,
            parts: 1,
            grows: false,
            tunnels: Arc::new(watch::Sender::new(Tunnels::default())),
        }
    }

    /// The same for peers that one does not rely on: windows begin narrow, and widen as what comes is
    /// read. A granted window cannot be taken back, so one who stops reading keeps what it was given
    /// when there were few others; like this that is no more than twice what it was seen to read.
    ///
    /// `total` bounds what all tunnels begin with, and half of it what those whose windows grew share
    /// beyond that.
    #[must_use]
    pub fn growing(total: u32) -> Self {
        Self {
            grows: true,
            ..Self::new(total)
        }
    }

    /// The same, with `bytes` of each stream on the way at most, and less where that is more than
    /// one of `parts` of a new tunnel's window: so many streams that nobody reads fill it.
    #[must_use]
    pub fn with_streams(self, bytes: u32, parts: u32) -> Self {
        let stream = bytes;
        Self {
            stream,
            parts,
            ..self
        }
    }

    /// A share for one more tunnel; the others get less. `None` when so many tunnels leave too
    /// little for each.
    #[must_use]
    pub fn share(&self) -> Option<Share> {
        let (mut fits, most) = (false, self.total / self.narrowest());
        self.tunnels.send_if_modified(|tunnels| {
            fits = tunnels.all < most;
            tunnels.all += u32::from(fits);
            fits
        });
        fits.then(|| Share {
            budget: self.clone(),
            changes: self.tunnels.subscribe(),
            tally: Arc::new(Tally::new()),
            window: FIRST,
            look: Instant::now() + UNUSED,
        })
    }

    fn narrowest(&self) -> u32 {
        if self.grows { FIRST } else { NARROWEST }
    }

    fn part(&self, tunnels: u32) -> u32 {
        let shared = if self.grows {
            self.total / 2
        } else {
            self.total
        };
        (shared / tunnels.max(1)).clamp(self.narrowest(), WIDEST)
    }

    /// Bytes that each tunnel that there is would have on the way to this side if all had the same.
    #[must_use]
    pub fn window(&self) -> u32 {
        self.part(self.tunnels())
    }

    /// How many tunnels have a share.
    #[must_use]
    pub fn tunnels(&self) -> u32 {
        self.tunnels.borrow().all
    }
}

/// One tunnel's part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    changes: watch::Receiver<Tunnels>,
    tally: Arc<Tally>,
    /// What a window that grows is now.
    window: u32,
    /// When it is looked at whether that is needed.
    look: Instant,
}

impl Share {
    /// Bytes that may be on the way to this side in all streams of the tunnel together.
    pub(super) fn window(&mut self) -> u32 {
        self.changes.mark_unchanged();
        if !self.budget.grows {
            return self.budget.window();
        }
        let busy = self.window > FIRST;
        if self.tally.read() >= self.window / 2 {
            self.resize(self.window.saturating_mul(2));
        } else if self.look <= Instant::now() {
            self.resize(self.window / 2);
        }
        let others = self.budget.tunnels.borrow().busy - u32::from(busy);
        self.window = self.window.clamp(FIRST, self.budget.part(others + 1));
        let busy_now = self.window > FIRST;
        if busy != busy_now {
            // Wakes this one once more too, which may have looked at the same moment as another.
            self.count(busy, busy_now);
        }
        self.tally.follow(self.window / 2);
        self.window
    }

    fn resize(&mut self, window: u32) {
        self.window = window;
        self.look = Instant::now() + UNUSED;
        self.tally.forget_read();
    }

    fn count(&self, before: bool, now: bool) {
        self.budget.tunnels.send_modify(|tunnels| {
            tunnels.busy += u32::from(now);
            tunnels.busy -= u32::from(before);
        });
    }

    /// What the tunnel's streams count in.
    pub(super) fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// Bytes that may be on the way to this side in one stream.
    pub(super) fn stream_window(&self) -> u32 {
        self.budget
            .stream
            .min(self.budget.window() / self.budget.parts)
    }

    /// Bytes that may wait to be written to the tunnel.
    pub(super) fn backlog(&self) -> u32 {
        (self.budget.window() / BACKLOG_SHARE).max(SMALLEST_BACKLOG)
    }

    /// Completes when the window may have changed.
    pub(super) async fn changed(&mut self) {
        let grew = self.window > FIRST;
        tokio::select! {
            // The sender lives as long as this share's own budget.
            _ = self.changes.changed() => {}
            () = self.tally.much_was_read() => {}
            () = sleep_until(self.look), if grew => {}
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let busy = self.window > FIRST;
        self.budget.tunnels.send_modify(|tunnels| {
            tunnels.all -= 1;
            tunnels.busy -= u32::from(busy);
        });
    }
}
