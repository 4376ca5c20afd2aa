//! What a session counts, for `kdev status`.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::io::Traffic;

/// Counters of a session.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// What went through its streams.
    pub(super) traffic: Traffic,
    connections: AtomicUsize,
}

impl Counters {
    /// Upgraded connections that are open.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
