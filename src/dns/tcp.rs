//! Questions by connection: two bytes of length, then the message (RFC 1035, 4.2.2).

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::message::{HEADER, MAX_TCP, Transport};
use super::zone::Zone;
use super::{MAX_CONNECTIONS, MAX_REQUEST, Server, Step};
use crate::dial::DialRelay;
use crate::io::accept;
use crate::io::user::may_resolve;

/// How long a connection may wait for its next question, all of it, and how long for a client to
/// take an answer (RFC 7766, 6.2.3, has it at a few seconds).
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn serve<Z: Zone, T: DialRelay>(server: Arc<Server<Z, T>>, listener: TcpListener) {
    let open = Arc::new(Open::default());
    loop {
        let (stream, peer) = accept(&listener).await;
        if server.is_here(peer) && !may_resolve(peer, server.address) {
            continue;
        }
        let Some(entry) = open.enter() else {
            continue;
        };
        let server = Arc::clone(&server);
        let tasks = server.tasks.clone();
        tasks.spawn(async move {
            let evicted = entry.evicted.clone();
            let draining = server.tasks.clone();
            tokio::select! {
                () = evicted.cancelled() => {}
                () = draining.draining() => {}
                result = connection(&server, stream, &entry) => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a connection broke");
                    }
                }
            }
        });
    }
}

/// Answers one question after the other until the client ends.
async fn connection<Z: Zone, T: DialRelay>(
    server: &Arc<Server<Z, T>>,
    mut stream: TcpStream,
    entry: &Entry,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = Vec::new();
    loop {
        entry.is_idle(true);
        let request = timely(read(&mut stream)).await?;
        let Some(request) = request else {
            return Ok(());
        };
        entry.is_idle(false);
        match server.at_once(&request, Transport::Tcp, &mut out) {
            Step::Answered => {}
            Step::Silence => return Ok(()),
            Step::Wait(question) => match server.place() {
                Some(_place) => out = server.in_time(&request, &question, Transport::Tcp).await,
                None => Server::<Z, T>::too_busy(&question, &request, Transport::Tcp, &mut out),
            },
        }
        timely(write(&mut stream, &mut out)).await?;
    }
}

/// The next message; `None` where the client ended, or sends what is none.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if !(HEADER..=MAX_REQUEST).contains(&length) {
        return Ok(None);
    }
    let mut request = vec![0; length];
    stream.read_exact(&mut request).await?;
    Ok(Some(request))
}

/// Length and message in one piece: some clients read them with one call.
async fn write(stream: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    out.truncate(MAX_TCP);
    let length = out.len() as u16;
    out.splice(0..0, length.to_be_bytes());
    stream.write_all(out).await
}

async fn timely<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(IDLE_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The connections that are open.
#[derive(Debug, Default)]
struct Open {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    open: HashMap<u64, (Option<Instant>, CancellationToken)>,
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
struct Entry {
    open: Arc<Open>,
    number: u64,
    evicted: CancellationToken,
}

impl Open {
    /// Takes a place for a new connection, if need be that of the one that waits longest for a
    /// question; `None` while all are being answered.
    fn enter(self: &Arc<Self>) -> Option<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.open.len() >= MAX_CONNECTIONS {
            let idle = entries.open.iter();
            let idle = idle.filter_map(|(number, (since, _))| Some((*number, (*since)?)));
            let (number, _) = idle.min_by_key(|(_, since)| *since)?;
            if let Some((_, evicted)) = entries.open.remove(&number) {
                evicted.cancel();
            }
        }
        let evicted = CancellationToken::new();
        entries.next += 1;
        let number = entries.next;
        let state = (Some(Instant::now()), evicted.clone());
        entries.open.insert(number, state);
        Some(Entry {
            open: Arc::clone(self),
            number,
            evicted,
        })
    }
}

impl Entry {
    /// Notes whether the connection waits for its client.
    fn is_idle(&self, idle: bool) {
        let entries = &self.open.entries;
        let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, _)) = entries.open.get_mut(&self.number) {
            *since = idle.then(Instant::now);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let entries = &self.open.entries;
        let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.open.remove(&self.number);
    }
}
