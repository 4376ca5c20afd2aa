//! A stream of a caller, and the app that answers it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::counted::Counted;
use super::{Event, Shared, Standing};
use crate::dial::{Dial as _, DialError, Laptop};
use crate::tunnel::{Incoming, join};

/// How long the app may take to accept a connection: it is on this machine, or near.
const CONNECT: Duration = Duration::from_secs(5);

/// Joins a stream with the app of its claim.
pub(super) async fn serve(shared: Arc<Shared>, standing: Arc<Standing>, mut incoming: Incoming) {
    let dialled = tokio::select! {
        dialled = timeout(CONNECT, Laptop { loopback: true }.dial(&standing.app)) => dialled,
        () = incoming.abandoned() => return,
    };
    let error = match dialled {
        Ok(Ok(socket)) => {
            // The relay has given up meanwhile.
            let Ok(stream) = incoming.accept() else {
                return;
            };
            let app = Counted::new(socket, shared.traffic.clone());
            let (_, result) = join(stream, app).await;
            if let Err(error) = result {
                tracing::debug!(%error, claim = standing.claim.id, "a stream broke");
            }
            return;
        }
        Ok(Err(error)) => error,
        Err(_) => DialError::TimedOut {
            target: standing.app.to_string(),
            after: CONNECT,
        },
    };
    shared.tell(Event::AppDown {
        id: standing.claim.id.clone(),
        error: error.clone(),
    });
    incoming.refuse(&told(error));
}

/// What the caller is told. The relay names nobody but its own port, so that the app's address has
/// to be among the words.
fn told(error: DialError) -> DialError {
    match error {
        DialError::Refused { target, reason } => {
            let reason = match reason.is_empty() {
                true => format!("nothing listens on {target}"),
                false => format!("{target}: {reason}"),
            };
            DialError::Refused { target, reason }
        }
        DialError::Unreachable {
            target,
            reason,
            fix,
        } => DialError::Unreachable {
            reason: format!("{target}: {reason}"),
            target,
            fix,
        },
        other => DialError::Unreachable {
            target: String::new(),
            reason: other.to_string(),
            fix: String::new(),
        },
    }
}

/// A claim that has just ended, or one that the relay has of another session.
pub(super) fn refuse_unknown(incoming: Incoming) {
    let error = DialError::Refused {
        target: incoming.target.to_string(),
        reason: "this kdev has no such claim any more".to_owned(),
    };
    incoming.refuse(&error);
}
