//! `kdev forward`: plain local ports for programs that know no proxy. Each connection is dialled
//! anew, so a port outlives the pods behind it.

mod allowed;
mod place;
mod spec;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::bail;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tracing::{Instrument, debug, debug_span, warn};

use self::place::Place;
pub(super) use self::place::named_port;
use self::spec::suffix;
pub use self::spec::{Named, PortName, Spec};
use super::Session;
use super::registry::{Listening, Registration};
use super::said::Said;
use super::session::DialerOf;
use crate::addr::{Protocol, Target};
use crate::config::Config;
use crate::dial::{Dial, DialError, DialRelay as _, DialUdp, Notes, Resolve, Way};
use crate::io::user::is_same_user;
use crate::io::{Io as _, accept_each, splice};
use crate::k8s::portforward::PodReset;
use crate::proxy::serve_datagrams;
use crate::task::Tasks;

/// Connections that one port serves at a time.
const MAX_CONNECTIONS: usize = 1024;

/// One local port and where it leads.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// Where apps connect to.
    pub local: SocketAddr,
    /// What they reach.
    pub target: Target,
    /// What is spoken with it.
    pub protocol: Protocol,
}

impl Forwarded {
    /// What it leads to, as users write it.
    #[must_use]
    pub fn leads_to(&self) -> String {
        format!("{}{}", self.target, suffix(self.protocol))
    }
}

/// What serves a port, once all of them could be opened.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Local ports that lead into the cluster.
pub struct Forwarding {
    session: Session,
    ports: Vec<Forwarded>,
    notes: Vec<String>,
    _registration: Option<Registration>,
}

impl Forwarding {
    /// Opens a session and listens on all ports that `specs` ask for, or on none.
    ///
    /// # Errors
    /// When the cluster cannot be reached, a port has no such name, or a local port is taken.
    pub async fn open(config: &Config, specs: &[Spec]) -> anyhow::Result<Self> {
        let session = Session::open(config).await?;
        let mut opening = Opening {
            session: &session,
            ports: Vec::new(),
            serving: Vec::new(),
            notes: Vec::new(),
            direct: BTreeSet::new(),
        };
        for spec in specs {
            opening.open(spec).await?;
        }
        let Opening {
            ports,
            serving,
            mut notes,
            direct,
            ..
        } = opening;
        notes.extend(allowed::remarks(&session.client, &direct).await);
        for served in serving {
            session.tasks.spawn(served);
        }
        let listening = ports
            .iter()
            .map(|port| Listening {
                purpose: "forward".to_owned(),
                address: port.local.to_string(),
                target: Some(port.leads_to()),
            })
            .collect();
        let registration = session.register("forward", listening, None);
        Ok(Self {
            session,
            ports,
            notes,
            _registration: registration,
        })
    }

    /// The ports, in the order asked for.
    #[must_use]
    pub fn ports(&self) -> &[Forwarded] {
        &self.ports
    }

    /// What the user should know, for example that a Service has no ready pod now.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The session behind the ports.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Serves until a signal, whose number is returned.
    ///
    /// # Errors
    /// When the system refuses signal handlers.
    pub async fn until_signal(self) -> anyhow::Result<u8> {
        self.session.until_signal().await
    }
}

/// Ports that are being opened.
struct Opening<'a> {
    session: &'a Session,
    ports: Vec<Forwarded>,
    serving: Vec<Serving>,
    notes: Vec<String>,
    /// Namespaces of pods that are forwarded to.
    direct: BTreeSet<String>,
}

