//! What a pool is doing, for `kdev status`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::io::TrafficSnapshot;

/// A pool at one moment.
#[derive(Clone, Debug, Default)]
pub struct PoolStatus {
    /// Replicas that it keeps tunnels to.
    pub replicas: Vec<ReplicaStatus>,
    /// Its tunnels.
    pub tunnels: Vec<TunnelStatus>,
    /// Why there is no tunnel, where there is none and it is known.
    pub trouble: Option<String>,
    /// What went through its streams.
    pub traffic: TrafficSnapshot,
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
