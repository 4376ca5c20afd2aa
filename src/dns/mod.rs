//! A DNS server for the laptop: names and addresses of the cluster are answered from what is
//! known of it, by the Kubernetes DNS specification, 1.1.0, and as CoreDNS does; everything else
//! goes to the laptop's own resolvers as it came, and nothing into the cluster.
//!
//! ```text
//! mod      Dns: sockets, limits, one question from its bytes to the answer's
//! udp      the datagrams        tcp      the connections       message  wire format, sizes
//! name     what a name asks for items    what it stands for    answer   its records
//! zone     the seam to the catalog
//! upstream the laptop's resolvers                              inside   the cluster's own DNS
//! ```
//!
//! Names work with and without the cluster's domain, as in a pod: `web`, `web.shop`,
//! `web.shop.svc`. Those that end like the cluster's own are never asked about elsewhere; of the
//! others only those that the cluster has are its. Names of domains that the user leaves to the
//! cluster are asked about in there and nowhere else.

mod answer;
mod inside;
mod items;
mod message;
mod name;
mod tcp;
mod udp;
mod upstream;
mod zone;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::inside::Inside;
pub use self::upstream::{Resolvers, Source};
pub use self::zone::{Endpoint, Found, Port, Service, Subject, Zone, dashed};
pub use crate::addr::{Protocol, undashed};

use self::answer::{Alias, Context, Outcome};
use self::message::{Incoming, Question, Reply, Transport};
use self::upstream::Upstreams;
use crate::dial::DialRelay;
use crate::task::Tasks;

/// Questions that wait for a resolver or for the cluster at a time, each with a socket and a
/// few KiB; more get an error at once. dnsmasq has 150.
pub const MAX_WAITING: usize = 256;
/// TCP connections at a time; for another one the most idle has to go. A laptop's programs use
/// TCP for the rare answer that is too long for UDP.
pub const MAX_CONNECTIONS: usize = 128;
/// Longest question that is read. Real ones have some tens of bytes.
const MAX_REQUEST: usize = 4096;
/// Most aliases one after the other, as in CoreDNS.
const MAX_ALIASES: usize = 11;
/// Most things that are asked about for one answer: the names that a short name may stand for.
const MAX_LEARNED: usize = 4;
/// How often a port is looked for that is free for UDP as well as for TCP.
const BIND_ATTEMPTS: usize = 32;

/// The sockets of a server, of the same address and port.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
    /// Whether only programs of this session reach them.
    private: bool,
}

