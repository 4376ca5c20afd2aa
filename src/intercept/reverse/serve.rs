//! A stream of a caller, and the app that answers it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Event, Served, Shared, Standing};
use crate::addr::Target;
use crate::dial::{Dial as _, DialError, Laptop};
use crate::tunnel::{Incoming, Speaks, join};

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
            let (speaks, began) = (incoming.caller.speaks, Instant::now());
            // The relay has given up meanwhile.
            let Ok(stream) = incoming.accept() else {
                return;
            };
            let (_, result) = join(stream, socket).await;
            if let Err(error) = result {
                tracing::debug!(%error, claim = standing.claim.id, "a stream broke");
            }
            if speaks == Speaks::Any && standing.log {
                shared.tell(Event::Served(Served {
                    id: standing.claim.id.clone(),
                    method: String::new(),
                    path: String::new(),
                    status: 0,
                    took: began.elapsed(),
                }));
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
    incoming.refuse(&told(&error, &standing.app));
}

/// The failure in the relay's words, which knows the app as "it" and callers read.
fn told(error: &DialError, app: &Target) -> DialError {
    let target = String::new();
    match error {
        DialError::Refused { .. } => DialError::Refused {
            target,
            reason: format!("{app} on its owner's machine"),
        },
        error => DialError::Unreachable {
            target,
            reason: format!("on its owner's machine, {error}"),
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
