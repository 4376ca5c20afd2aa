//! kdev's side of the reverse tunnels: one to each replica of the relay at once, made anew when
//! they are lost. Claims are registered in each of them; the streams that come out of them are
//! joined with the apps.
//!
//! * [`Reverse`]: what a session does with them
//! * [`line`]: one tunnel; [`keep`]: one to each replica
//! * [`serve`]: a stream and its app

mod counted;
mod keep;
mod line;
mod serve;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::addr::Target;
use crate::dial::DialError;
use crate::io::{Traffic, TrafficSnapshot};
use crate::rule::Claim;
use crate::rule::control::{Ask, Tell};
use crate::task::Tasks;
use crate::tunnel::pool::{Replicas, Transport, Trouble};
use crate::tunnel::{Budget, Identity, SessionId};

/// Bytes that all reverse tunnels of a session may hold for apps that read slowly.
const BUDGET: u32 = 64 << 20;
/// Bytes of one stream that may be on the way: see the forward tunnels.
const STREAM_WINDOW: u32 = 4 << 20;
/// Apps that have stopped reading and fill a tunnel.
const FILLED_BY: u32 = 8;
/// How long a replica may take for an answer to what it is asked.
const ANSWER: Duration = Duration::from_secs(5);
/// Asks that wait for one tunnel.
const ASKS: usize = 64;
/// Claims that were detached and are remembered: more than a session has at a time.
const MOST_LEFT: usize = 1024;

/// What happens in the reverse tunnels.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request or a connection came for the claim with this id.
    Served(Served),
    /// The answer to such a request broke off in the middle.
    BrokeOff(BrokeOff),
    /// Requests of a claim went to the original pods.
    Fallback(Fallback),
    /// The app of a claim could not be reached.
    AppDown {
        /// The claim.
        id: String,
        /// What happened, with the app's address.
        error: DialError,
    },
    /// Somebody ended a claim.
    Ousted {
        /// The claim.
        id: String,
        /// Who, in their own words.
        by: String,
    },
    /// A replica does not register a claim that the others know, after a tunnel was lost.
    Refused {
        /// The claim.
        id: String,
        /// Why.
        reason: String,
    },
    /// A replica does not reach the original pods of a port.
    Unreached {
        /// The relay's port.
        port: u16,
    },
    /// Somebody else who may intercept wanted to be this session, and a replica refused them.
    Intruded {
        /// How often, since this was told last.
        attempts: u64,
    },
    /// The last tunnel was lost.
    Away,
    /// There is one again.
    Back,
}

/// A request of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The claim.
    pub id: String,
    /// The method; empty for a connection that is no HTTP.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The status that the caller got, or for a copy that of its answer; 0 where the caller left
    /// before, where the copy has no answer, and for a connection that is no HTTP.
    pub status: u16,
    /// From the request's arrival at the relay to the head of its answer; for a connection that is
    /// no HTTP how long it was open.
    pub took: Duration,
    /// Why the app's own answer is missing, in the relay's words.
    pub why: Option<String>,
}

/// An answer that broke off in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokeOff {
    /// The claim.
    pub id: String,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The status that the caller got.
    pub status: u16,
    /// Bytes of the body that came before.
    pub sent: u64,
    /// Why, in the relay's words.
    pub why: String,
    /// From the request's arrival at the relay until then.
    pub took: Duration,
}

/// Requests of a claim that went to the original pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The claim.
    pub id: String,
    /// Why, in the relay's words.
    pub reason: String,
    /// How many since it was last told.
    pub times: u64,
    /// Whether nobody looked into them, so that some may not have been the claim's.
    pub unread: bool,
}

impl Fallback {
    /// A sentence for the owner; `service` is what they called.
    #[must_use]
    pub fn describe(&self, service: &str) -> String {
        let Self {
            reason,
            times,
            unread,
            ..
        } = self;
        let s = if *times == 1 { "" } else { "s" };
        match unread {
            true => format!(
                "{times} request{s} or connection{s} of {service} went to the original pods \
                 unread, yours perhaps among them: {reason}"
            ),
            false => format!(
                "{times} matching request{s} of {service} went to the original pods: {reason}"
            ),
        }
    }
}

