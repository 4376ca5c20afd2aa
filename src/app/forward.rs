//! `kdev forward`: plain local ports for programs that know no proxy. Each connection is dialled
//! anew, so a port outlives the pods behind it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::bail;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{Instrument, debug, debug_span};

use super::Session;
use super::registry::{Listening, Registration};
use super::session::Dialer;
use crate::addr::{Host, Target, split_port};
use crate::config::Config;
use crate::dial::{Dial, DialError, Notes, Way};
use crate::io::{Io as _, accept, splice};
use crate::proxy::is_same_user;

/// Connections that one port serves at a time.
const MAX_CONNECTIONS: usize = 1024;

/// What a user asks for: `SERVICE:PORT[=[ADDRESS:]LOCAL_PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The Service, or any other host.
    pub host: Host,
    /// The port's number or name.
    pub port: PortName,
    /// The local address; loopback when the user names none.
    pub ip: IpAddr,
    /// The local port; `None` for the same number as the Service's.
    pub local_port: Option<u16>,
}

/// A port as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortName {
    /// A number.
    Number(u16),
    /// A name that the Service's port has.
    Name(String),
}

impl FromStr for PortName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.parse::<u16>() {
            Ok(0) => Err(()),
            Ok(number) => Ok(Self::Number(number)),
            Err(_) if text.bytes().all(|b| b.is_ascii_digit()) => Err(()),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || format!("{text:?} is not SERVICE:PORT or SERVICE:PORT=LOCAL_PORT");
        let (remote, local) = match text.split_once('=') {
            Some((remote, local)) => (remote, Some(local)),
            None => (text, None),
        };
        // What kubectl users type: "svc/web:80".
        let remote = ["svc/", "service/", "services/"]
            .iter()
            .find_map(|prefix| remote.strip_prefix(prefix))
            .unwrap_or(remote);
        let (host, port) = split_port(remote);
        let port = port.filter(|port| !port.is_empty()).ok_or_else(usage)?;
        let port = port.parse().map_err(|()| usage())?;
        let host = host.parse::<Host>().map_err(|e| e.to_string())?;
        let (ip, local_port) = match local {
            None => (Ipv4Addr::LOCALHOST.into(), None),
            Some(local) => match local.parse::<u16>() {
                Ok(port) => (Ipv4Addr::LOCALHOST.into(), Some(port)),
                Err(_) => {
                    let address: SocketAddr = local.parse().map_err(|_| {
                        format!("{local:?} is neither a local port nor ADDRESS:PORT")
                    })?;
                    (address.ip(), Some(address.port()))
                }
            },
        };
        Ok(Self {
            host,
            port,
            ip,
            local_port,
        })
    }
}

