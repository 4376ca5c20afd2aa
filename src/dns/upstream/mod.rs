//! Questions that are not the cluster's go to the laptop's resolvers, byte for byte but for the
//! id, which is ours and random, as the port is: who cannot read it cannot answer for them.

mod conf;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

pub use self::conf::{Resolvers, Source};
use super::message::{self, HEADER, MAX_TCP, Transport};

/// Longest wait for one resolver, whatever `resolv.conf` says: the client behind asks again, or
/// gives up, after 5 s, and another resolver shall have had its turn by then.
const MAX_PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for all of them.
const RELAY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a resolver that did not answer is asked last.
const SHUNNED: Duration = Duration::from_secs(30);
/// How long it is known where a resolver on this machine leads, once that matters: users start
/// kdev first and point their resolver at it then.
const PROVEN: Duration = Duration::from_secs(10);
/// Most resolvers about which something is remembered: more than a laptop has networks in a day.
const MAX_KNOWN: usize = 64;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    #[error("all of the system's resolvers lead back here")]
    Loop,
    #[error("none of the system's resolvers answered: {0}")]
    Silent(String),
}

/// The laptop's resolvers.
#[derive(Debug)]
pub(super) struct Upstreams {
    source: Source,
    /// Where this server listens: a resolver of that address is ourselves.
    own: SocketAddr,
    turn: AtomicUsize,
    servers: Mutex<HashMap<SocketAddr, Server>>,
}

/// What is known about a resolver.
#[derive(Clone, Copy, Debug, Default)]
struct Server {
    silent: Option<Instant>,
    /// Whether it leads back here, and when that was found out.
    loops: Option<(bool, Instant)>,
    /// It failed since, as it would if it led back here.
    doubtful: bool,
}

impl Server {
    fn leads_back(&self) -> bool {
        self.loops.is_some_and(|(loops, _)| loops)
    }

    /// Whether it has to be found out, again, where it leads: its settings may have changed.
    fn is_unproven(&self) -> bool {
        let failing = self.leads_back() || self.doubtful;
        let good = |at: Instant| !failing || at.elapsed() < PROVEN;
        !self.loops.is_some_and(|(_, at)| good(at))
    }
}

thread_local! {
    /// Where answers are read into before their size is known: one per thread, not per question.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_TCP].into());
}

impl Upstreams {
    pub(super) fn new(source: Source, own: SocketAddr) -> Self {
        Self {
            source,
            own,
            turn: AtomicUsize::default(),
            servers: Mutex::default(),
        }
    }

    /// Relays `request`, whose question section ends at `end`, and gives the answer under the
    /// request's id. What came over TCP goes over TCP.
    pub(super) async fn relay(
        &self,
        request: &[u8],
        end: usize,
        transport: Transport,
    ) -> Result<Vec<u8>, RelayError> {
        let relaying = self.relay_to_all(request, end, transport);
        match tokio::time::timeout(RELAY_TIMEOUT, relaying).await {
            Ok(answer) => answer,
            Err(_) => Err(RelayError::Silent("in time".to_owned())),
        }
    }

    async fn relay_to_all(
        &self,
        request: &[u8],
        end: usize,
        transport: Transport,
    ) -> Result<Vec<u8>, RelayError> {
        let resolvers = self.source.resolvers();
        let servers = self.order(&resolvers);
        if servers.is_empty() {
            return Err(RelayError::Loop);
        }
        let patience = resolvers.timeout.min(MAX_PATIENCE);
        let mut refusal = None;
        let mut failure = String::new();
        for _ in 0..resolvers.attempts {
            for server in &servers {
                let asked = ask(*server, request, end, transport);
                match tokio::time::timeout(patience, asked).await {
                    Ok(Ok(answer)) => {
                        let failed = message::is_failure(&answer);
                        self.heard(*server, failed);
                        if !failed {
                            return Ok(answer);
                        }
                        refusal.get_or_insert(answer);
                    }
                    Ok(Err(error)) => {
                        failure = format!("{server}: {error}");
                        self.missed(*server);
                    }
                    Err(_) => {
                        failure = format!("{server}: nothing within {} s", patience.as_secs());
                        self.missed(*server);
                    }
                }
            }
            // Who was refused by those that answer is not helped by asking them again.
            if let Some(refusal) = refusal {
                return Ok(refusal);
            }
        }
        Err(RelayError::Silent(failure))
    }

