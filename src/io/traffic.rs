//! What went through streams, for `kdev status`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of streams. Cheap enough to be touched once per chunk.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    streams: AtomicUsize,
    streams_total: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficSnapshot {
    /// Payload bytes sent into the cluster.
    pub sent: u64,
    /// Payload bytes received from the cluster.
    pub received: u64,
    /// Streams that are open.
    pub streams: usize,
    /// Streams that were opened.
    pub streams_total: u64,
}

impl Traffic {
    /// Counts payload bytes that went into the cluster.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts payload bytes that came from the cluster.
    pub fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a stream as open, until [`Self::stream_closed`].
    pub fn stream_opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.streams_total.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one stream less as open.
    pub fn stream_closed(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// The counters now. They are read one by one, so sums may be off by what is moving.
    #[must_use]
    pub fn snapshot(&self) -> TrafficSnapshot {
        TrafficSnapshot {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            streams: self.streams.load(Ordering::Relaxed),
            streams_total: self.streams_total.load(Ordering::Relaxed),
        }
    }
}
