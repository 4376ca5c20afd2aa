//! Who claims what of the fixed range: registered by sessions, kept while they are away for a
//! while, ended by them or by somebody else.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tracing::warn;

use super::fallback::Fallback;
use super::ports::{Entry, Port};
use super::sessions::Session;
use super::settings::BLOCK;
use crate::rule::control::{Ask, Tell};
use crate::rule::{Claim, MOST_CLAIMS, Verdict, room};
use crate::tunnel::{Opener, SessionId};

/// Claims on all ports together: some megabytes.
const MOST_OF_ALL: usize = 4096;
/// Bytes that the regular expressions of all claims take together.
const MOST_OF_PATTERNS: usize = 8 << 20;
/// Claims that somebody else ended, which are remembered for owners who were away.
const MOST_OUSTED: usize = 1024;

/// All claims. Cheap to clone.
#[derive(Clone)]
pub(super) struct Claims {
    state: Arc<Mutex<State>>,
    ports: Arc<[Arc<Port>]>,
    range: Range<u16>,
}

#[derive(Default)]
struct State {
    next: u64,
    sessions: HashMap<SessionId, Arc<Session>>,
    /// By port.
    claims: HashMap<u16, Vec<Arc<Entry>>>,
    ousted: VecDeque<Ousted>,
}

/// A claim that somebody else ended.
struct Ousted {
    session: SessionId,
    port: u16,
    id: String,
    by: String,
}

/// A reverse tunnel of a session, which leaves when dropped.
pub(super) struct Joined {
    claims: Claims,
    session: Arc<Session>,
    number: u64,
    silent: bool,
}

impl Claims {
    /// Nobody has anything yet. `range` are the ports that there are.
    #[must_use]
    pub(super) fn new(range: Range<u16>) -> Self {
        Self {
            state: Arc::default(),
            ports: range
                .clone()
                .map(|port| Arc::new(Port::new(port)))
                .collect(),
            range,
        }
    }

    /// A port of the range.
    pub(super) fn port(&self, port: u16) -> Option<&Arc<Port>> {
        let place = port.checked_sub(self.range.start)?;
        self.ports.get(usize::from(place))
    }

    /// A reverse tunnel of `session` is open. What it is to tell comes out of the result.
    #[must_use]
    pub(super) fn join(&self, id: SessionId, opener: Opener) -> (Joined, mpsc::Receiver<Tell>) {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        let session = state.sessions.entry(id);
        let session = session
            .or_insert_with(|| Arc::new(Session::new(id)))
            .clone();
        let tells = session.up(number, opener);
        let joined = Joined {
            claims: self.clone(),
            session,
            number,
            silent: false,
        };
        (joined, tells)
    }

    /// Ends the claims of sessions that have been away for too long.
    pub(super) fn sweep(&self) {
        let mut state = self.lock();
        let gone = |entry: &Entry| entry.session.is_gone();
        state.remove(&self.ports, gone);
        state.forget();
    }

    /// Somebody else wanted to be the session `id`: its owner is told, where it is here.
    pub(super) fn intruded(&self, id: SessionId) {
        let session = self.lock().sessions.get(&id).cloned();
        if let Some(attempts) = session.and_then(|session| session.intruded()) {
            warn!(session = %id, attempts, "somebody else wants to be this session");
        }
    }

