//! Peers that want a tunnel.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::claims::{Claims, Joined};
use super::metrics::{Metrics, Refused};
use super::outbound::Outbound;
use super::strangers::Strangers;
use super::upgrade;
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
/// Streams of all forward tunnels at a time: each costs memory.
const MOST_STREAMS: i64 = 12_000;

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
    ) -> Result<Accepted<TcpStream, Share>, Refused> {
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
            let share = self.budget.share();
            share.ok_or_else(|| format!("the relay has {} tunnels already", self.budget.tunnels()))
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

    async fn carry(&self, accepted: Accepted<TcpStream, Share>) {
        let Accepted {
            hello,
            io,
            admitted: share,
            ..
        } = accepted;
        let (session, role) = (hello.session, hello.role.name());
        info!(%session, role, kdev = hello.program, "tunnel open");
        let _live = self.metrics.tunnel(hello.role == Role::Reverse);
        let ended = match hello.role {
            Role::Forward => self.forward(io, share).await,
            Role::Reverse => self.reverse(io, share, session).await,
        };
        match ended {
            Ok(ended) => info!(%session, role, why = %ended, "tunnel closed"),
            Err(error) => info!(%session, role, why = %error, "tunnel closed"),
        }
    }

    async fn forward(&self, io: Prefixed<TcpStream>, share: Share) -> io::Result<Ended> {
        let mut listener = serve(io, share).await?;
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
            if self.metrics.streams() >= MOST_STREAMS {
                incoming.refuse(&crate::dial::DialError::Unreachable {
                    target: String::new(),
                    reason: format!("the relay carries {MOST_STREAMS} streams already"),
                    fix: String::new(),
                });
                continue;
            }
            let (outbound, live) = (self.outbound.clone(), self.metrics.stream());
            streams.spawn(async move {
                outbound.serve(incoming).await;
                drop(live);
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
