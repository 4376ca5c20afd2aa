//! Ports that refused, so that the next dial waits before it sends.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::lock;

/// How long a refusal is remembered: it costs a dial of this port some milliseconds.
const REFUSAL_KEPT: Duration = Duration::from_secs(30);

/// Ports of one pod that refused a connection not long ago.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    ports: Mutex<HashMap<u16, Instant>>,
}

impl Refusals {
    pub(super) fn note(&self, port: u16) {
        let mut ports = lock(&self.ports);
        ports.retain(|_, at| at.elapsed() < REFUSAL_KEPT);
        ports.insert(port, Instant::now());
    }

    /// Whether `port` refused a moment ago, and so may do it again.
    pub(super) fn expects(&self, port: u16) -> bool {
        let at = lock(&self.ports).get(&port).copied();
        at.is_some_and(|at| at.elapsed() < REFUSAL_KEPT)
    }
}