    /// Asks for the records of one name, for the target of an alias.
    pub(super) async fn lookup(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Message, RelayError> {
        let broken = |e: &dyn std::fmt::Display| RelayError::Silent(e.to_string());
        let request = message::query(name, kind).map_err(|e| broken(&e))?;
        let end = request.len();
        let mut answer = self.relay(&request, end, Transport::Udp).await?;
        if message::is_truncated(&answer) {
            answer = self.relay(&request, end, Transport::Tcp).await?;
        }
        Message::from_vec(&answer).map_err(|e| broken(&e))
    }

    /// The resolvers in the order of this question: those that were silent a moment ago last,
    /// those that are ourselves not at all.
    fn order(&self, resolvers: &Resolvers) -> Vec<SocketAddr> {
        let mut servers = resolvers.servers.clone();
        if resolvers.rotate {
            let first = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len().max(1);
            servers.rotate_left(first);
        }
        let known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |server: &SocketAddr| known.get(server).copied().unwrap_or_default();
        servers.retain(|s| !self.is_own(*s) && !state(s).leads_back());
        servers.sort_by_key(|s| state(s).silent.is_some_and(|at| at.elapsed() < SHUNNED));
        servers
    }

    fn is_own(&self, server: SocketAddr) -> bool {
        server.port() == self.own.port()
            && (server.ip().to_canonical() == self.own.ip().to_canonical()
                || conf::is_local(server)
                    && conf::is_local(self.own)
                    && server.ip().is_unspecified())
    }

    fn heard(&self, server: SocketAddr, failed: bool) {
        self.note(server, |state| {
            state.silent = None;
            state.doubtful |= failed;
        });
    }

    fn missed(&self, server: SocketAddr) {
        self.note(server, |state| {
            state.silent = Some(Instant::now());
            state.doubtful = true;
        });
    }

    fn note(&self, server: SocketAddr, change: impl FnOnce(&mut Server)) {
        let mut known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        // Laptops move between networks: what was known about another one's is of no use.
        if known.len() >= MAX_KNOWN && !known.contains_key(&server) {
            known.clear();
        }
        change(known.entry(server).or_default());
    }

    /// A resolver on this machine about which it is not known whether it leads back here: only
    /// such a one can, since it alone reaches a server on loopback.
    pub(super) fn unproven(&self) -> Option<SocketAddr> {
        let resolvers = self.source.resolvers();
        let known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let unproven = |s: &&SocketAddr| {
            conf::is_local(**s) && !self.is_own(**s) && known.get(s).is_none_or(Server::is_unproven)
        };
        resolvers.servers.iter().find(unproven).copied()
    }

    /// Asks `server` for a name that nobody else asks for; `came_back` tells, once it answered or
    /// did not, whether the question came in here.
    pub(super) async fn prove(
        self: &Arc<Self>,
        server: SocketAddr,
        probe: &Name,
        came_back: impl FnOnce() -> bool,
    ) {
        if let Ok(request) = message::query(probe, RecordType::A) {
            let asked = ask(server, &request, request.len(), Transport::Udp);
            // Only where the question ends up matters, not what is answered.
            let _ = tokio::time::timeout(MAX_PATIENCE, asked).await;
        }
        let loops = came_back();
        if loops {
            tracing::warn!(
                %server,
                "this resolver asks kdev for everything, so kdev does not ask it; let it send \
                 only names of the cluster here"
            );
        }
        self.note(server, |state| {
            state.loops = Some((loops, Instant::now()));
            state.doubtful = false;
        });
    }
}

/// Asks one resolver.
async fn ask(
    server: SocketAddr,
    request: &[u8],
    end: usize,
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let mut sent = request.to_vec();
    sent[..2].copy_from_slice(&rand::random::<[u8; 2]>());
    let mut answer = match transport {
        Transport::Udp => ask_udp(server, &sent, end).await?,
        Transport::Tcp => ask_tcp(server, &sent, end).await?,
    };
    answer[..2].copy_from_slice(&request[..2]);
    Ok(answer)
}

async fn ask_udp(server: SocketAddr, sent: &[u8], end: usize) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket of its own for each question: the system chooses its port at random, and once it
    // is connected nobody else's answers arrive.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(sent).await?;
    loop {
        socket.readable().await?;
        let received = BUFFER.with_borrow_mut(|buffer| match socket.try_recv(buffer) {
            Ok(length) => Ok(Some(buffer[..length].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        })?;
        match received {
            Some(answer) if message::answers(&answer, sent, end) => return Ok(answer),
            Some(_) => tracing::debug!(%server, "an answer to another question"),
            None => {}
        }
    }
}

async fn ask_tcp(server: SocketAddr, sent: &[u8], end: usize) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut framed = Vec::with_capacity(2 + sent.len());
    let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
    framed.extend(length.to_be_bytes());
    framed.extend(sent);
    stream.write_all(&framed).await?;
    loop {
        let length = usize::from(stream.read_u16().await?);
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        if length >= HEADER && message::answers(&answer, sent, end) {
            return Ok(answer);
        }
    }
}
