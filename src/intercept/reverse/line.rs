//! One reverse tunnel: its control stream, and the streams of callers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{ASKS, Asked, Event, Line, Served, Shared, Standing, serve};
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
    let standing = shared.lock().standing.get(&id).cloned();
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
    /// Enters it, in the place of an older one to the same replica, and gives what is to be
    /// registered in it.
    fn new(
        shared: &Arc<Shared>,
        replica: &Arc<str>,
    ) -> (Self, mpsc::Receiver<Asked>, Vec<Arc<Standing>>) {
        let (asks, asked) = mpsc::channel(ASKS);
        let mut state = shared.lock();
        state.next += 1;
        let (number, first) = (state.next, state.lines.is_empty());
        state.troubles.remove(replica);
        state.lines.retain(|line| line.replica != *replica);
        state.lines.push(Line {
            number,
            replica: replica.clone(),
            asks,
        });
        let standing = state.standing.values().cloned().collect();
        drop(state);
        if first && number > 1 {
            shared.tell(Event::Back);
        }
        let entry = Self {
            shared: shared.clone(),
            number,
        };
        (entry, asked, standing)
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

/// Registers the claims that stand, then asks what is to be asked, until nobody can ask any more.
async fn converse(shared: &Arc<Shared>, replica: &Arc<str>, stream: Stream) -> io::Result<()> {
    let (entry, mut asks, standing) = Entry::new(shared, replica);
    let (from, mut to) = tokio::io::split(stream);
    let mut tells = Reader::new(from);
    // Whoever waits for the answers, in the order of the asks; nobody for what is registered again.
    let mut waiting: VecDeque<Option<oneshot::Sender<Tell>>> = VecDeque::new();
    for standing in standing {
        let ask = Ask::Attach {
            port: standing.port,
            claim: Box::new(standing.claim.clone()),
            over: None,
            log: standing.log,
        };
        waiting.push_back(None);
        write(&mut to, &ask).await?;
    }
    shared.changed();
    loop {
        tokio::select! {
            asked = asks.recv() => {
                let Some((ask, answer)) = asked else {
                    drop(entry);
                    return Ok(());
                };
                waiting.push_back(Some(answer));
                write(&mut to, &ask).await?;
            }
            tell = tells.next::<Tell>() => match tell? {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(Tell::Served { id, method, path, status, took }) => {
                    let took = Duration::from_micros(took);
                    shared.tell(Event::Served(Served { id, method, path, status, took }));
                }
                Some(Tell::Ousted { id, by, .. }) => {
                    shared.lock().standing.remove(&id);
                    shared.tell(Event::Ousted { id, by });
                }
                // A newer relay says what this kdev has not asked for.
                Some(Tell::Other) => {}
                Some(tell) => match (waiting.pop_front().flatten(), tell) {
                    // Whoever asked may have given up.
                    (Some(answer), tell) => drop(answer.send(tell)),
                    (None, Tell::Refused { id, reason, .. }) => {
                        shared.tell(Event::Refused { id, reason });
                    }
                    (None, _) => {}
                },
            },
        }
    }
}
