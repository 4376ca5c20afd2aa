//! Idle connections to origins, a bounded number of each.
//!
//! An idle connection that looks open may be closed already: the origin's end of it is still on its
//! way, through the network, a tunnel, or a port-forward, where it takes a second. The request that
//! is sent on it then is lost, and whether it was served nobody knows. No look at the connection
//! rules that out, and no age does, as servers close idle connections after 75 s, or 5 s, or 10 ms.
//! So idle connections carry what may be sent twice, and the rest gets a fresh one, which costs
//! little: a stream that is opened together with its first bytes, and a connection on the laptop or
//! inside the cluster.
//!
//! The exception spares those who send thousands of them: where the destination was seen to keep an
//! idle connection for [`PROOF`], one that was used a moment ago is alive.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::request::RequestBody;
use super::turnover::{Rate, Turnover};
use super::{IDLE_TIMEOUT, MAX_IDLE, MAX_IDLE_PER_AUTHORITY};
use crate::addr::Target;
use crate::dial::{HttpProxy, Mark};
use crate::task::Tasks;

/// How long a connection may have been idle for what must not be sent twice, where those of the
/// destination last: more than there is between two of hundreds of requests a second.
const JUST: Duration = Duration::from_millis(10);

/// How long a connection has to have been idle, and open, for others to count as lasting. The news
/// of its end may be a second old: what is seen open now was not closed before the half of this,
/// which is still far more than [`JUST`] and a round trip.
const PROOF: Duration = Duration::from_secs(2);

/// How long a proof is good.
const PROVEN: Duration = Duration::from_secs(60);

/// A connection that can carry requests.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) send: SendRequest<RequestBody>,
    /// Set where it leads to an HTTP proxy.
    pub(super) via: Option<HttpProxy>,
    /// What requests on it are marked with.
    pub(super) mark: Option<Mark>,
    /// Requests that it carried.
    pub(super) served: u32,
    /// When it was opened.
    pub(super) born: Instant,
}

/// Idle connections, by authority. Cloning is shallow.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    idle: Arc<Mutex<Idle>>,
    tasks: Tasks,
    turnover: Option<Turnover>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Per authority, the longest unused first.
    senders: HashMap<Target, VecDeque<Entry>>,
    total: usize,
    /// When an idle connection was last seen to have lasted.
    lasting: HashMap<Target, Instant>,
    /// How many requests there are, where that counts.
    rates: HashMap<Target, Rate>,
    /// Whether a task is there that will remove what grows old.
    swept: bool,
}

#[derive(Debug)]
struct Entry {
    sender: Sender,
    since: Instant,
    /// Whether others were served meanwhile, so that it is in nobody's way.
    beside: bool,
}

impl Pool {
    pub(super) fn new(tasks: Tasks, turnover: Option<Turnover>) -> Self {
        Self {
            idle: Arc::default(),
            tasks,
            turnover,
        }
    }

    /// The connection to `target` that was used last, if it is good for the request, which would have
    /// this `mark` now; `twice` is whether that may be sent twice. What was opened when requests had
    /// another mark, or none, leads to where they went then, and is closed.
    pub(super) fn take(&self, target: &Target, mark: Option<&Mark>, twice: bool) -> Option<Sender> {
        let now = Instant::now();
        let mut idle = self.lock();
        if self.turnover.is_some() {
            idle.rate(target).count(now);
        }
        let Idle {
            senders,
            total,
            lasting,
            ..
        } = &mut *idle;
        let entries = senders.get_mut(target)?;
        let before = entries.len();
        let (mut lasts, mut ends) = (false, false);
        entries.retain(|entry| {
            let closed = entry.sender.send.is_closed();
            let proof = now.duration_since(entry.since) >= PROOF;
            lasts |= proof && !closed;
            ends |= closed && !proof;
            let old = now.duration_since(entry.sender.born);
            let leads_there = entry.sender.mark.as_ref() == mark;
            !closed && leads_there && self.turnover.is_none_or(|turnover| old < turnover.age)
        });
        if ends {
            lasting.remove(target);
        } else if lasts {
            note(lasting, target, now);
        }
        let proven = |at: &Instant| now.duration_since(*at) < PROVEN;
        let just = match lasting.get(target).is_some_and(proven) {
            true => JUST,
            false => Duration::ZERO,
        };
        // One whose last response is through may still be sending the last request's body.
        let mut found = entries
            .iter()
            .rposition(|entry| {
                let age = now.duration_since(entry.since);
                entry.sender.send.is_ready() && age < IDLE_TIMEOUT
            })
            .and_then(|index| entries.remove(index));
        if !twice {
            // What is not good enough makes room for what will be opened, because some servers serve
            // one at a time; but where it is known to be in nobody's way, one stays for the proof.
            let unfit = found.take_if(|entry| now.duration_since(entry.since) >= just);
            let witness = unfit.filter(|entry| entry.beside && entries.iter().all(|e| !e.beside));
            entries.extend(witness);
        }
        *total -= before - entries.len();
        if entries.is_empty() {
            senders.remove(target);
        }
        found.map(|entry| entry.sender)
    }

