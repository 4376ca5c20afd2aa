//! The connections to all pods, and which of them a new stream takes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::Form;
use super::connection::{Connection, Fitness};
use super::counters::Counters;
use super::denials::Denial;
use super::form::KnownForm;
use super::lock;
use super::open::{OpenError, Opened, open};
use super::refusals::Refusals;
use super::stream::PodStream;
use crate::addr::Namespaced;
use crate::dial::{DialError, PodPort};
use crate::io::TrafficSnapshot;
use crate::k8s::Client;
use crate::task::Tasks;

/// Live streams from which on a second connection is made in the background. The runtime hands
/// frames to five workers with 50 places each; beyond this number they would queue.
const CROWDED: usize = 32;
/// Live streams above which a connection takes no more.
const FULL: usize = 64;
/// Connections to one pod. More would be bulk transfers that nobody can tell apart any more.
const MAX_CONNECTIONS: usize = 32;

/// An idle connection is kept this long: a new one costs several round trips.
const IDLE_LIMIT: Duration = Duration::from_secs(600);
/// Idle connections beyond a pod's first go sooner.
const SPARE_IDLE_LIMIT: Duration = Duration::from_secs(30);
/// How often idle connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// Opens streams to pods. Cloning is shallow.
#[derive(Clone, Debug)]
pub struct PortForward {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) client: Client,
    pub(super) form: KnownForm,
    counters: Arc<Counters>,
    pub(super) tasks: Tasks,
    pods: Mutex<HashMap<PodKey, Arc<Pod>>>,
    /// Breaks ties between pods that are equally busy, so that each gets its turn.
    pub(super) turn: AtomicUsize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PodKey {
    name: Namespaced,
    /// The next pod of a StatefulSet has the same name.
    uid: String,
}

#[derive(Debug, Default)]
pub(super) struct Pod {
    connections: Mutex<Vec<Connection>>,
    /// Held while a connection is being made; one is enough for all who wait.
    opening: tokio::sync::Mutex<Option<Failure>>,
    /// Streams to the pod, those still waiting for a connection included.
    in_flight: AtomicUsize,
    /// A connection ahead of need is being made.
    growing: AtomicBool,
    /// Ports that refused, whose next refusal is awaited before a byte is sent.
    pub(super) refusals: Arc<Refusals>,
    /// Whether the user may not forward to it.
    pub(super) denial: Denial,
}

/// The last attempt's failure, for those who waited for that attempt.
#[derive(Debug)]
struct Failure {
    at: Instant,
    error: OpenError,
}

/// The state of the direct transport, for `kdev status`.
#[derive(Clone, Debug)]
pub struct PortForwardStatus {
    /// The wire form in use and why it was taken; `None` before the first connection.
    pub form: Option<(Form, String)>,
    /// What went through.
    pub traffic: TrafficSnapshot,
    /// Upgraded connections that are open.
    pub connections: usize,
    /// The shortest of the newest round trips to the pods' nodes.
    pub round_trip: Option<Duration>,
}

impl PortForward {
    /// Streams through `client`, the wire form starting from `form`. Call it inside a runtime.
    pub fn new(client: Client, form: KnownForm) -> Self {
        let tasks = Tasks::new();
        let inner = Arc::new(Inner {
            client,
            form,
            counters: Arc::default(),
            tasks: tasks.clone(),
            pods: Mutex::default(),
            turn: AtomicUsize::new(0),
        });
        let sweeper = Arc::downgrade(&inner);
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let Some(inner) = sweeper.upgrade() else {
                    return;
                };
                inner.sweep();
            }
        });
        Self { inner }
    }

    /// What `kdev status` shows.
    pub fn status(&self) -> PortForwardStatus {
        let round_trip = lock(&self.inner.pods)
            .values()
            .flat_map(|pod| {
                lock(&pod.connections)
                    .iter()
                    .filter_map(Connection::round_trip)
                    .min()
            })
            .min();
        PortForwardStatus {
            form: self.inner.form.current(),
            traffic: self.inner.counters.traffic.snapshot(),
            connections: self.inner.counters.connections(),
            round_trip,
        }
    }

    /// Opens a stream to one port of one pod, without waiting for the pod's answer.
    pub async fn open(&self, at: &PodPort, target: &str) -> Result<PodStream, DialError> {
        let pod = self.inner.pod(at);
        let _in_flight = InFlight::new(&pod);
        self.inner
            .open_on(&pod, at, target)
            .await
            .map_err(|e| e.error)
    }

    /// Whether somebody listens on a port of a pod: nobody where the pod refuses within `limit`.
    ///
    /// # Errors
    /// Its refusal, or why the pod cannot be asked.
    pub async fn listens(&self, at: &PodPort, limit: Duration) -> Result<(), DialError> {
        let target = format!("{}:{}", at.pod, at.port);
        let stream = self.open(at, &target).await?;
        match stream.early_failure(limit).await {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Says goodbye on every connection, for at most `limit`; streams that are open fail.
    pub async fn close(&self, limit: Duration) {
        for (_, pod) in lock(&self.inner.pods).drain() {
            lock(&pod.connections)
                .drain(..)
                .for_each(|connection| connection.close());
        }
        self.inner.tasks.shutdown(limit).await;
    }
}

/// Counts a dial that has no stream yet.
pub(super) struct InFlight<'a>(&'a Pod);