/// A claim and where its requests go.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The relay's port that it is on.
    pub port: u16,
    /// The claim.
    pub claim: Claim,
    /// The app.
    pub app: Target,
    /// Whether each of its requests becomes an [`Event::Served`].
    pub log: bool,
}

/// Reverse tunnels to all replicas of a relay. Cloning is shallow.
#[derive(Clone, Debug)]
pub struct Reverse {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    budget: Budget,
    /// The tunnels, and the streams of callers.
    tasks: Tasks,
    /// What makes tunnels, and ends at once.
    keepers: Tasks,
    replicas: watch::Receiver<Replicas>,
    state: Mutex<State>,
    /// Counts changes, for those who wait for one.
    changes: watch::Sender<u64>,
    events: mpsc::Sender<Event>,
    traffic: Arc<Traffic>,
}

/// How the reverse tunnels are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReverseStatus {
    /// Those that are open.
    pub tunnels: usize,
    /// The connections to apps.
    pub traffic: TrafficSnapshot,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By id.
    standing: BTreeMap<String, Arc<Standing>>,
    /// Those that are being detached: what is on the way to them is still served.
    leaving: BTreeMap<String, Arc<Standing>>,
    /// Ports and ids of those that were detached. A replica that had no tunnel at that time has
    /// them still, and is told when it has one.
    left: VecDeque<(u16, String)>,
    /// The session ends: a tunnel that comes now is for nothing but saying so.
    closed: bool,
    lines: Vec<Line>,
    troubles: BTreeMap<Arc<str>, Trouble>,
}

/// A tunnel that is open.
#[derive(Clone, Debug)]
struct Line {
    number: u64,
    replica: Arc<str>,
    asks: mpsc::Sender<Asked>,
}

/// A question to a relay, and whom to give the answer.
type Asked = (Ask, oneshot::Sender<Tell>);

impl Reverse {
    /// Keeps a tunnel over `transport` to each of `replicas`, from now on until it is closed. What
    /// happens is told to `events`, and lost where nobody takes it. Call it inside a runtime.
    pub fn start<T: Transport>(
        transport: T,
        replicas: watch::Receiver<Replicas>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let tasks = Tasks::new();
        let shared = Arc::new(Shared {
            identity: Identity::random(),
            budget: Budget::new(BUDGET).with_streams(STREAM_WINDOW, FILLED_BY),
            keepers: tasks.child(),
            tasks,
            replicas,
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            events,
            traffic: Arc::default(),
        });
        let follow = keep::follow(shared.clone(), Arc::new(transport));
        shared.keepers.spawn(follow);
        Self { shared }
    }

