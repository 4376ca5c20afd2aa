//! The tunnels there are, and which of them a new stream takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Notify, watch};

use super::load::Load;
use super::status::{PoolStatus, ReplicaStatus, TunnelState, TunnelStatus};
use super::transport::{Replicas, Trouble};
use crate::dial::DialError;
use crate::io::Traffic;
use crate::task::Tasks;
use crate::tunnel::{Budget, Health, Identity, Opener};

/// Tunnels to one replica: one for what is small, and two for bulk, which fill any line.
pub(super) const MOST_PER_REPLICA: usize = 3;
/// Tunnels to one replica with those that apps which do not read have filled.
const MOST_WITH_FULL: usize = 8;

/// One tunnel.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) replica: Arc<str>,
    pub(super) opener: Opener,
    pub(super) carrier: &'static str,
    pub(super) program: String,
    pub(super) since: SystemTime,
    pub(super) load: Arc<Load>,
    /// Looks in a row that found it without a stream.
    pub(super) idle_looks: AtomicU32,
    /// Whether so much in it waits for apps that have stopped reading that others might wait too.
    pub(super) full: AtomicBool,
}

impl Tunnel {
    /// Whether new streams may go there.
    pub(super) fn is_fit(&self) -> bool {
        self.state() == TunnelState::Open
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    fn state(&self) -> TunnelState {
        match self.opener.health() {
            Health::Silent => TunnelState::Silent,
            Health::Sound if self.opener.takes_streams() => TunnelState::Open,
            Health::Sound | Health::Ended => TunnelState::Draining,
        }
    }
}

/// What all handles and tasks of a pool share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) budget: Budget,
    pub(super) traffic: Arc<Traffic>,
    /// What moves bytes.
    pub(super) tasks: Tasks,
    /// What makes tunnels, and ends at once.
    pub(super) keepers: Tasks,
    /// Told when bulk begins somewhere.
    pub(super) grow: Arc<Notify>,
    pub(super) replicas: watch::Receiver<Replicas>,
    tunnels: Mutex<Vec<Arc<Tunnel>>>,
    /// The last failure with each replica, until a success.
    troubles: Mutex<BTreeMap<Arc<str>, Trouble>>,
    /// Counts changes of all of this, for those who wait for one.
    changes: watch::Sender<u64>,
    /// Breaks ties, so that each tunnel gets its turn.
    turn: AtomicUsize,
}

