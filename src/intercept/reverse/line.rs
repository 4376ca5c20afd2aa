//! One reverse tunnel: its control stream, and the streams of callers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{ASKS, Asked, BrokeOff, Event, Fallback, Line, Served, Shared, serve};
use crate::io::Io;
use crate::rule::control::{Ask, Tell};
use crate::task::Tasks;
use crate::tunnel::control::{Reader, write};
use crate::tunnel::{Incoming, Listener, Protocol, Stream};

/// How long the relay may take until it opens the control stream: it is the first thing it does.
const CONTROL: Duration = Duration::from_secs(5);

/// Serves a tunnel until it ends.
pub(super) async fn run<T: Io>(shared: Arc<Shared>, replica: Arc<str>, mut listener: Listener<T>) {
    let streams = shared.tasks.child();
    let control = match timeout(CONTROL, listener.next()).await {
        Ok(Some(incoming)) if incoming.protocol == Protocol::Control => incoming,
        _ => {
            tracing::debug!(%replica, "a reverse tunnel without a control stream");
            return;
        }
    };
    let Ok(control) = control.accept() else {
        return;
    };
    let mut draining = std::pin::pin!(shared.tasks.draining());
    let mut conversing = std::pin::pin!(converse(&shared, &replica, control));
    let (mut conversed, mut drained) = (false, false);
    loop {
        tokio::select! {
            incoming = listener.next() => match incoming {
                Some(incoming) => take(&shared, &streams, incoming),
                None => break,
            },
            result = &mut conversing, if !conversed => {
                conversed = true;
                if let Err(error) = result {
                    tracing::debug!(%replica, %error, "the control stream broke");
                    break;
                }
                // The relay brings no more callers here; those that are there may go on.
            }
            () = &mut draining, if !drained => {
                drained = true;
                listener.drain();
            }
        }
    }
    tracing::debug!(%replica, why = %listener.ended(), "reverse tunnel closed");
    streams.kill();
}

fn take(shared: &Arc<Shared>, streams: &Tasks, incoming: Incoming) {
    let id = incoming.caller.claim.clone().unwrap_or_default();
    let standing = shared.lock().of(&id).cloned();
    match standing {
        Some(standing) => streams.spawn(serve::serve(shared.clone(), standing, incoming)),
        None => serve::refuse_unknown(incoming),
    }
}

/// A tunnel as it stands among those that can be asked, which it leaves when dropped.
struct Entry {
    shared: Arc<Shared>,
    number: u64,
}

impl Entry {
    /// Enters it, in the place of an older one to the same replica, and gives what is to be said in
    /// it first: which claims stand, and which do not any more.
    fn new(
        shared: &Arc<Shared>,
        replica: &Arc<str>,
    ) -> (Self, mpsc::Receiver<Asked>, Vec<(Ask, Waits)>) {
        let (asks, asked) = mpsc::channel(ASKS);
        let mut state = shared.lock();
        if state.closed {
            drop(state);
            let shared = shared.clone();
            return (
                Self { shared, number: 0 },
                asked,
                vec![(Ask::Bye, Waits::Nobody)],
            );
        }
        state.next += 1;
        let (number, first) = (state.next, state.lines.is_empty());
        state.troubles.remove(replica);
        state.lines.retain(|line| line.replica != *replica);
        state.lines.push(Line {
            number,
            replica: replica.clone(),
            asks,
        });
        let stand = state.standing.values().map(|standing| {
            let ask = Ask::Attach {
                port: standing.port,
                claim: Box::new(standing.claim.clone()),
                over: None,
                log: standing.log,
            };
            (ask, Waits::Claim(standing.claim.id.clone()))
        });
        let left = state.left.iter().cloned();
        let left = left.map(|(port, id)| (Ask::Detach { port, id }, Waits::Nobody));
        let first_asks = left.chain(stand).collect();
        drop(state);
        if first && number > 1 {
            shared.tell(Event::Back);
        }
        let entry = Self {
            shared: shared.clone(),
            number,
        };
        (entry, asked, first_asks)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let before = state.lines.len();
        state.lines.retain(|line| line.number != self.number);
        let last = before > 0 && state.lines.is_empty();
        drop(state);
        if last && !self.shared.tasks.is_draining() {
            self.shared.tell(Event::Away);
        }
        self.shared.changed();
    }
}

/// Who waits for the answer to an ask.
enum Waits {
    /// Whoever asked.
    Asker(oneshot::Sender<Tell>),
    /// Nobody but the owner of this claim, which was registered before.
    Claim(String),
    /// Nobody at all.
    Nobody,
}

/// Registers the claims that stand, then asks what is to be asked, until nobody can ask any more.
async fn converse(shared: &Arc<Shared>, replica: &Arc<str>, stream: Stream) -> io::Result<()> {
    let (entry, mut asks, first) = Entry::new(shared, replica);
    let mut entry = Some(entry);
    let (from, mut to) = tokio::io::split(stream);
    let mut tells = Reader::new(from);
    // In the order of the asks.
    let mut waiting = VecDeque::new();
    for (ask, waits) in first {
        waiting.push_back(waits);
        write(&mut to, &ask).await?;
    }
    shared.changed();
    loop {
        tokio::select! {
            asked = asks.recv(), if entry.is_some() => {
                let Some((ask, answer)) = asked else {
                    // In order, and the relay ends it: it cuts callers off where this stream breaks.
                    entry = None;
                    to.shutdown().await?;
                    continue;
                };
                waiting.push_back(Waits::Asker(answer));
                write(&mut to, &ask).await?;
            }
            tell = tells.next::<Tell>() => match tell {
                Ok(Some(tell)) => hear(shared, &mut waiting, tell),
                // However the relay ends it, once this side has.
                Ok(None) | Err(_) if entry.is_none() => return Ok(()),
                Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Err(error),
            },
        }
    }
}

/// Passes on what the relay tells.
fn hear(shared: &Shared, waiting: &mut VecDeque<Waits>, tell: Tell) {
    match tell {
        Tell::Served {
            id,
            method,
            path,
            status,
            took,
            why,
        } => shared.tell(Event::Served(Served {
            id,
            method,
            path,
            status,
            took: Duration::from_micros(took),
            why,
        })),
        Tell::BrokeOff {
            id,
            method,
            path,
            status,
            sent,
            why,
            took,
        } => shared.tell(Event::BrokeOff(BrokeOff {
            id,
            method,
            path,
            status,
            sent,
            why,
            took: Duration::from_micros(took),
        })),
        Tell::Ousted { id, by, .. } => {
            // Each replica says it.
            let known = shared.lock().standing.remove(&id).is_some();
            if known {
                shared.tell(Event::Ousted { id, by });
            }
        }
        Tell::Fallback {
            id,
            reason,
            times,
            unread,
        } => shared.tell(Event::Fallback(Fallback {
            id,
            reason,
            times,
            unread,
        })),
        Tell::Unreached { port } => shared.tell(Event::Unreached { port }),
        Tell::Intruded { attempts } => shared.tell(Event::Intruded { attempts }),
        // A newer relay says what this kdev has not asked for.
        Tell::Other => {}
        tell => match (waiting.pop_front(), tell) {
            // Whoever asked may have given up.
            (Some(Waits::Asker(answer)), tell) => drop(answer.send(tell)),
            (Some(Waits::Claim(id)), Tell::Refused { reason, .. } | Tell::Unknown { reason }) => {
                shared.tell(Event::Refused { id, reason });
            }
            _ => {}
        },
    }
}