/// One local port and where it leads.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// Where apps connect to.
    pub local: SocketAddr,
    /// What they reach.
    pub target: Target,
}

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
        let dialer = session.dialer(true);
        let mut notes = Vec::new();
        let mut ports = Vec::new();
        let mut listeners = Vec::new();
        for spec in specs {
            let target = target(&session, spec).await?;
            notes.extend(look(&session, &dialer, &target).await?);
            if !spec.ip.is_loopback() {
                notes.push(format!(
                    "everybody who reaches {} may use the port for {target}",
                    spec.ip
                ));
            }
            let listener = listen(spec, target.port).await?;
            ports.push(Forwarded {
                local: listener.local_addr()?,
                target,
            });
            listeners.push(listener);
        }
        for (listener, port) in listeners.into_iter().zip(&ports) {
            let served = serve(
                listener,
                port.clone(),
                dialer.clone(),
                session.tasks.clone(),
            );
            session.tasks.spawn(served);
        }
        let listening = ports
            .iter()
            .map(|port| Listening {
                purpose: "forward".to_owned(),
                address: port.local.to_string(),
                target: Some(port.target.to_string()),
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

/// Turns a port's name into its number; a number is taken as it is.
async fn target(session: &Session, spec: &Spec) -> anyhow::Result<Target> {
    let port = match &spec.port {
        PortName::Number(number) => *number,
        PortName::Name(name) => named_port(session, &spec.host, name).await?,
    };
    Ok(Target::new(spec.host.clone(), port))
}

/// The number of the Service port `name` of `host`.
pub(super) async fn named_port(session: &Session, host: &Host, name: &str) -> anyhow::Result<u16> {
    let Host::Name(text) = host else {
        bail!("only Services have named ports; write the number instead of {name:?}");
    };
    let services = session.catalog.services_named(host);
    for service in &services {
        if let Some(number) = session.catalog.learn_named_port(service, name).await {
            return Ok(number);
        }
    }
    let Some(service) = services.first() else {
        bail!("{text} is not the name of a Service; write the number instead of {name:?}");
    };
    let what = format!(
        "Service {} in namespace {}",
        service.name, service.namespace
    );
    let known = services.iter();
    let Some(detail) = known
        .filter_map(|s| session.catalog.service_detail(s))
        .next()
    else {
        let why = session.catalog.absence(service).await;
        bail!("{what} was not found; {why}");
    };
    let ports = detail.ports.iter().map(|port| match &*port.name {
        "" => port.port.to_string(),
        name => format!("{name} ({})", port.port),
    });
    let ports = ports.collect::<Vec<_>>().join(", ");
    bail!("{what} has no port named {name:?}; it has {ports}")
}

/// Whether the target leads anywhere now: an error where it never will, a remark where it may
/// later.
async fn look(
    session: &Session,
    dialer: &Dialer,
    target: &Target,
) -> anyhow::Result<Option<String>> {
    let decision = dialer.decide(target, &mut Notes::off()).await;
    match decision.way {
        Way::Cluster(_) | Way::Relay(..) => Ok(None),
        // Pods come and go, and so do ways to the cluster.
        Way::Failed(
            error @ (DialError::Unreachable { .. }
            | DialError::TimedOut { .. }
            | DialError::Cluster { .. }),
        ) => Ok(Some(error.to_string())),
        Way::Failed(error) => Err(error.into()),
        Way::Laptop if decision.rule.is_some() || !decision.aliases.is_empty() => Ok(None),
        Way::Laptop => {
            let host = &target.host;
            let what = format!(
                "{host} is neither a Service nor a pod that this user may see in the cluster"
            );
            match session.catalog.services_named(host).first() {
                Some(service) => bail!("{what}; {}", session.catalog.absence(service).await),
                None => bail!("{what}"),
            }
        }
    }
}

async fn listen(spec: &Spec, port: u16) -> anyhow::Result<TcpListener> {
    let local = SocketAddr::new(spec.ip, spec.local_port.unwrap_or(port));
    TcpListener::bind(local).await.map_err(|e| {
        let name = format!("{}:{}", spec.host, spec.port);
        let fix = match e.kind() {
            io::ErrorKind::AddrInUse => "the port is taken",
            io::ErrorKind::PermissionDenied => "ports below 1024 may need root",
            io::ErrorKind::AddrNotAvailable => {
                return anyhow::anyhow!(
                    "cannot listen on {local} for {name}: {} is no address of this machine; \
                     leave it out for 127.0.0.1",
                    local.ip()
                );
            }
            _ => {
                let what = format!("cannot listen on {local} for {name}");
                return anyhow::Error::new(e).context(what);
            }
        };
        let other = if local.port() < 1024 {
            8000 + local.port()
        } else {
            0
        };
        anyhow::anyhow!(
            "cannot listen on {local} for {name}: {fix}; `{name}={other}` takes {}",
            if other == 0 {
                "any free port".to_owned()
            } else {
                format!("port {other}")
            }
        )
    })
}

async fn serve(listener: TcpListener, port: Forwarded, dialer: Dialer, tasks: crate::task::Tasks) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let (app, peer) = accept(&listener).await;
            let (dialer, target) = (dialer.clone(), port.target.clone());
            let span = debug_span!("conn", %peer, %target);
            let connection = async move {
                carry(app, peer, &target, &dialer).await;
                drop(permit);
            };
            tasks.spawn(connection.instrument(span));
        }
    };
    tokio::select! {
        biased;
        () = tasks.draining() => {}
        () = accepting => {}
    }
}

/// Carries one connection to its end. What comes of it is told by the dialer's observer.
async fn carry(mut app: TcpStream, peer: SocketAddr, target: &Target, dialer: &Dialer) {
    // On loopback anybody on this machine may knock; a port on another address was asked for.
    if peer.ip().is_loopback() && !is_same_user(peer, app.local_addr().ok()) {
        return app.reset();
    }
    // Fails only on a socket that is gone already; the first read says so.
    let _ = app.set_nodelay(true);
    let Ok(stream) = dialer.dial(target).await else {
        return app.reset();
    };
    if let (moved, Err(error)) = splice(app, stream).await {
        debug!(%error, sent = moved.forth, received = moved.back, "broken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn specs_as_users_write_them() {
        let pg = spec("pg.shop:5432");
        assert_eq!(pg.host, Host::Name("pg.shop".into()));
        assert_eq!(pg.port, PortName::Number(5432));
        assert_eq!((pg.ip, pg.local_port), (Ipv4Addr::LOCALHOST.into(), None));
        assert_eq!(spec("web:http=8080").port, PortName::Name("http".into()));
        assert_eq!(spec("web:http=8080").local_port, Some(8080));
        assert_eq!(spec("svc/web:80"), spec("web:80"));
        assert_eq!(
            spec("web:80=0.0.0.0:8080").ip,
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        );
        assert_eq!(spec("[fd00::1]:80=0").local_port, Some(0));
        for text in [
            "web",
            "web:",
            ":80",
            "web:0",
            "web:99999",
            "web:80=x",
            "web:80=",
            "a b:80",
        ] {
            assert!(text.parse::<Spec>().is_err(), "{text}");
        }
    }
}
