//! How a tunnel is doing, for whoever chooses among several.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How a tunnel is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should.
    Sound,
    /// A ping is late: the path may be gone, and what is opened now with it.
    Silent,
    /// It is over.
    Ended,
}

/// What a tunnel's driver knows of it, shared with those who open streams.
#[derive(Debug)]
pub(super) struct Vitals {
    health: watch::Sender<Health>,
    /// The newest round trip in microseconds; 0 before the first.
    round_trip: AtomicU64,
}

impl Vitals {
    pub(super) fn new() -> Self {
        Self {
            health: watch::Sender::new(Health::Sound),
            round_trip: AtomicU64::new(0),
        }
    }

    /// Notes a change; what has ended stays so.
    pub(super) fn set(&self, health: Health) {
        self.health.send_if_modified(|known| {
            let changes = *known != health && *known != Health::Ended;
            if changes {
                *known = health;
            }
            changes
        });
    }

    pub(super) fn health(&self) -> Health {
        *self.health.borrow()
    }

    pub(super) fn follow(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(super) fn measured(&self, round_trip: Duration) {
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.round_trip.store(micros.max(1), Ordering::Relaxed);
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        match self.round_trip.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}