impl Shared {
    pub(super) fn new(replicas: watch::Receiver<Replicas>, budget: Budget, tasks: Tasks) -> Self {
        Self {
            identity: Identity::random(),
            budget,
            traffic: Arc::default(),
            keepers: tasks.child(),
            tasks,
            grow: Arc::default(),
            replicas,
            tunnels: Mutex::default(),
            troubles: Mutex::default(),
            changes: watch::Sender::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    /// The fittest tunnel: of a replica that is not about to go, with room, without bulk, with the
    /// fewest streams.
    pub(super) fn choose(&self) -> Option<Arc<Tunnel>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let tunnels = self.tunnels();
        let replicas = self.replicas.borrow();
        let count = tunnels.len().max(1);
        let fit = tunnels.iter().enumerate().filter(|(_, t)| t.is_fit());
        let best = fit.min_by_key(|(i, tunnel)| {
            let leaving = !replicas.names.contains(&tunnel.replica);
            let streams = tunnel.opener.streams();
            let (full, bulk) = (tunnel.is_full(), tunnel.load.has_bulk());
            (leaving, full, bulk, streams, (i + turn) % count)
        });
        best.map(|(_, tunnel)| tunnel.clone())
    }

    /// Whether a dial would find a tunnel.
    pub(super) fn is_usable(&self) -> bool {
        self.tunnels().iter().any(|tunnel| tunnel.is_fit())
    }

    /// Why there will be no tunnel until somebody does something, where that is so.
    pub(super) fn hopeless(&self) -> Option<DialError> {
        let replicas = self.replicas.borrow();
        if let Some(none) = &replicas.none {
            return (!none.passing).then(|| none.error.clone());
        }
        let troubles = self.troubles();
        let lasting = |name| troubles.get(name).filter(|t| !t.passing);
        let all = !replicas.names.is_empty() && replicas.names.iter().all(|n| lasting(n).is_some());
        let first = replicas.names.first().filter(|_| all)?;
        lasting(first).map(|trouble| trouble.error.clone())
    }

    /// The last failure with any replica.
    pub(super) fn trouble(&self) -> Option<DialError> {
        let none = self.replicas.borrow().none.clone();
        none.map(|none| none.error)
            .or_else(|| self.troubles().values().next().map(|t| t.error.clone()))
    }

    /// Whether `replica` has a tunnel that takes streams.
    pub(super) fn has_fit(&self, replica: &str) -> bool {
        let tunnels = self.tunnels();
        tunnels.iter().any(|t| &*t.replica == replica && t.is_fit())
    }

    /// The replica that should get another tunnel, where all have bulk or are full.
    pub(super) fn wants_spare(&self) -> Option<Arc<str>> {
        let tunnels = self.tunnels();
        let mut fit = tunnels.iter().filter(|tunnel| tunnel.is_fit());
        if fit.any(|tunnel| !tunnel.load.has_bulk() && !tunnel.is_full()) {
            return None;
        }
        let replicas = self.replicas.borrow();
        let of = |name: &Arc<str>| {
            let own = tunnels.iter().filter(|t| t.replica == *name);
            let full = own.clone().filter(|t| t.is_full()).count();
            (own.count(), full)
        };
        let counted = replicas.names.iter().map(|name| (of(name), name));
        // One without any is being connected to already.
        let room = counted.filter(|((all, full), _)| {
            (1..MOST_WITH_FULL).contains(all) && all - full < MOST_PER_REPLICA
        });
        room.min_by_key(|(counts, _)| *counts)
            .map(|(_, name)| name.clone())
    }

    /// Looks which tunnels are full: from half of the window on, since the other half may be on
    /// the way.
    pub(super) fn look_for_full(&self) {
        let limit = self.budget.window() as usize / 2;
        // A copy, so that no dial waits while thousands of streams are asked.
        let tunnels = self.tunnels().clone();
        for tunnel in &tunnels {
            let full = tunnel.opener.held() >= limit;
            if full && !tunnel.full.swap(true, Ordering::Relaxed) {
                self.grow.notify_one();
            } else if !full {
                tunnel.full.store(false, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn add(&self, tunnel: Arc<Tunnel>) {
        self.troubles().remove(&tunnel.replica);
        self.tunnels().push(tunnel);
        self.changed();
    }

    /// Forgets a tunnel; it says goodbye once its last stream has ended.
    pub(super) fn remove(&self, opener: &Tunnel) {
        self.tunnels().retain(|t| !std::ptr::eq(&**t, opener));
        self.changed();
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.tunnels().clear();
        self.changed();
    }

    /// Forgets those that take no more streams for good.
    pub(super) fn drop_drained(&self) {
        self.retain(|tunnel, _| tunnel.state() != TunnelState::Draining);
    }

    /// Forgets tunnels that had no stream in the last `looks` calls, but for the last one that
    /// works: one to each replica is enough, and none to one that is gone.
    pub(super) fn sweep(&self, looks: u32) {
        let names = self.replicas.borrow().names.clone();
        self.retain(|tunnel, others| {
            if tunnel.opener.streams() > 0 {
                tunnel.idle_looks.store(0, Ordering::Relaxed);
                return true;
            }
            let idle = tunnel.idle_looks.fetch_add(1, Ordering::Relaxed) + 1;
            let mut fit = others.iter().filter(|other| other.is_fit());
            let needed = match names.contains(&tunnel.replica) {
                true => !fit.any(|other| other.replica == tunnel.replica),
                false => fit.next().is_none(),
            };
            needed || idle < looks
        });
    }

    /// Forgets those that `keep` refuses, which sees one and the others that are kept so far or
    /// not looked at yet.
    fn retain(&self, keep: impl Fn(&Tunnel, &[Arc<Tunnel>]) -> bool) {
        let mut tunnels = self.tunnels();
        let before = tunnels.len();
        let mut at = 0;
        while at < tunnels.len() {
            let tunnel = tunnels.swap_remove(at);
            if keep(&tunnel, &tunnels) {
                tunnels.push(tunnel);
                let last = tunnels.len() - 1;
                tunnels.swap(at, last);
                at += 1;
            }
        }
        let fewer = tunnels.len() < before;
        drop(tunnels);
        if fewer {
            self.changed();
        }
    }

    /// Notes why there is no tunnel to `replica`; whether that is news.
    pub(super) fn note(&self, replica: &Arc<str>, trouble: Trouble) -> bool {
        let text = trouble.error.to_string();
        let before = self.troubles().insert(replica.clone(), trouble);
        self.changed();
        before.is_none_or(|before| before.error.to_string() != text)
    }

    /// A replica that is gone has no trouble any more.
    pub(super) fn forget(&self, replica: &str) {
        self.troubles().remove(replica);
    }

    /// Something changed, for whoever waits.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn follow(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn status(&self) -> PoolStatus {
        let troubles = self.troubles().clone();
        let mut status = PoolStatus {
            trouble: match self.is_usable() {
                true => None,
                false => self.trouble().map(|error| error.to_string()),
            },
            traffic: self.traffic.snapshot(),
            ..PoolStatus::default()
        };
        for name in &self.replicas.borrow().names {
            status.replicas.push(ReplicaStatus {
                name: name.clone(),
                last_error: troubles.get(name).map(|t| t.error.to_string()),
            });
        }
        for tunnel in self.tunnels().iter() {
            status.tunnels.push(TunnelStatus {
                replica: tunnel.replica.clone(),
                carrier: tunnel.carrier,
                program: tunnel.program.clone(),
                since: tunnel.since,
                state: tunnel.state(),
                streams: tunnel.opener.streams(),
                bulk: tunnel.load.has_bulk(),
                round_trip: tunnel.opener.round_trip(),
            });
        }
        status
    }

    fn tunnels(&self) -> MutexGuard<'_, Vec<Arc<Tunnel>>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