impl Opening<'_> {
    /// Finds where one leads, and listens for it.
    async fn open(&mut self, spec: &Spec) -> anyhow::Result<()> {
        let place = match place::find(self.session, spec).await? {
            Place::Named(target) => {
                let dialer = self.session.dialer(true);
                if self.look(&dialer, &target, spec).await? {
                    return self.listen(dialer, target, spec).await;
                }
                place::pod_instead(self.session, spec).await?
            }
            pods @ Place::Pods(..) => Some(pods),
        };
        let Some(Place::Pods(picked, target)) = place else {
            let why = match &spec.what {
                Named::Host(host) | Named::Service(host) => {
                    place::absence(self.session, host).await
                }
                Named::Pod(_) | Named::Workload(..) => String::new(),
            };
            bail!(
                "{} is neither a Service nor a pod that this user may see in the cluster{why}",
                spec.what
            );
        };
        let dialer = self.session.dialer_to(picked);
        self.look(&dialer, &target, spec).await?;
        self.listen(dialer, target, spec).await
    }

    /// Whether the target leads into the cluster; an error where it never will, a remark where it
    /// may later.
    async fn look<R: Resolve>(
        &mut self,
        dialer: &DialerOf<R>,
        target: &Target,
        spec: &Spec,
    ) -> anyhow::Result<bool> {
        let off = &mut Notes::off();
        let decision = dialer.decide_for(target, spec.protocol, off).await;
        let relay = self.session.relay.as_ref();
        if let Some(relay) = relay
            && spec.protocol == Protocol::Udp
        {
            relay.settled().await;
        }
        // Datagrams have no other way, and one that may not come is nothing to wait for.
        let no_relay = relay.is_none_or(|relay| relay.hopeless().is_some());
        if let Way::Cluster(endpoints) = &decision.way {
            let pods = endpoints.pods.iter();
            self.direct.extend(pods.map(|it| it.pod.namespace.clone()));
        }
        let declared = match decision.way {
            Way::Cluster(endpoints) | Way::Relay(_, Some(endpoints)) => {
                endpoints.declared || endpoints.service.is_none()
            }
            Way::Relay(_, None) => true,
            Way::Failed(error @ DialError::Unreachable { .. })
                if no_relay && spec.protocol == Protocol::Udp =>
            {
                return Err(error.into());
            }
            // Pods come and go, and so do ways to the cluster.
            Way::Failed(
                error @ (DialError::Unreachable { .. }
                | DialError::TimedOut { .. }
                | DialError::Cluster { .. }),
            ) => {
                self.notes.push(error.to_string());
                false
            }
            Way::Failed(error) => return Err(error.into()),
            Way::Laptop => return Ok(decision.rule.is_some() || !decision.aliases.is_empty()),
        };
        if !declared && decision.aliases.is_empty() {
            let remark = place::undeclared(self.session, target, spec.protocol).await;
            self.notes.extend(remark);
        }
        Ok(true)
    }

    /// Listens on its local port.
    async fn listen<D: Dial + DialUdp>(
        &mut self,
        dialer: D,
        target: Target,
        spec: &Spec,
    ) -> anyhow::Result<()> {
        let tasks = self.session.tasks.clone();
        let local = SocketAddr::new(spec.ip, spec.local_port.unwrap_or(target.port));
        let refused = |error| cannot_listen(error, local, &target, spec);
        let protocol = spec.protocol;
        let (local, serving): (SocketAddr, Serving) = match protocol {
            Protocol::Udp => {
                let socket = UdpSocket::bind(local).await.map_err(refused)?;
                let stats = self.session.stats.clone();
                let local = socket.local_addr()?;
                let serving = serve_datagrams(socket, target.clone(), dialer, stats, tasks);
                (local, Box::pin(serving))
            }
            Protocol::Tcp | Protocol::Sctp => {
                let listener = TcpListener::bind(local).await.map_err(refused)?;
                let local = listener.local_addr()?;
                let serving = serve(listener, target.clone(), dialer, tasks);
                (local, Box::pin(serving))
            }
        };
        if !spec.ip.is_loopback() {
            self.notes.push(format!(
                "everybody who reaches {} may use the port for {target}",
                spec.ip
            ));
        }
        self.serving.push(serving);
        self.ports.push(Forwarded {
            local,
            target,
            protocol,
        });
        Ok(())
    }
}

/// Why there is no local port, and what to write instead.
fn cannot_listen(
    error: io::Error,
    local: SocketAddr,
    target: &Target,
    spec: &Spec,
) -> anyhow::Error {
    let name = Spec {
        port: Some(PortName::Number(target.port)),
        ..spec.clone()
    };
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => "the port is taken",
        io::ErrorKind::PermissionDenied => "ports below 1024 may need root",
        io::ErrorKind::AddrNotAvailable => {
            return anyhow::anyhow!(
                "cannot listen on {local} for {name}: {} is not an address of this machine; leave \
                 it out for 127.0.0.1",
                local.ip()
            );
        }
        _ => {
            let what = format!("cannot listen on {local} for {name}");
            return anyhow::Error::new(error).context(what);
        }
    };
    let (other, takes) = match local.port() {
        port @ ..1024 => (8000 + port, format!("port {}", 8000 + port)),
        _ => (0, "any free port".to_owned()),
    };
    anyhow::anyhow!("cannot listen on {local} for {name}: {fix}; `{name}={other}` takes {takes}")
}

async fn serve<D: Dial>(listener: TcpListener, target: Target, dialer: D, tasks: Tasks) {
    let said = Arc::new(Said::default());
    accept_each(listener, MAX_CONNECTIONS, tasks, |app, peer| {
        let (dialer, target, said) = (dialer.clone(), target.clone(), said.clone());
        let span = debug_span!("conn", %peer, %target);
        async move { carry(app, peer, &target, &dialer, &said).await }.instrument(span)
    })
    .await;
}

/// Carries one connection to its end. What comes of its dial is told by the dialer's observer.
async fn carry<D: Dial>(
    mut app: TcpStream,
    peer: SocketAddr,
    target: &Target,
    dialer: &D,
    said: &Said,
) {
    // On loopback anybody on this machine may knock; a port on another address was asked for.
    if peer.ip().is_loopback() && !is_same_user(peer, app.local_addr().ok()) {
        return app.reset();
    }
    // Fails only on a socket that is gone already; the first read says so.
    let _ = app.set_nodelay(true);
    let Ok(stream) = dialer.dial(target).await else {
        return app.reset();
    };
    let (moved, Err(error)) = splice(app, stream).await else {
        return;
    };
    match PodReset::from_io(&error) {
        // Once, however its figures differ.
        Some(reset) if said.say("reset").is_some() => warn!("{target}: {reset}"),
        _ => debug!(%error, sent = moved.forth, received = moved.back, "broken"),
    }
}
