//! API servers that have just started: they answer before they have read their roles, and until
//! then they forbid what they will allow.
//!
//! Behind a load balancer that looks at `/readyz` nobody sees that; kdev talks to the server itself
//! as often as not. So a 403 counts as an answer only where the server was not away a moment ago,
//! or where it has admitted something since.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};

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

    /// It answered a request for what is in a namespace, or is not, with `status`.
    pub(super) fn answered(&self, namespaced: bool, status: StatusCode) {
        if matches!(status.as_u16(), 502..=504) {
            // What stands before it cannot reach it.
            self.away();
        } else if namespaced && !refuses(status) {
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

/// Whether the API server itself says no: a container runtime that does not know a protocol answers
/// 403 too, as plain text.
pub(super) fn is_denial<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    response.status() == StatusCode::FORBIDDEN
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_doubted_from_an_outage_until_something_is_admitted() {
        let starting = Starting::default();
        let doubted = || starting.explains(Instant::now());
        assert!(!doubted());
        starting.answered(true, StatusCode::BAD_GATEWAY);
        assert!(
            doubted(),
            "what stands before the server could not reach it"
        );
        let asked_before = Instant::now();
        starting.answered(false, StatusCode::OK);
        starting.answered(true, StatusCode::FORBIDDEN);
        assert!(doubted(), "discovery and denials admit nothing");
        starting.answered(true, StatusCode::NOT_FOUND);
        assert!(!doubted());
        assert!(starting.explains(asked_before), "it was on its way by then");
        starting.away();
        assert!(doubted());
        let long_ago = Instant::now().checked_sub(READS_ROLES_WITHIN).unwrap();
        starting.seen().away = Some(long_ago);
        assert!(!doubted(), "nobody waits for ever");
    }

    #[test]
    fn only_the_servers_own_denial_is_one() {
        let answer = |code: u16, kind: &str| {
            let response = Response::builder().status(code).header(CONTENT_TYPE, kind);
            is_denial(&response.body(()).unwrap())
        };
        assert!(answer(403, "application/json"));
        assert!(!answer(403, "text/plain") && !answer(404, "application/json"));
    }
}