    /// Keeps a connection that nobody uses.
    pub(super) fn put(&self, target: Target, sender: Sender) {
        if self.tasks.is_draining() {
            return;
        }
        let mut idle = self.lock();
        if sender.send.is_closed() {
            idle.lasting.remove(&target);
            return;
        }
        if let Some(turnover) = self.turnover
            && turnover.is_over(sender.served, sender.born, idle.rate(&target))
        {
            return;
        }
        if idle.total >= MAX_IDLE {
            idle.drop_oldest();
        }
        let entries = idle.senders.entry(target).or_default();
        for entry in &mut *entries {
            entry.beside = true;
        }
        entries.push_back(Entry {
            sender,
            since: Instant::now(),
            beside: false,
        });
        if entries.len() > MAX_IDLE_PER_AUTHORITY {
            entries.pop_front();
        } else {
            idle.total += 1;
        }
        if !idle.swept {
            idle.swept = true;
            let pool = self.clone();
            self.tasks.spawn(async move { pool.sweep().await });
        }
    }

    /// Removes what grew old until nothing is left.
    async fn sweep(self) {
        let most = self.turnover.map_or(IDLE_TIMEOUT, |turnover| turnover.age);
        loop {
            let draining = tokio::select! {
                () = tokio::time::sleep(most / 4) => false,
                () = self.tasks.draining() => true,
            };
            let now = Instant::now();
            let mut idle = self.lock();
            idle.senders.retain(|_, entries| {
                entries.retain(|entry| {
                    !draining
                        && !entry.sender.send.is_closed()
                        && now.duration_since(entry.since) < most
                });
                !entries.is_empty()
            });
            idle.total = idle.senders.values().map(VecDeque::len).sum();
            if idle.total == 0 {
                idle.swept = false;
                return;
            }
        }
    }

    /// How many connections are idle.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        // Every change is whole when the lock is released, so a panic elsewhere leaves it sound.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn rate(&mut self, target: &Target) -> &mut Rate {
        // One for each destination: of those that turn over there are as many as ports.
        self.rates.entry(target.clone()).or_default()
    }

    fn drop_oldest(&mut self) {
        let oldest = self
            .senders
            .iter()
            .filter_map(|(target, entries)| Some((entries.front()?.since, target)))
            .min_by_key(|(since, _)| *since)
            .map(|(_, target)| target.clone());
        if let Some(target) = oldest
            && let Some(entries) = self.senders.get_mut(&target)
        {
            entries.pop_front();
            self.total -= 1;
            if entries.is_empty() {
                self.senders.remove(&target);
            }
        }
    }
}

/// Notes that connections to `target` last. Of more destinations than have idle connections nothing
/// is noted.
fn note(lasting: &mut HashMap<Target, Instant>, target: &Target, now: Instant) {
    if let Some(at) = lasting.get_mut(target) {
        *at = now;
        return;
    }
    if lasting.len() >= MAX_IDLE {
        lasting.retain(|_, at| now.duration_since(*at) < PROVEN);
    }
    if lasting.len() < MAX_IDLE {
        lasting.insert(target.clone(), now);
    }
}

/// A connection in use. Dropped without [`Lease::give_back`], it closes.
#[derive(Debug)]
pub(super) struct Lease {
    sender: Sender,
    /// `None` where the connection can carry nothing more.
    home: Option<(Pool, Target)>,
}

impl Lease {
    pub(super) fn new(mut sender: Sender, pool: &Pool, target: &Target) -> Self {
        sender.served += 1;
        Self {
            sender,
            home: Some((pool.clone(), target.clone())),
        }
    }

    /// The connection ends with this exchange.
    pub(super) fn keep_out(&mut self) {
        self.home = None;
    }

    /// The exchange is through: others may use the connection.
    pub(super) fn give_back(self) {
        if let Some((pool, target)) = self.home {
            pool.put(target, self.sender);
        }
    }
}
