//! Peers that want a tunnel.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::claims::{Claims, Joined};
use super::memory::Memory;
use super::metrics::{Metrics, Refused};
use super::outbound::Outbound;
use super::part::{Charge, Part};
use super::strangers::Strangers;
use super::upgrade;
use crate::dial::DialError;
use crate::io::Prefixed;
use crate::rule::control::{Ask, Tell};
use crate::task::Tasks;
use crate::tunnel::control::{Reader, write};
use crate::tunnel::{
    Accepted, Budget, Ended, HandshakeError, Keys, Opener, Protocol, Role, Secret, SessionId,
    Share, accept, open, serve,
};

/// Peers that have not proved themselves at a time. One more cuts off the oldest: an honest one
/// is through in a few round trips.
const MOST_STRANGERS: usize = 256;
/// What a tunnel is charged with beside its window: tables, buffers of frames, and what waits to be
/// written. A peer that takes nothing of that is taken for dead within seconds.
const TUNNEL: usize = 32 << 10;
/// What a stream of a forward tunnel is charged with: what the relay and the kernel keep of one that is
/// idle, rounded up. `benches/README.md` has the figures.
const STREAM: usize = 10 << 10;

/// Takes tunnels.
#[derive(Clone)]
pub(super) struct Tunnels {
    /// Where streams of forward tunnels go.
    pub(super) outbound: Outbound,
    /// What sessions with reverse tunnels claim.
    pub(super) claims: Claims,
    /// What is counted.
    pub(super) metrics: Metrics,
    /// Memory of all tunnels.
    pub(super) budget: Budget,
    /// Memory of their streams.
    pub(super) sessions: ForwardSessions,
    /// The folder with the secrets.
    pub(super) secrets: PathBuf,
    /// The connections.
    pub(super) tasks: Tasks,
}

impl Tunnels {
    /// Takes tunnels on `listener` until the relay ends. On the pod's own loopback (`private`) a
    /// peer from elsewhere is cut off before a byte is read: a neighbour on the node can forge
    /// its way there. Elsewhere a tunnel begins with an HTTP upgrade.
    pub(super) async fn listen(self, listener: TcpListener, private: bool) {
        let strangers = Strangers::new(MOST_STRANGERS);
        loop {
            let (socket, peer) = crate::io::accept(&listener).await;
            if private && !peer.ip().to_canonical().is_loopback() {
                warn!(%peer, "a peer that is not on loopback is cut off");
                self.metrics.refused(Refused::Foreign);
                continue;
            }
            let (this, cut) = (self.clone(), strangers.enter());
            self.tasks.spawn(async move {
                let known = tokio::select! {
                    biased;
                    () = cut => Err(Refused::Crowded),
                    known = this.meet(socket, peer, private) => known,
                };
                match known {
                    Ok(accepted) => this.carry(accepted).await,
                    Err(why) => this.metrics.refused(why),
                }
            });
        }
    }

    async fn meet(
        &self,
        mut socket: TcpStream,
        peer: SocketAddr,
        private: bool,
    ) -> Result<Accepted<TcpStream, (Share, Charge)>, Refused> {
        // Fails only on a socket that is gone already.
        let _ = socket.set_nodelay(true);
        // The way to the pod's own address is HTTP.
        if !private && let Err(error) = upgrade::take(&mut socket).await {
            debug!(%peer, %error, "no tunnel");
            return Err(match error.kind() {
                io::ErrorKind::TimedOut => Refused::Silent,
                io::ErrorKind::InvalidData => Refused::Malformed,
                _ => Refused::Broken,
            });
        }
        // Read anew for each peer: an upgrade renews the Secrets under a running relay.
        let keys = match read_keys(&self.secrets) {
            Ok(keys) => keys,
            Err(error) => {
                warn!(%error, folder = %self.secrets.display(), "no secret to prove peers with");
                return Err(Refused::Unready);
            }
        };
        let admit = |_: &_| {
            let memory = &self.sessions.memory;
            let share = self.budget.share();
            let share = share.ok_or_else(|| {
                format!("the relay has {} tunnels already", self.budget.tunnels())
            })?;
            // However many callers there are, a kdev comes back; the budget of windows bounds how many do.
            Ok((share, memory.pin(memory.all(), TUNNEL)))
        };
        match accept(socket, &keys, admit).await {
            Ok(accepted) => Ok(accepted),
            Err(error) => {
                debug!(%peer, %error, "no tunnel");
                if let HandshakeError::NotTheOwner(session) = error {
                    self.claims.intruded(session);
                }
                Err(Refused::of(&error))
            }
        }
    }

    async fn carry(&self, accepted: Accepted<TcpStream, (Share, Charge)>) {
        let Accepted {
            hello,
            io,
            admitted: (share, _charge),
            ..
        } = accepted;
        let (session, role) = (hello.session, hello.role.name());
        info!(%session, role, kdev = hello.program, "tunnel open");
        let _live = self.metrics.tunnel(hello.role == Role::Reverse);
        let ended = match hello.role {
            Role::Forward => self.forward(io, share, session).await,
            Role::Reverse => self.reverse(io, share, session).await,
        };
        match ended {
            Ok(ended) => info!(%session, role, why = %ended, "tunnel closed"),
            Err(error) => info!(%session, role, why = %error, "tunnel closed"),
        }
    }