    /// Which kdev this is to the relay, for its whole life.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.shared.identity.session()
    }

    /// What proves that a tunnel is of this session.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// How they are doing now.
    #[must_use]
    pub fn status(&self) -> ReverseStatus {
        ReverseStatus {
            tunnels: self.shared.lock().lines.len(),
            traffic: self.shared.traffic.snapshot(),
        }
    }

    /// Waits until there is a tunnel to each replica, or a failure to get one beside those that
    /// there are, for at most `limit`.
    ///
    /// # Errors
    /// Why there is none at all: at once where somebody has to do something about it.
    pub async fn ready(&self, limit: Duration) -> Result<(), DialError> {
        let mut changes = self.shared.changes.subscribe();
        let mut replicas = self.shared.replicas.clone();
        let deadline = Instant::now() + limit;
        loop {
            changes.mark_unchanged();
            let looked = self.shared.look(&replicas.borrow_and_update());
            match looked {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(trouble) if !trouble.passing => return Err(trouble.error),
                Err(_) => {}
            }
            let changed = async {
                tokio::select! {
                    changed = changes.changed() => drop(changed),
                    // Whoever looks for them may be gone, and then nothing more will be known.
                    Ok(()) = replicas.changed() => {}
                }
            };
            if timeout_at(deadline, changed).await.is_err() {
                return match self.shared.look(&self.shared.replicas.borrow()) {
                    _ if !self.shared.lock().lines.is_empty() => Ok(()),
                    Err(trouble) => Err(trouble.error),
                    Ok(_) => {
                        let last = self.shared.trouble();
                        let last = last.map_or_else(String::new, |error| format!(" ({error})"));
                        let within = limit.as_secs();
                        Err(DialError::Cluster {
                            reason: format!("no tunnel to the relay within {within} s{last}"),
                            fix: "`kdev doctor` says more".to_owned(),
                        })
                    }
                };
            }
        }
    }

    /// Waits until each replica has a tunnel or has failed once, for at most `limit`; whether there
    /// is a tunnel to any. For those who only ask, and do without the answer.
    pub async fn tried(&self, limit: Duration) -> bool {
        let mut changes = self.shared.changes.subscribe();
        let tried = async { while !self.shared.is_tried() && changes.changed().await.is_ok() {} };
        // What is there then is all that is asked.
        let _ = timeout(limit, tried).await;
        !self.shared.lock().lines.is_empty()
    }

    /// Registers a claim in all tunnels, those to come included. Where `over` says who does it,
    /// claims that are in its way go: the record in the cluster is what decides who has what. One with
    /// the same id is replaced, and stands as it was where that fails.
    ///
    /// # Errors
    /// Why a replica does not take it, in its words.
    pub async fn attach(&self, standing: Standing, over: Option<String>) -> Result<(), String> {
        let (id, port) = (standing.claim.id.clone(), standing.port);
        let ask = Ask::Attach {
            port,
            claim: Box::new(standing.claim.clone()),
            over,
            log: standing.log,
        };
        let former = self.shared.lock().stand(standing);
        let mut taken = false;
        for tell in self.ask(&ask).await {
            match tell {
                Tell::Attached { .. } => taken = true,
                Tell::Refused { reason, .. } | Tell::Unknown { reason } => {
                    self.withdraw(port, &id, former).await;
                    return Err(reason);
                }
                _ => {}
            }
        }
        match taken {
            true => Ok(()),
            false => {
                self.withdraw(port, &id, former).await;
                Err("no replica of the relay has answered".to_owned())
            }
        }
    }

    /// A claim was not registered; what stood before it stands again.
    async fn withdraw(&self, port: u16, id: &str, former: Option<Arc<Standing>>) {
        match former {
            Some(former) => drop(self.shared.lock().standing.insert(id.to_owned(), former)),
            None => self.detach(port, id).await,
        }
    }

    /// Ends a claim in all tunnels: from now on its requests go to the original pods.
    pub async fn detach(&self, port: u16, id: &str) {
        self.shared.lock().leave(port, id);
        let ask = Ask::Detach {
            port,
            id: id.to_owned(),
        };
        self.ask(&ask).await;
        self.shared.lock().leaving.remove(id);
    }

    /// What the replicas know of a port.
    pub async fn look(&self, port: u16) -> Vec<Tell> {
        self.ask(&Ask::Look { port }).await
    }

    /// Which of these sessions have a tunnel to the relay. `None` where a replica is not asked or does
    /// not say it, so that nobody knows of the others.
    pub async fn live(&self, sessions: &[SessionId]) -> Option<HashSet<SessionId>> {
        let replicas = self.shared.replicas.borrow().names.len();
        let ask = Ask::Live {
            sessions: sessions.to_vec(),
        };
        let answers = self.ask(&ask).await;
        if answers.len() < replicas.max(1) {
            return None;
        }
        let mut live = HashSet::new();
        for answer in answers {
            let Tell::Live { sessions } = answer else {
                return None;
            };
            live.extend(sessions);
        }
        Some(live)
    }

    /// Ends somebody else's claim, in the name of `by`.
    pub async fn oust(&self, port: u16, id: &str, by: &str) {
        let ask = Ask::Oust {
            port,
            id: id.to_owned(),
            by: by.to_owned(),
        };
        self.ask(&ask).await;
    }

    /// Asks whoever is still connected to a port to move: its Service leads to its own pods again.
    pub async fn retire(&self, port: u16) {
        self.ask(&Ask::Retire { port }).await;
    }

    /// Ends all claims at once, lets the streams of callers end, and closes the tunnels, all within
    /// `limit`.
    pub async fn close(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.shared.keepers.kill();
        self.shared.lock().closed = true;
        // A replica that is silent must not take the time that the others need to end in order.
        let _ = timeout(limit / 2, self.ask(&Ask::Bye)).await;
        let lines = std::mem::take(&mut self.shared.lock().lines);
        // Each tunnel ends its control stream when nobody can ask any more.
        drop(lines);
        let left = deadline.saturating_duration_since(Instant::now());
        self.shared.tasks.shutdown(left).await;
    }

    /// The answers of all replicas; one that is gone or says nothing gives none.
    async fn ask(&self, ask: &Ask) -> Vec<Tell> {
        let lines = self.shared.lock().lines.clone();
        let answers = lines.into_iter().map(|line| async move {
            let (give, answer) = oneshot::channel();
            let asked = async {
                line.asks.send((ask.clone(), give)).await.ok()?;
                answer.await.ok()
            };
            timeout(ANSWER, asked).await.ok().flatten()
        });
        join_all(answers).await.into_iter().flatten().collect()
    }
}

