//! Who gets what arrives on the fixed range.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tunnel::{Opener, SessionId};

/// The reverse tunnels of all sessions, and the ports that they attached. A port belongs to the
/// session, whichever of its tunnels asked, until its last tunnel ends.
#[derive(Clone)]
pub(super) struct Sessions {
    state: Arc<Mutex<State>>,
    /// The ports that there are.
    range: Range<u16>,
}

#[derive(Default)]
struct State {
    next: u64,
    tunnels: HashMap<SessionId, Vec<(u64, Opener)>>,
    ports: HashMap<u16, SessionId>,
}

/// A reverse tunnel of a session, which leaves when dropped.
pub(super) struct Joined {
    sessions: Sessions,
    session: SessionId,
    number: u64,
}

impl Sessions {
    /// Nobody has anything yet. `range` are the ports that there are.
    #[must_use]
    pub(super) fn new(range: Range<u16>) -> Self {
        Self {
            state: Arc::default(),
            range,
        }
    }

    /// A reverse tunnel of `session` is open.
    #[must_use]
    pub(super) fn join(&self, session: SessionId, opener: Opener) -> Joined {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        let tunnels = state.tunnels.entry(session).or_default();
        tunnels.push((number, opener));
        Joined {
            sessions: self.clone(),
            session,
            number,
        }
    }

    /// The least busy tunnel to the session that has the port, if one has.
    #[must_use]
    pub(super) fn of_port(&self, port: u16) -> Option<Opener> {
        let state = self.lock();
        let tunnels = state.tunnels.get(state.ports.get(&port)?)?;
        let least = tunnels.iter().min_by_key(|(_, opener)| opener.streams());
        least.map(|(_, opener)| opener.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Joined {
    /// Gives the session what arrives on `port`.
    ///
    /// # Errors
    /// When another session has it or there is no such port, for people.
    pub(super) fn attach(&self, port: u16) -> Result<(), String> {
        if !self.sessions.range.contains(&port) {
            return Err(format!("port {port} is none of the relay's listeners"));
        }
        let mut state = self.sessions.lock();
        let owner = *state.ports.entry(port).or_insert(self.session);
        if owner == self.session {
            return Ok(());
        }
        Err(format!("port {port} belongs to session {owner}"))
    }

    /// Gives the original pods what arrives on `port` again, where this session had it.
    pub(super) fn detach(&self, port: u16) {
        let mut state = self.sessions.lock();
        if state.ports.get(&port) == Some(&self.session) {
            state.ports.remove(&port);
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut state = self.sessions.lock();
        let State { tunnels, ports, .. } = &mut *state;
        let Some(own) = tunnels.get_mut(&self.session) else {
            return;
        };
        own.retain(|(number, _)| *number != self.number);
        if own.is_empty() {
            tunnels.remove(&self.session);
            ports.retain(|_, owner| *owner != self.session);
        }
    }
}