    /// Tells all who have claims on the Service that its pods cannot be reached on `port`.
    pub(super) fn unreached(&self, port: u16) {
        if !self.port(port).is_some_and(|port| port.may_tell()) {
            return;
        }
        let state = self.lock();
        let entries = self
            .block(port)
            .filter_map(|port| state.claims.get(&port))
            .flatten();
        let mut told = Vec::new();
        for entry in entries {
            if !told.contains(&entry.session.id) {
                told.push(entry.session.id);
                entry.session.tell(&Tell::Unreached { port });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports that one Service has, `port` among them.
    fn block(&self, port: u16) -> Range<u16> {
        let first = port - (port - self.range.start) % BLOCK;
        first..first + BLOCK
    }
}

impl State {
    /// Removes claims, and says which they were.
    fn remove(
        &mut self,
        ports: &[Arc<Port>],
        mut which: impl FnMut(&Entry) -> bool,
    ) -> Vec<Arc<Entry>> {
        let mut removed = Vec::new();
        for port in ports {
            let Some(claims) = self.claims.get_mut(&port.number) else {
                continue;
            };
            let before = claims.len();
            removed.extend(claims.extract_if(.., |entry| which(entry)));
            if claims.len() != before {
                port.set(claims);
            }
            if claims.is_empty() {
                self.claims.remove(&port.number);
            }
        }
        removed
    }

    /// Drops sessions that have neither tunnels nor claims.
    fn forget(&mut self) {
        let Self {
            sessions, claims, ..
        } = self;
        sessions.retain(|id, session| {
            session.is_live()
                || claims
                    .values()
                    .flatten()
                    .any(|entry| entry.session.id == *id)
        });
    }

    /// Tells the owner, now or when it is back, that somebody ended its claim.
    fn oust(&mut self, port: u16, entry: &Entry, by: &str) {
        let (id, by) = (entry.claim.id.clone(), by.to_owned());
        entry.session.tell(&Tell::Ousted {
            port,
            id: id.clone(),
            by: by.clone(),
        });
        if self.ousted.len() >= MOST_OUSTED {
            self.ousted.pop_front();
        }
        let session = entry.session.id;
        self.ousted.push_back(Ousted {
            session,
            port,
            id,
            by,
        });
    }
}

impl Joined {
    /// The tunnel ended because nothing was heard: whoever waited for it has waited long enough.
    pub(super) fn was_silent(&mut self) {
        self.silent = true;
    }

    /// Does what kdev asks, and says what came of it.
    pub(super) fn obey(&self, ask: Ask) -> Tell {
        let refused = |port: u16, id: String, reason: String| Tell::Refused { port, id, reason };
        match ask {
            Ask::Attach {
                port,
                claim,
                over,
                log,
            } => {
                let id = claim.id.clone();
                match self.attach(port, *claim, over.as_deref(), log) {
                    Ok(()) => Tell::Attached { port, id },
                    Err(reason) => refused(port, id, reason),
                }
            }
            Ask::Detach { port, id } => {
                let own =
                    |entry: &Entry| entry.session.id == self.session.id && entry.claim.id == id;
                self.remove(port, own);
                Tell::Detached { port, id }
            }
            Ask::Oust { port, id, by } => {
                let removed = self.remove(port, |entry| entry.claim.id == id);
                let mut state = self.claims.lock();
                for entry in &removed {
                    if entry.session.id != self.session.id {
                        state.oust(port, entry, &by);
                    }
                }
                Tell::Detached { port, id }
            }
            Ask::Look { port } => self.look(port),
            Ask::Retire { port } => match self.retire(port) {
                Ok(open) => Tell::Retired { port, open },
                Err(reason) => refused(port, String::new(), reason),
            },
            Ask::Live { mut sessions } => {
                let state = self.claims.lock();
                let lives = |id: &SessionId| state.sessions.get(id).is_some_and(|s| s.is_live());
                sessions.retain(lives);
                Tell::Live { sessions }
            }
            Ask::Bye => {
                let mut state = self.claims.lock();
                let own = |entry: &Entry| entry.session.id == self.session.id;
                state.remove(&self.claims.ports, own);
                Tell::Bye
            }
        }
    }

    fn attach(
        &self,
        number: u16,
        claim: Claim,
        over: Option<&str>,
        log: bool,
    ) -> Result<(), String> {
        claim.check().map_err(|invalid| invalid.to_string())?;
        let port = self.port(number)?;
        if claim.session != self.session.id {
            return Err(format!(
                "claim {} is of session {}",
                claim.id, claim.session
            ));
        }
        self.claims.sweep();
        let mut state = self.claims.lock();
        let was_ousted =
            |one: &Ousted| one.session == claim.session && one.port == number && one.id == claim.id;
        match (state.ousted.iter().position(was_ousted), over) {
            (Some(at), None) => return Err(format!("it was ended by {}", state.ousted[at].by)),
            (Some(at), Some(_)) => drop(state.ousted.remove(at)),
            (None, _) => {}
        }
        let there = state.claims.get(&number).map_or(&[][..], Vec::as_slice);
        let mut in_its_way = Vec::new();
        for entry in there {
            if entry.claim.id == claim.id {
                let own = entry.session.id == self.session.id;
                // Ids are no secret either: whoever the record in the cluster is of insists on it.
                if !own && over.is_none() {
                    return Err(format!("claim {} is another session's", claim.id));
                }
                if own && entry.claim == claim {
                    entry.tell_fallbacks();
                    port.retire(false);
                    return Ok(());
                }
                in_its_way.push((entry.clone(), !own));
            } else if claim.verdict(&entry.claim) == Verdict::Conflicts {
                // One's own ghost needs no permission to be cleaned up.
                let ghost = entry.claim.owner == claim.owner && !entry.session.is_live();
                if over.is_none() && !ghost {
                    return Err(refusal(entry));
                }
                in_its_way.push((entry.clone(), !ghost));
            }
        }
        let block = self.claims.block(number);
        let of_block = block
            .filter_map(|port| state.claims.get(&port))
            .map(Vec::len);
        let of_all = state.claims.values().map(Vec::len).sum::<usize>();
        let in_block = of_block.sum::<usize>();
        if in_block - in_its_way.len() >= MOST_CLAIMS {
            return Err(format!(
                "there are {in_block} claims on the Service, as many as can be"
            ));
        }
        if of_all - in_its_way.len() >= MOST_OF_ALL {
            return Err(format!(
                "the relay has {of_all} claims, as many as it takes"
            ));
        }
        let goes = |entry: &Arc<Entry>| in_its_way.iter().any(|(gone, _)| Arc::ptr_eq(gone, entry));
        let stay = there.iter().filter(|entry| !goes(entry));
        room(&claim, stay.map(|entry| &entry.claim)).map_err(|invalid| invalid.to_string())?;
        let patterns = claim.conditions.memory();
        if patterns > 0 {
            let others = state.claims.values().flatten();
            let others = others.filter(|entry| !goes(entry));
            let others: usize = others.map(|entry| entry.claim.conditions.memory()).sum();
            if others + patterns > MOST_OF_PATTERNS {
                return Err(format!(
                    "the regular expressions of all claims would take more than the {} MiB that \
                     the relay has for them",
                    MOST_OF_PATTERNS >> 20
                ));
            }
        }
        for (entry, tell) in &in_its_way {
            if *tell {
                state.oust(number, entry, over.unwrap_or(&claim.owner));
            }
        }
        let entry = Arc::new(Entry::new(claim, self.session.clone(), port, log));
        // Who claims it again had it before, when it was not known here.
        if over.is_none() && port.unclaimed() > 0 {
            entry.untold.add(Fallback::Started, port.unclaimed());
            entry.tell_fallbacks();
        }
        let claims = state.claims.entry(number).or_default();
        claims.retain(|one| !in_its_way.iter().any(|(gone, _)| Arc::ptr_eq(gone, one)));
        claims.push(entry);
        port.set(claims);
        port.retire(false);
        Ok(())
    }

    fn look(&self, number: u16) -> Tell {
        self.claims.sweep();
        let port = match self.port(number) {
            Ok(port) => port,
            Err(reason) => {
                return Tell::Refused {
                    port: number,
                    id: String::new(),
                    reason,
                };
            }
        };
        let state = self.claims.lock();
        let claims = state.claims.get(&number).map_or(&[][..], Vec::as_slice);
        let (accepted, ago, open) = port.counts();
        Tell::Seen {
            port: number,
            accepted,
            ago,
            open,
            claims: claims.iter().map(|entry| entry.seen(port)).collect(),
        }
    }

    fn retire(&self, number: u16) -> Result<u64, String> {
        let port = self.port(number)?;
        let state = self.claims.lock();
        let mut claims = state.claims.get(&number).into_iter().flatten();
        if let Some(entry) = claims.find(|entry| entry.session.is_live()) {
            return Err(refusal(entry));
        }
        drop(state);
        self.remove(number, |_| true);
        port.retire(true);
        Ok(port.counts().2)
    }

    fn remove(&self, number: u16, which: impl FnMut(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let port = self.claims.port(number).map(std::slice::from_ref);
        self.claims.lock().remove(port.unwrap_or_default(), which)
    }

    fn port(&self, number: u16) -> Result<&Arc<Port>, String> {
        let port = self.claims.port(number);
        port.ok_or_else(|| format!("port {number} is none of the relay's listeners"))
    }
}

/// Why something cannot be, for this claim.
fn refusal(entry: &Entry) -> String {
    let (claim, live) = (&entry.claim, entry.session.is_live());
    let live = if live { "" } else { ", silent now" };
    format!(
        "{} has {} (claim {}{live})",
        claim.owner, claim.conditions, claim.id
    )
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.session.down(self.number, self.silent);
        self.claims.lock().forget();
    }
}
