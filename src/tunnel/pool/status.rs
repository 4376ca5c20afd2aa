//! What a pool is doing, for `kdev status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Counters of a pool. Cheap enough to be touched once per chunk.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    streams: AtomicUsize,
    streams_total: AtomicU64,
}

impl Traffic {
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

    /// Fills in the counters. They are read one by one, so sums may be off by what is moving.
    pub(super) fn fill(&self, status: &mut PoolStatus) {
        status.sent = self.sent.load(Ordering::Relaxed);
        status.received = self.received.load(Ordering::Relaxed);
        status.streams = self.streams.load(Ordering::Relaxed);
        status.streams_total = self.streams_total.load(Ordering::Relaxed);
    }
}

/// A pool at one moment.
#[derive(Clone, Debug, Default)]
pub struct PoolStatus {
    /// Replicas that it keeps tunnels to.
    pub replicas: Vec<ReplicaStatus>,
    /// Its tunnels.
    pub tunnels: Vec<TunnelStatus>,
    /// Why there is no tunnel, where there is none and it is known.
    pub trouble: Option<String>,
    /// Bytes sent into the cluster.
    pub sent: u64,
    /// Bytes received from the cluster.
    pub received: u64,
    /// Streams that are open.
    pub streams: usize,
    /// Streams that were opened.
    pub streams_total: u64,
}

impl PoolStatus {
    /// Replicas that have a tunnel which takes streams.
    #[must_use]
    pub fn connected(&self) -> usize {
        let open = |r: &&ReplicaStatus| {
            let mut tunnels = self.tunnels.iter();
            tunnels.any(|t| t.replica == r.name && t.state == TunnelState::Open)
        };
        self.replicas.iter().filter(open).count()
    }

    /// The shortest of the newest round trips to the relay.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.tunnels.iter().filter_map(|t| t.round_trip).min()
    }
}

/// A replica at one moment.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Why the last attempt to reach it failed, until one succeeds.
    pub last_error: Option<String>,
}

/// A tunnel at one moment.
#[derive(Clone, Debug)]
pub struct TunnelStatus {
    /// The replica.
    pub replica: Arc<str>,
    /// How it travels.
    pub carrier: &'static str,
    /// The relay's program version.
    pub program: String,
    /// When it was opened.
    pub since: SystemTime,
    /// Whether it takes streams.
    pub state: TunnelState,
    /// Streams that are open.
    pub streams: usize,
    /// Whether bulk moves through it.
    pub bulk: bool,
    /// The newest round trip.
    pub round_trip: Option<Duration>,
}

/// Whether a tunnel takes streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelState {
    /// It does.
    Open,
    /// A ping is late.
    Silent,
    /// The relay lets it run out.
    Draining,
}
