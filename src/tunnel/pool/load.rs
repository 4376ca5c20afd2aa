//! How busy a tunnel is: whether a stream moves so much through it that small requests would
//! stand behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A stream that moves so many bytes within [`BULK_WITHIN`] is bulk.
const BULK: u64 = 1 << 20;
/// See [`BULK`]: 2 Mbit/s, which fills a bad line and is far above what people type.
pub(super) const BULK_WITHIN: Duration = Duration::from_secs(4);

/// What the streams of a tunnel tell about it.
#[derive(Debug)]
pub(super) struct Load {
    epoch: Instant,
    /// Until when it counts as one with bulk, in milliseconds since `epoch`; 0 for never.
    bulk_until: AtomicU64,
    /// Told when bulk begins.
    grow: Arc<Notify>,
}

impl Load {
    pub(super) fn new(grow: Arc<Notify>) -> Self {
        Self {
            epoch: Instant::now(),
            bulk_until: AtomicU64::new(0),
            grow,
        }
    }

    /// Whether bulk moves through the tunnel.
    pub(super) fn has_bulk(&self) -> bool {
        self.now() < self.bulk_until.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A stream was seen to move bulk; it will be again within [`BULK_WITHIN`], or has stopped.
    fn note_bulk(&self) {
        let now = self.now();
        let until = now + u64::try_from(BULK_WITHIN.as_millis()).unwrap_or(0);
        if self.bulk_until.swap(until, Ordering::Relaxed) <= now {
            self.grow.notify_one();
        }
    }
}

/// Watches what one stream moves.
#[derive(Debug)]
pub(super) struct Meter {
    load: Arc<Load>,
    since: Instant,
    bytes: u64,
}

impl Meter {
    pub(super) fn new(load: Arc<Load>) -> Self {
        Self {
            load,
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// So many bytes moved. The clock is read once per [`BULK`].
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes < BULK {
            return;
        }
        self.bytes = 0;
        let now = Instant::now();
        if now - std::mem::replace(&mut self.since, now) <= BULK_WITHIN {
            self.load.note_bulk();
        }
    }
}