    async fn forward(
        &self,
        io: Prefixed<TcpStream>,
        share: Share,
        session: SessionId,
    ) -> io::Result<Ended> {
        let mut listener = serve(io, share).await?;
        let member = self.sessions.enter(session);
        // Streams end with their tunnel.
        let streams = self.tasks.child();
        let mut draining = false;
        loop {
            let incoming = tokio::select! {
                incoming = listener.next() => incoming,
                () = self.tasks.draining(), if !draining => {
                    draining = true;
                    listener.drain();
                    continue;
                }
            };
            let Some(incoming) = incoming else { break };
            let charge = match member.room() {
                Ok(charge) => charge,
                Err(reason) => {
                    self.metrics.crowded();
                    let target = incoming.target.to_string();
                    incoming.refuse(&DialError::Unreachable {
                        target,
                        reason,
                        fix: "close connections that are not used".to_owned(),
                    });
                    continue;
                }
            };
            let (outbound, live) = (self.outbound.clone(), self.metrics.stream());
            streams.spawn(async move {
                outbound.serve(incoming).await;
                drop((live, charge));
            });
        }
        streams.kill();
        Ok(listener.ended())
    }

    async fn reverse(
        &self,
        io: Prefixed<TcpStream>,
        share: Share,
        session: SessionId,
    ) -> io::Result<Ended> {
        let (opener, driver) = open(io, share).await?;
        let (mut joined, mut tells) = self.claims.join(session, opener.clone());
        let running = driver.run();
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => Some(ended),
            result = converse(&joined, opener, &mut tells) => {
                result?;
                None
            }
        };
        if ended == Some(Ended::Silent) {
            joined.was_silent();
        }
        // A kdev that closes the control stream takes no more callers by this tunnel; its open
        // connections may end.
        drop(joined);
        match ended {
            Some(ended) => Ok(ended),
            None => Ok(running.await),
        }
    }
}

/// What the streams of each session with forward tunnels hold. Cheap to clone.
#[derive(Clone)]
pub(super) struct ForwardSessions {
    memory: Memory,
    /// With how many tunnels each has.
    parts: Arc<Mutex<HashMap<SessionId, (Part, usize)>>>,
}

/// A tunnel of a session.
struct Member {
    sessions: ForwardSessions,
    session: SessionId,
    part: Part,
}

impl ForwardSessions {
    /// None is there.
    #[must_use]
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            memory,
            parts: Arc::default(),
        }
    }

    fn enter(&self, session: SessionId) -> Member {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let (part, tunnels) = parts
            .entry(session)
            .or_insert_with(|| (self.memory.session(), 0));
        *tunnels += 1;
        Member {
            part: part.clone(),
            sessions: self.clone(),
            session,
        }
    }
}

impl Member {
    /// Room for one more stream.
    ///
    /// # Errors
    /// Which limit is reached.
    fn room(&self) -> Result<Charge, String> {
        let memory = &self.sessions.memory;
        memory.take(&self.part, STREAM, None).ok_or_else(|| {
            let streams = |part: &Part| part.most() / STREAM;
            if self.part.used() + STREAM > self.part.most() {
                return format!(
                    "a session may have {} streams at a time through one relay, and this one has them",
                    streams(&self.part)
                );
            }
            let forward = memory.forward();
            if forward.used() + STREAM > forward.most() {
                return format!(
                    "all sessions together may have {} streams at a time through one relay, and they have \
                     them",
                    streams(forward)
                );
            }
            "the relay has no memory left for another stream".to_owned()
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let parts = self.sessions.parts.lock();
        let mut parts = parts.unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tunnels)) = parts.get_mut(&self.session) {
            *tunnels -= 1;
            if *tunnels == 0 {
                parts.remove(&self.session);
            }
        }
    }
}

/// Does what kdev asks until it ends the control stream, and tells it what it has not asked.
async fn converse(
    joined: &Joined,
    opener: Opener,
    tells: &mut mpsc::Receiver<Tell>,
) -> io::Result<()> {
    // Nobody is dialled: the name is for whoever reads a trace.
    let target = crate::addr::Target::new(crate::addr::Host::Name("control".into()), 1);
    let stream = opener.open(&target, Protocol::Control).await;
    let stream = stream.map_err(io::Error::other)?;
    drop(opener);
    let (from, mut to) = tokio::io::split(stream);
    let mut asks = Reader::new(from);
    loop {
        let tell = tokio::select! {
            ask = asks.next_or_why::<Ask>() => match ask? {
                Some(Ok(ask)) => joined.obey(ask),
                Some(Err(error)) => Tell::Unknown {
                    reason: format!(
                        "the relay, version {}, does not understand it: {error}",
                        env!("CARGO_PKG_VERSION")
                    ),
                },
                None => return to.shutdown().await,
            },
            Some(tell) = tells.recv() => tell,
        };
        write(&mut to, &tell).await?;
    }
}

/// The two secrets; a relay without the second one takes no intercepts.
fn read_keys(folder: &Path) -> io::Result<Keys> {
    let read = |role: &str| {
        let bytes = std::fs::read(folder.join(role).join("key"))?;
        Secret::new(bytes).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the {role} secret is too short"),
            )
        })
    };
    let reverse = match read("intercept") {
        Ok(secret) => Some(secret),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Keys {
        forward: read("forward")?,
        reverse,
    })
}