impl<'a> InFlight<'a> {
    pub(super) fn new(pod: &'a Pod) -> Self {
        pod.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(pod)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pod {
    /// Streams and dials that the pod has now.
    pub(super) fn load(&self) -> usize {
        let streams: usize = lock(&self.connections).iter().map(Connection::live).sum();
        streams + self.in_flight.load(Ordering::Relaxed)
    }

    /// Opens a stream on the fittest connection there is.
    fn open_on_existing(&self, port: u16, target: &str) -> Existing {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| connection.fitness() != Fitness::Closed);
        let mut fit: Vec<(usize, &Connection)> = connections
            .iter()
            .filter_map(|connection| match connection.fitness() {
                Fitness::Fit(live) if live < FULL => Some((live, connection)),
                _ => None,
            })
            .collect();
        fit.sort_by_key(|(live, _)| *live);
        for (live, connection) in fit {
            if let Some(stream) = connection.open(port, target) {
                let crowded = live + 1 >= CROWDED && connections.len() < MAX_CONNECTIONS;
                return Existing::Stream { stream, crowded };
            }
        }
        if connections.len() < MAX_CONNECTIONS {
            return Existing::None;
        }
        // All are taken by bulk: the least loaded one that is not known to be dead.
        let busy = connections
            .iter()
            .filter(|connection| connection.fitness() != Fitness::Suspect)
            .min_by_key(|connection| connection.live());
        match busy.and_then(|connection| connection.open(port, target)) {
            Some(stream) => Existing::Stream {
                stream,
                crowded: false,
            },
            None => Existing::None,
        }
    }
}

enum Existing {
    Stream { stream: PodStream, crowded: bool },
    None,
}

impl Inner {
    pub(super) fn pod(&self, at: &PodPort) -> Arc<Pod> {
        let key = PodKey {
            name: at.pod.clone(),
            uid: at.uid.clone(),
        };
        lock(&self.pods).entry(key).or_default().clone()
    }

    pub(super) async fn open_on(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        at: &PodPort,
        target: &str,
    ) -> Result<PodStream, OpenError> {
        let asked = Instant::now();
        loop {
            if let Existing::Stream { stream, crowded } = pod.open_on_existing(at.port, target) {
                if crowded && !pod.growing.swap(true, Ordering::AcqRel) {
                    self.grow(pod.clone(), at.clone(), target.to_owned());
                }
                return Ok(stream);
            }
            if self.form.is_single() {
                // Nobody else could use what is made here.
                match self.connect(at, target).await? {
                    Opened::Stream(stream) => return Ok(stream),
                    Opened::Connection(connection) => lock(&pod.connections).push(connection),
                }
                continue;
            }
            let mut last_failure = pod.opening.lock().await;
            // Whoever held the lock may have made the connection, or failed for all.
            if let Existing::Stream { stream, .. } = pod.open_on_existing(at.port, target) {
                return Ok(stream);
            }
            if let Some(failure) = &*last_failure
                && failure.at > asked
            {
                return Err(failure.error.clone());
            }
            match self.connect(at, target).await {
                Ok(Opened::Stream(stream)) => return Ok(stream),
                Ok(Opened::Connection(connection)) => {
                    *last_failure = None;
                    lock(&pod.connections).push(connection);
                }
                Err(error) => {
                    *last_failure = Some(Failure {
                        at: Instant::now(),
                        error: error.clone(),
                    });
                    return Err(error);
                }
            }
        }
    }

    /// Makes a connection ahead of need.
    fn grow(self: &Arc<Self>, pod: Arc<Pod>, at: PodPort, target: String) {
        let inner = self.clone();
        self.tasks.spawn(async move {
            let _one = pod.opening.lock().await;
            if let Ok(Opened::Connection(connection)) = inner.connect(&at, &target).await {
                lock(&pod.connections).push(connection);
            }
            pod.growing.store(false, Ordering::Release);
        });
    }

    async fn connect(&self, at: &PodPort, target: &str) -> Result<Opened, OpenError> {
        let (client, form) = (&self.client, &self.form);
        let (counters, tasks) = (&self.counters, &self.tasks);
        let opened = open(client, form, &Form::ALL, at, target, counters, tasks).await?;
        Ok(opened.0)
    }

    fn sweep(&self) {
        lock(&self.pods).retain(|_, pod| {
            let mut connections = lock(&pod.connections);
            let mut kept = 0;
            connections.retain(|connection| {
                let limit = if kept == 0 {
                    IDLE_LIMIT
                } else {
                    SPARE_IDLE_LIMIT
                };
                let stale = connection.idle().is_some_and(|idle| idle > limit);
                if stale {
                    connection.close();
                }
                let keep = !stale && connection.fitness() != Fitness::Closed;
                kept += usize::from(keep);
                keep
            });
            let used = !connections.is_empty() || pod.in_flight.load(Ordering::Relaxed) > 0;
            used || pod.denial.is_fresh()
        });
    }
}
