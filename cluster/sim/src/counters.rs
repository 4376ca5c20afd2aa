//! What the cluster was asked for, so that tests can say what should not have happened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a port-forward request came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// SPDY inside a WebSocket.
    Tunnel,
    /// `Upgrade: SPDY/3.1`.
    Spdy,
    /// `v4.channel.k8s.io`, base64 or not.
    V4,
}

/// Numbers since the start, and what is open now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that reached the API, by verb and resource (`("get", "pods/portforward")`).
    /// What is no resource counts as `("get", "/version")`.
    pub requests: BTreeMap<(String, String), u64>,
    /// Upgrades answered with 101, by form.
    pub upgrades: BTreeMap<Form, u64>,
    /// TLS connections accepted.
    pub connections: u64,
    /// TLS connections open now.
    pub live_connections: u64,
    /// Port-forward connections open now, of all forms.
    pub live_forwards: u64,
    /// Streams (pairs, or v4 ports) opened.
    pub streams: u64,
    /// Streams whose pod side is still open.
    pub live_streams: u64,
}

impl Counts {
    /// Requests of one verb and resource.
    #[must_use]
    pub fn of(&self, verb: &str, resource: &str) -> u64 {
        self.requests
            .get(&(verb.to_owned(), resource.to_owned()))
            .copied()
            .unwrap_or(0)
    }

    /// All requests whatever they asked for.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}

/// Connections that one pod got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// Connections accepted since the pod was added.
    pub opened: u64,
    /// Connections open now.
    pub live: u64,
}

/// A number that goes down again when what it counted ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge {
    opened: Arc<AtomicU64>,
    live: Arc<AtomicU64>,
}

impl Gauge {
    pub(crate) fn enter(&self) -> Held {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
        Held(self.live.clone())
    }

    pub(crate) fn counts(&self) -> PodCounts {
        PodCounts {
            opened: self.opened.load(Ordering::Relaxed),
            live: self.live.load(Ordering::Relaxed),
        }
    }
}

/// Counts one thing as live until dropped.
#[derive(Debug)]
pub(crate) struct Held(Arc<AtomicU64>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The live counters behind [`Counts`].
#[derive(Default)]
pub(crate) struct Counters {
    totals: Mutex<Totals>,
    pub(crate) connections: Gauge,
    pub(crate) forwards: Gauge,
    pub(crate) streams: Gauge,
}

#[derive(Default)]
struct Totals {
    requests: BTreeMap<(String, String), u64>,
    upgrades: BTreeMap<Form, u64>,
}

impl Counters {
    pub(crate) fn request(&self, verb: &str, resource: &str) {
        let key = (verb.to_owned(), resource.to_owned());
        *self.lock().requests.entry(key).or_default() += 1;
    }

    pub(crate) fn upgrade(&self, form: Form) {
        *self.lock().upgrades.entry(form).or_default() += 1;
    }

    pub(crate) fn snapshot(&self) -> Counts {
        let totals = self.lock();
        Counts {
            requests: totals.requests.clone(),
            upgrades: totals.upgrades.clone(),
            connections: self.connections.counts().opened,
            live_connections: self.connections.counts().live,
            live_forwards: self.forwards.counts().live,
            streams: self.streams.counts().opened,
            live_streams: self.streams.counts().live,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
