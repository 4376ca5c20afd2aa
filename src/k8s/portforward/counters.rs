//! What went through a session's streams, for `kdev status`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of a session. Cheap enough to be touched once per chunk.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    streams: AtomicUsize,
    streams_total: AtomicU64,
    connections: AtomicUsize,
    connections_total: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficSnapshot {
    /// Payload bytes sent to pods.
    pub sent: u64,
    /// Payload bytes received from pods.
    pub received: u64,
    /// Streams that are open.
    pub streams: usize,
    /// Streams that were opened.
    pub streams_total: u64,
    /// Upgraded connections that are open.
    pub connections: usize,
    /// Upgraded connections that were opened.
    pub connections_total: u64,
}

impl Traffic {
    /// The counters now. They are read one by one, so sums may be off by what is moving.
    pub fn snapshot(&self) -> TrafficSnapshot {
        TrafficSnapshot {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            streams: self.streams.load(Ordering::Relaxed),
            streams_total: self.streams_total.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            connections_total: self.connections_total.load(Ordering::Relaxed),
        }
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn stream_opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.streams_total.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stream_closed(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.connections_total.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
