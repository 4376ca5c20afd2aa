//! One port of the fixed range: what arrived on it, and the claims that routes are made of.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::fallback::Untold;
use super::laptop::Lines;
use super::sessions::Session;
use crate::rule::control::Seen;
use crate::rule::{AppProtocol, Claim, RuleSet};
use crate::task::Tasks;

/// How often it is told that the original pods of a port cannot be reached: each caller finds out.
const TELL_EACH: Duration = Duration::from_secs(1);

/// A port of the fixed range.
#[derive(Debug)]
pub(super) struct Port {
    /// Its number.
    pub(super) number: u16,
    routes: Mutex<Arc<Routes>>,
    accepted: Count,
    open: AtomicU64,
    retired: AtomicBool,
    retire: Notify,
    /// Whether the last caller whose protocol was not known spoke first.
    caller_first: AtomicBool,
    /// Whether anybody ever had a claim on it.
    claimed: AtomicBool,
    /// Requests and connections that went to the original pods before anybody had a claim on it.
    unclaimed: AtomicU64,
    /// When it was last told that the original pods cannot be reached.
    told: Mutex<Option<Instant>>,
}

/// Where requests on a port go.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// What callers speak.
    pub(super) protocol: AppProtocol,
    /// The claims that get requests.
    pub(super) rules: RuleSet<Arc<Entry>>,
    /// Those that get copies.
    pub(super) mirrors: RuleSet<Arc<Entry>>,
}

/// A claim that stands.
#[derive(Debug)]
pub(super) struct Entry {
    /// The claim.
    pub(super) claim: Claim,
    /// Whose it is.
    pub(super) session: Arc<Session>,
    /// Whether its session wants to know of each request.
    pub(super) log: bool,
    /// What the port had accepted before.
    accepted_before: u64,
    /// What fulfilled it.
    requests: Count,
    /// What of it went to the original pods.
    pub(super) untold: Untold,
    lines: OnceLock<Lines>,
}

/// How often something happened, and when last.
#[derive(Debug)]
struct Count {
    began: Instant,
    times: AtomicU64,
    /// Milliseconds since it began.
    last: AtomicU64,
}

impl Count {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            times: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    fn add(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
        self.times.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }

    /// How long ago the last time was, in milliseconds.
    fn ago(&self) -> Option<u64> {
        let last = self.last.load(Ordering::Relaxed);
        (self.times() > 0).then(|| self.now().saturating_sub(last))
    }
}

/// A connection that lives on a port.
#[derive(Debug)]
pub(super) struct Open(Arc<Port>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Port {
    pub(super) fn new(number: u16) -> Self {
        Self {
            number,
            routes: Mutex::default(),
            accepted: Count::new(),
            open: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            retire: Notify::new(),
            caller_first: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            unclaimed: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    /// Whether it may be told now that the original pods cannot be reached.
    pub(super) fn may_tell(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let may = told.is_none_or(|at| at.elapsed() >= TELL_EACH);
        if may {
            *told = Some(Instant::now());
        }
        may
    }

    /// A connection was accepted; it lives until the result is dropped.
    pub(super) fn accept(self: &Arc<Self>) -> Open {
        self.accepted.add();
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// Connections that were accepted, how long ago the last one, and how many are open.
    pub(super) fn counts(&self) -> (u64, Option<u64>, u64) {
        let open = self.open.load(Ordering::Relaxed);
        (self.accepted.times(), self.accepted.ago(), open)
    }

    /// Where requests go now.
    pub(super) fn routes(&self) -> Arc<Routes> {
        let routes = self.routes.lock();
        routes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where they go from now on.
    pub(super) fn set(&self, claims: &[Arc<Entry>]) {
        let routes = Arc::new(Routes::new(claims));
        self.claimed.fetch_or(!claims.is_empty(), Ordering::Relaxed);
        *self.routes.lock().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    /// Whether anybody ever had a claim on it: there may be one again, which connections of now
    /// then come under.
    pub(super) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Relaxed)
    }

    /// A request, or a connection, went to the original pods before anybody had a claim on it.
    pub(super) fn passed_unclaimed(&self) {
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many did.
    pub(super) fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }

    /// Whether the last caller whose protocol was not known spoke first.
    pub(super) fn is_caller_first(&self) -> bool {
        self.caller_first.load(Ordering::Relaxed)
    }

    /// Remembers whether a caller spoke first.
    pub(super) fn caller_first(&self, first: bool) {
        self.caller_first.store(first, Ordering::Relaxed);
    }

    /// Whether whoever is connected shall move.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Asks whoever is connected to move, or no longer.
    pub(super) fn retire(&self, retired: bool) {
        self.retired.store(retired, Ordering::Relaxed);
        if retired {
            self.retire.notify_waiters();
        }
    }

    /// Completes when whoever is connected shall move.
    pub(super) async fn retiring(&self) {
        let mut retire = std::pin::pin!(self.retire.notified());
        // Before looking, so that it is not missed.
        retire.as_mut().enable();
        if !self.is_retired() {
            retire.await;
        }
    }
}

impl Routes {
    fn new(claims: &[Arc<Entry>]) -> Self {
        let rules = |mirror: bool| {
            let of_kind = claims.iter().filter(|entry| entry.claim.mirror == mirror);
            let rules = of_kind.map(|entry| {
                let claim = &entry.claim;
                (claim.conditions.clone(), claim.since, entry.clone())
            });
            let mut rules: Vec<_> = rules.collect();
            // Of the same age, every replica has to choose the same.
            rules.sort_by(|(.., a), (.., b)| a.claim.id.cmp(&b.claim.id));
            RuleSet::new(rules)
        };
        let said = claims
            .iter()
            .filter(|entry| entry.claim.protocol != AppProtocol::Auto);
        let first = said.min_by_key(|entry| entry.claim.since);
        Self {
            protocol: first.map_or(AppProtocol::Auto, |entry| entry.claim.protocol),
            rules: rules(false),
            mirrors: rules(true),
        }
    }
}

impl Entry {
    /// A claim from now on; `port` is where it stands.
    pub(super) fn new(claim: Claim, session: Arc<Session>, port: &Port, log: bool) -> Self {
        Self {
            claim,
            session,
            log,
            accepted_before: port.counts().0,
            requests: Count::new(),
            untold: Untold::default(),
            lines: OnceLock::new(),
        }
    }

    /// What its requests travel on; as tasks of `tasks`.
    pub(super) fn lines(&self, tasks: &Tasks) -> &Lines {
        self.lines.get_or_init(|| Lines::new(self, tasks))
    }

    /// A request, or a connection, fulfilled it.
    pub(super) fn hit(&self) {
        self.requests.add();
    }

    /// What is told of it.
    pub(super) fn seen(&self, port: &Port) -> Seen {
        Seen {
            id: self.claim.id.clone(),
            owner: self.claim.owner.clone(),
            live: self.session.is_live(),
            accepted: port.counts().0.saturating_sub(self.accepted_before),
            requests: self.requests.times(),
            ago: self.requests.ago(),
        }
    }
}