impl Sockets {
    /// Sockets of a network of its own, where whoever asks may.
    ///
    /// # Errors
    /// When they are none of a runtime's.
    pub fn private(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> io::Result<Self> {
        let udp = UdpSocket::from_std(udp)?;
        Ok(Self {
            address: udp.local_addr()?,
            udp,
            tcp: TcpListener::from_std(tcp)?,
            private: true,
        })
    }

    /// Listens on `address`, or on a free port of loopback.
    ///
    /// # Errors
    /// When the address cannot be listened on, by UDP or by TCP.
    pub async fn bind(address: Option<SocketAddr>) -> io::Result<Self> {
        let wanted = address.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        for attempt in 1.. {
            let tcp = TcpListener::bind(wanted).await?;
            let address = tcp.local_addr()?;
            match UdpSocket::bind(address).await {
                Ok(udp) => {
                    return Ok(Self {
                        udp,
                        tcp,
                        address,
                        private: false,
                    });
                }
                // The port is free for one of the two only.
                Err(e)
                    if e.kind() == io::ErrorKind::AddrInUse
                        && wanted.port() == 0
                        && attempt < BIND_ATTEMPTS => {}
                Err(e) => return Err(e),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves `zone` on `sockets`, and what is not in it from the resolvers of `source`, until
/// `tasks` drain. Everything lives in `tasks`.
pub fn serve<Z: Zone>(sockets: Sockets, zone: Z, source: Source, tasks: &Tasks) {
    serve_inside(sockets, zone, source, Inside::none(), tasks);
}

/// As [`serve`], but for names that `inside` takes.
pub fn serve_inside<Z: Zone, T: DialRelay>(
    sockets: Sockets,
    zone: Z,
    source: Source,
    inside: Inside<T>,
    tasks: &Tasks,
) {
    let Sockets {
        udp,
        tcp,
        address,
        private,
    } = sockets;
    let server = Arc::new(Server {
        zone,
        inside,
        upstreams: Arc::new(Upstreams::new(source, address)),
        address,
        private,
        waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        probe: Mutex::default(),
        tasks: tasks.clone(),
    });
    let draining = tasks.clone();
    tasks.spawn({
        let server = Arc::clone(&server);
        async move {
            tokio::select! {
                biased;
                () = draining.draining() => {}
                () = udp::serve(server, Arc::new(udp)) => {}
            }
        }
    });
    let draining = tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            biased;
            () = draining.draining() => {}
            () = tcp::serve(server, tcp) => {}
        }
    });
}

/// What the two listeners share.
struct Server<Z, T> {
    zone: Z,
    inside: Inside<T>,
    upstreams: Arc<Upstreams>,
    address: SocketAddr,
    private: bool,
    waiting: Arc<Semaphore>,
    probe: Mutex<Probe>,
    tasks: Tasks,
}

/// The name that tells whether a resolver leads back here.
#[derive(Debug, Default)]
struct Probe {
    name: Option<Name>,
    came_back: bool,
}

/// What becomes of a message.
#[derive(Debug)]
enum Step {
    /// The answer is written.
    Answered,
    /// Somebody has to be asked before there is an answer.
    Wait(Question),
    /// There is nothing to say.
    Silence,
}

impl<Z: Zone, T: DialRelay> Server<Z, T> {
    /// Whether a peer is on this machine, where other users may not ask: `--dns-listen` may name an
    /// address for other machines.
    fn is_here(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        !self.private && (ip.is_loopback() || ip == self.address.ip().to_canonical())
    }

    /// Answers `request` into `out` if that is possible without waiting.
    fn at_once(&self, request: &[u8], transport: Transport, out: &mut Vec<u8>) -> Step {
        let question = match Incoming::read(request) {
            Incoming::Question(question) => question,
            Incoming::Wrong(question, code) => {
                Reply::empty(code).write(&question, request, transport, out);
                return Step::Answered;
            }
            Incoming::Noise => return Step::Silence,
        };
        match self.look(&question, false, &[]) {
            Outcome::Reply(reply) => reply.write(&question, request, transport, out),
            Outcome::Elsewhere if self.is_probe(question.name()) => {
                Reply::empty(ResponseCode::Refused).write(&question, request, transport, out);
            }
            Outcome::Elsewhere | Outcome::Alias(_) | Outcome::Ask(_) => {
                return Step::Wait(question);
            }
        }
        Step::Answered
    }

    /// Takes a place among those that wait; `None` when there are too many.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    /// The answer for whom there is no place.
    fn too_busy(question: &Question, request: &[u8], transport: Transport, out: &mut Vec<u8>) {
        Reply::empty(ResponseCode::ServFail).write(question, request, transport, out);
    }

    /// Answers what [`Server::at_once`] could not.
    async fn in_time(
        self: &Arc<Self>,
        request: &[u8],
        question: &Question,
        transport: Transport,
    ) -> Vec<u8> {
        let reply = match self.resolve(question, false).await {
            Outcome::Reply(reply) => reply,
            Outcome::Alias(alias) => self.follow(alias, question).await,
            Outcome::Ask(_) => Reply::empty(ResponseCode::ServFail),
            Outcome::Elsewhere if self.inside.takes(question.name()) => {
                match self.inside.relay(request, question.end, transport).await {
                    Ok(answer) => return answer,
                    Err(error) => {
                        tracing::debug!(name = %question.name(), %error, "not answered");
                        Reply::empty(ResponseCode::ServFail)
                    }
                }
            }
            Outcome::Elsewhere => {
                self.prove_resolvers();
                match self.upstreams.relay(request, question.end, transport).await {
                    Ok(answer) => return answer,
                    Err(error) => {
                        tracing::debug!(name = %question.name(), %error, "not answered");
                        Reply::empty(ResponseCode::ServFail)
                    }
                }
            }
        };
        let mut out = Vec::new();
        reply.write(question, request, transport, &mut out);
        out
    }

    /// What becomes of a question whose name, or whose name without the cluster's search list, the
    /// user's rules keep from the cluster; `None` for all others.
    fn left(&self, question: &Question) -> Option<Outcome> {
        if !self.inside.decides() {
            return None;
        }
        let name = name::lower(question.name());
        if self.inside.leaves(&name) {
            return Some(Outcome::Elsewhere);
        }
        let below = format!(".{}.svc.{}", self.zone.namespace(), self.zone.domain());
        let short = name.strip_suffix(&below)?;
        // The resolver goes on to the next name of its list.
        let no = || Outcome::Reply(Reply::empty(ResponseCode::NXDomain));
        self.inside.leaves(short).then(no)
    }

    /// Looks at what is known, with what was learned in front of it.
    fn look(&self, question: &Question, exact: bool, learned: &[(Subject, Found)]) -> Outcome {
        if let Some(outcome) = self.left(question) {
            return outcome;
        }
        let find = |subject: &Subject| match learned.iter().find(|(known, _)| known == subject) {
            Some((_, found)) => found.clone(),
            None => self.zone.find(subject),
        };
        let context = Context {
            domain: self.zone.domain(),
            namespace: self.zone.namespace(),
            exact,
            server: self.address.ip(),
            find: &find,
            may_ask: &|namespace| self.zone.may_ask(namespace),
        };
        answer::answer(&context, question)
    }

    /// As [`Server::look`], and asks the cluster for what is not known.
    async fn resolve(&self, question: &Question, exact: bool) -> Outcome {
        let mut learned = Vec::new();
        loop {
            match self.look(question, exact, &learned) {
                Outcome::Ask(subject) if learned.len() < MAX_LEARNED => {
                    let found = match self.zone.learn(&subject).await {
                        // Who was asked must know.
                        Found::Unknown => Found::Failed("the cluster does not say".to_owned()),
                        found => found,
                    };
                    learned.push((subject, found));
                }
                outcome => return outcome,
            }
        }
    }

    /// Finds out what the target of an alias is. An alias of a name in the cluster counts only
    /// with the addresses that it has in the end; one that leads out of it counts in any case.
    async fn follow(&self, alias: Alias, question: &Question) -> Reply {
        let Alias {
            mut reply,
            target,
            nothing,
        } = alias;
        let mut seen = vec![question.name().clone(), target];
        while let Some(target) = seen.last() {
            let question = question.about(target.clone());
            match self.resolve(&question, true).await {
                Outcome::Alias(Alias {
                    reply: more,
                    target,
                    ..
                }) => {
                    if seen.contains(&target) || seen.len() > MAX_ALIASES {
                        break;
                    }
                    reply.answers.extend(more.answers);
                    seen.push(target);
                }
                Outcome::Reply(part) if part.code == ResponseCode::ServFail => {
                    reply.code = part.code;
                    return reply;
                }
                Outcome::Reply(part) if part.answers.is_empty() => break,
                Outcome::Reply(part) => {
                    reply.answers.extend(part.answers);
                    return reply;
                }
                Outcome::Ask(_) => {
                    reply.code = ResponseCode::ServFail;
                    return reply;
                }
                Outcome::Elsewhere => {
                    let name = question.name();
                    match self.lookup(name, question.kind()).await {
                        Ok(answers) => reply.answers.extend(answers),
                        Err(error) => {
                            tracing::debug!(%name, %error, "where the alias leads is not known");
                            reply.code = ResponseCode::ServFail;
                        }
                    }
                    return reply;
                }
            }
        }
        nothing
    }

    /// The records of a name that is not the cluster's.
    async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Vec<Record>, String> {
        let found = if self.inside.takes(name) {
            self.inside.lookup(name, kind).await
        } else {
            let asked = self.upstreams.lookup(name, kind).await;
            asked.map_err(|error| error.to_string())
        };
        found.map(|message| message.answers)
    }

    /// Finds out about the first resolver of which it is not known whether it leads back here.
    fn prove_resolvers(self: &Arc<Self>) {
        let Some(server) = self.upstreams.unproven() else {
            return;
        };
        let mut probe = self.lock_probe();
        if probe.name.is_some() {
            return;
        }
        let Ok(name) = format!("loop.kdev-{:016x}.", rand::random::<u64>()).parse::<Name>() else {
            return;
        };
        *probe = Probe {
            name: Some(name.clone()),
            came_back: false,
        };
        drop(probe);
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let came_back = || std::mem::take(&mut *this.lock_probe()).came_back;
            this.upstreams.prove(server, &name, came_back).await;
        });
    }

    fn is_probe(&self, name: &Name) -> bool {
        let mut probe = self.lock_probe();
        let is = probe.name.as_ref() == Some(name);
        probe.came_back |= is;
        is
    }

    fn lock_probe(&self) -> MutexGuard<'_, Probe> {
        self.probe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
