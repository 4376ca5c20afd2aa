//! API servers that have just started: they answer before they have read their roles, and until
//! then they forbid what they will allow.
//!
//! Behind a load balancer that looks at `/readyz` nobody sees that; kdev talks to the server itself
//! as often as not. So a 403 counts as an answer only where the server was not away a moment ago,
//! or where it has admitted something since.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;

/// How long a server may take to read its roles from when it answers at all: most need less than a
/// second, those on a busy machine several. Who really may not waits no longer than this.
const READS_ROLES_WITHIN: Duration = Duration::from_secs(10);

/// When the API server was last away, and when it last admitted a request.
#[derive(Debug, Default)]
pub(super) struct Starting {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    away: Option<Instant>,
    admitted: Option<Instant>,
}

impl Starting {
    /// The API server could not be reached.
    pub(super) fn away(&self) {
        self.seen().away = Some(Instant::now());
    }

    /// It answered a request for `path` with `status`.
    pub(super) fn answered(&self, path: &str, status: StatusCode) {
        if matches!(status.as_u16(), 502..=504) {
            // What stands before it cannot reach it.
            self.away();
        } else if path.contains("/namespaces/") && !refuses(status) {
            // Whether there is such an object is told only to those who may know. What is not in a
            // namespace says little: discovery is allowed by other roles than the user's.
            self.seen().admitted = Some(Instant::now());
        }
    }

    /// Whether a 403 to a request that was sent at `sent` may be the answer of a server that does
    /// not know its roles yet.
    pub(super) fn explains(&self, sent: Instant) -> bool {
        let seen = self.seen();
        let Some(away) = seen.away else {
            return false;
        };
        let admitted = seen.admitted.is_some_and(|at| at > away && at <= sent);
        away.elapsed() < READS_ROLES_WITHIN && !admitted
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `status` says nothing of what the user may do, or that it is not allowed.
fn refuses(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 401 | 403 | 429)
}
