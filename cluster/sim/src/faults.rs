//! Switches that break things while the cluster runs.

use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, watch};

/// Garbage that connections have not picked up yet; they do at once, so a few are enough.
const INJECTED: usize = 16;

/// The fault switches of one cluster. All are off at the start; each says what it reaches.
pub struct Faults {
    path: watch::Sender<Path>,
    api: watch::Sender<Api>,
    nodes: watch::Sender<Nodes>,
    truncate: Mutex<Option<usize>>,
    turning: Mutex<Vec<TurnAway>>,
    injected: broadcast::Sender<Bytes>,
}

/// Faults of the network between client and API server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    pub(crate) up: Duration,
    pub(crate) down: Duration,
    pub(crate) stalled: bool,
    pub(crate) swallowing: bool,
}

/// Faults of the API server itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Api {
    pub(crate) delay: Duration,
    pub(crate) held: bool,
    pub(crate) failing: Option<(u16, String)>,
    pub(crate) refusing: Option<(u16, String)>,
    pub(crate) gone_lists: bool,
    pub(crate) deaf_to_pings: bool,
}

/// Faults of the nodes, for pods that Deployments make.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) full: bool,
    pub(crate) missing: Option<String>,
    pub(crate) closed: Option<RangeInclusive<u16>>,
}

/// Requests that the API server turns away before it looks at them: it asks to come back later.
#[derive(Clone, Debug)]
pub struct TurnAway {
    /// The status: 429 (priority and fairness, or a server that is about to stop) or 503.
    pub code: u16,
    /// What `Retry-After` says, in seconds; without it there is no such header.
    pub retry_after: Option<u64>,
    /// Only requests with this in their path; all with the empty one.
    pub path: String,
    /// How many requests; the ones after that pass.
    pub count: u64,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self {
            path: watch::Sender::default(),
            api: watch::Sender::default(),
            nodes: watch::Sender::default(),
            truncate: Mutex::new(None),
            turning: Mutex::default(),
            injected: broadcast::Sender::new(INJECTED),
        }
    }

    /// Delays bytes towards the cluster by `up` and towards the client by `down`. The bandwidth
    /// stays as it is; the TLS handshake pays too.
    pub fn latency(&self, up: Duration, down: Duration) {
        self.path
            .send_modify(|path| (path.up, path.down) = (up, down));
    }

    /// Stops bytes both ways; they continue when the stall ends, as after a network outage that
    /// TCP survived. New connections are accepted by the kernel and get no further.
    pub fn stall(&self, on: bool) {
        self.path.send_modify(|path| path.stalled = on);
    }

    /// Accepts and swallows bytes both ways. What was swallowed is lost: a connection that had
    /// any of it is of no use afterwards, only new ones are.
    pub fn black_hole(&self, on: bool) {
        self.path.send_modify(|path| path.swallowing = on);
    }

    /// Makes every API request wait this long before anything is looked at.
    pub fn api_delay(&self, delay: Duration) {
        self.api.send_modify(|api| api.delay = delay);
    }

    /// Takes requests and does not answer them until switched off.
    pub fn hold_api(&self, on: bool) {
        self.api.send_modify(|api| api.held = on);
    }

    /// Answers every request with this status and message (as a Status object).
    pub fn fail_api(&self, failure: Option<(u16, &str)>) {
        self.api.send_modify(|api| api.failing = failure.map(owned));
    }

    /// Answers port-forward upgrades with this status; existing connections stay. An empty
    /// message sends no body at all, like a proxy in between.
    pub fn refuse_upgrades(&self, failure: Option<(u16, &str)>) {
        self.api
            .send_modify(|api| api.refusing = failure.map(owned));
    }

    /// Turns requests away, in addition to what was asked for before.
    pub fn turn_away(&self, what: TurnAway) {
        locked(&self.turning).push(what);
    }

    /// Answers lists that name a resource version or continue another with 410. For running
    /// watches see [`SimCluster::expire_watches`](crate::SimCluster::expire_watches).
    pub fn gone_lists(&self, on: bool) {
        self.api.send_modify(|api| api.gone_lists = on);
    }

    /// Stops echoing SPDY and WebSocket pings.
    pub fn ignore_pings(&self, on: bool) {
        self.api.send_modify(|api| api.deaf_to_pings = on);
    }

    /// Cuts the next frame that any port-forward connection sends after `bytes` of it, and that
    /// connection with it.
    pub fn truncate_next_frame(&self, bytes: usize) {
        *self.truncating() = Some(bytes);
    }

    /// Sends these bytes between two frames on every live port-forward connection: SPDY's own
    /// stream, within the WebSocket when tunnelled, or v4's.
    pub fn inject(&self, bytes: &[u8]) {
        // An error only says that no connection is live.
        let _ = self.injected.send(Bytes::copy_from_slice(bytes));
    }

    /// Leaves no room on the nodes for a Deployment's new pod.
    pub fn full_nodes(&self, on: bool) {
        self.nodes.send_modify(|nodes| nodes.full = on);
    }

    /// Makes an image one that no registry has.
    pub fn missing_image(&self, image: Option<&str>) {
        self.nodes
            .send_modify(|nodes| nodes.missing = image.map(str::to_owned));
    }

    /// Refuses callers of Services whose pods take connections on these ports, as where something between
    /// nodes and pods keeps them out. From each Service's next change on.
    pub fn closed_ports(&self, ports: Option<RangeInclusive<u16>>) {
        self.nodes.send_modify(|nodes| nodes.closed = ports);
    }

    /// Switches everything off.
    pub fn clear(&self) {
        self.path.send_replace(Path::default());
        self.api.send_replace(Api::default());
        self.nodes.send_replace(Nodes::default());
        *self.truncating() = None;
        locked(&self.turning).clear();
    }

    pub(crate) fn path(&self) -> watch::Receiver<Path> {
        self.path.subscribe()
    }

    pub(crate) fn nodes(&self) -> Nodes {
        self.nodes.borrow().clone()
    }

    pub(crate) fn api(&self) -> Api {
        self.api.borrow().clone()
    }

    /// Waits out what delays API requests.
    pub(crate) async fn pass_api(&self) {
        let delay = self.api.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.api.subscribe().wait_for(|api| !api.held).await;
    }

    /// The cut for the frame about to be sent, once.
    pub(crate) fn take_truncation(&self) -> Option<usize> {
        self.truncating().take()
    }

    pub(crate) fn injections(&self) -> broadcast::Receiver<Bytes> {
        self.injected.subscribe()
    }

    /// The status and `Retry-After` for a request that is turned away.
    pub(crate) fn turns_away(&self, path: &str) -> Option<(u16, Option<u64>)> {
        let mut turning = locked(&self.turning);
        let fits = |what: &&mut TurnAway| what.count > 0 && path.contains(&what.path);
        let what = turning.iter_mut().find(fits)?;
        what.count -= 1;
        Some((what.code, what.retry_after))
    }

    fn truncating(&self) -> MutexGuard<'_, Option<usize>> {
        locked(&self.truncate)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn owned((status, message): (u16, &str)) -> (u16, String) {
    (status, message.to_owned())
}