impl Shared {
    /// Whether each replica that can have a tunnel has one.
    fn look(&self, replicas: &Replicas) -> Result<bool, Trouble> {
        if let Some(none) = &replicas.none {
            return Err(none.clone());
        }
        let state = self.lock();
        let mut troubles = Vec::new();
        for name in replicas.names.iter().filter(|name| !state.has(name)) {
            match state.troubles.get(name) {
                Some(trouble) => troubles.push(trouble),
                None => return Ok(false),
            }
        }
        let lasting = troubles.iter().all(|trouble| !trouble.passing);
        match troubles.first() {
            Some(trouble) if state.lines.is_empty() && lasting => Err((*trouble).clone()),
            _ => Ok(!state.lines.is_empty()),
        }
    }

    /// Whether each replica has a tunnel, or has failed to get one.
    fn is_tried(&self) -> bool {
        let (replicas, state) = (self.replicas.borrow(), self.lock());
        replicas
            .names
            .iter()
            .all(|name| state.has(name) || state.troubles.contains_key(name))
    }

    /// The last failure with any replica.
    fn trouble(&self) -> Option<DialError> {
        let state = self.lock();
        let trouble = state.troubles.values().next();
        trouble.map(|trouble| trouble.error.clone())
    }

    fn tell(&self, event: Event) {
        // Whoever shows them and does not keep up misses some; nothing waits for a terminal.
        let _ = self.events.try_send(event);
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a replica has a tunnel.
    fn has(&self, replica: &Arc<str>) -> bool {
        self.lines.iter().any(|line| line.replica == *replica)
    }

    /// A claim stands, in the place of one with the same id, which is given.
    fn stand(&mut self, standing: Standing) -> Option<Arc<Standing>> {
        let id = &standing.claim.id;
        self.left.retain(|(_, left)| left != id);
        self.standing.insert(id.clone(), Arc::new(standing))
    }

    /// A claim is not registered any more.
    fn leave(&mut self, port: u16, id: &str) {
        if let Some(standing) = self.standing.remove(id) {
            self.leaving.insert(id.to_owned(), standing);
        }
        self.left.retain(|(_, left)| left != id);
        if self.left.len() >= MOST_LEFT {
            self.left.pop_front();
        }
        self.left.push_back((port, id.to_owned()));
    }

    /// The claim that a stream is for.
    fn of(&self, id: &str) -> Option<&Arc<Standing>> {
        self.standing.get(id).or_else(|| self.leaving.get(id))
    }
}
