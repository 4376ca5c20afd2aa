//! A command whose every connection comes to kdev: in a network of its own or, where it gets none, by
//! connects that wait.

mod held;

use std::ffi::OsString;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::info;

use super::Observer;
use super::command::reachable_as_it_is;
use crate::addr::ClusterDomain;
use crate::app::named::Named;
use crate::app::registry::{Lends, Report};
use crate::app::{Note, Session, mine};
use crate::capture::HOST_V4;
use crate::capture::held::try_out;
use crate::capture::wire::Failure;
use crate::config::{Capture, Config};
use crate::dial::{AnswersFrom, Dial, DialUdp, Laptop};
use crate::dns;
use crate::proxy::{self, Access, Captured, Stats};
use crate::run::capture::{Names, Sockets, files};
use crate::run::child::{Command, look_up};
use crate::run::held::Hold;
use crate::run::publish::Publish;
use crate::task::Tasks;
use crate::upstream::Lent;

use crate::run::capture::Network;

/// What is being made while the session is opened.
pub(super) struct Making {
    idle: JoinHandle<Result<Idle, Failure>>,
    wanted: Capture,
}

/// What nobody serves yet.
pub(super) enum Idle {
    /// A network.
    Network(Network, Sockets),
    /// Connects that wait; why there is no network.
    Held(Failure),
}

/// How a command's connections come to kdev.
pub(super) enum Caught {
    /// By a network of its own.
    Network(Network),
    /// By connects that wait.
    Held(Hold),
}

impl Making {
    /// Begins to make a network for `argv`; `None` where there shall be none.
    ///
    /// # Errors
    /// When the command cannot work in one, and nothing else is wanted.
    pub(super) fn begin(
        config: &Config,
        argv: &[OsString],
        observer: &impl Observer,
    ) -> anyhow::Result<Option<Self>> {
        let wanted = config.capture;
        if wanted == Capture::Off {
            return Ok(None);
        }
        if let Some(program) = argv.first().and_then(becomes_root) {
            let why = format!(
                "{} becomes another user, which nothing can in a network that is made without root",
                program.display()
            );
            if wanted == Capture::On {
                anyhow::bail!("{why}; --capture off runs it with proxy variables");
            }
            observer.remark(&format!("{why}; it gets proxy variables alone"));
            return Ok(None);
        }
        let idle = spawn_blocking(make);
        Ok(Some(Self { idle, wanted }))
    }
}

fn make() -> Result<Idle, Failure> {
    let failure = match Network::make(leads_v6()) {
        Ok((network, sockets)) => return Ok(Idle::Network(network, sockets)),
        Err(failure) => failure,
    };
    match try_out() {
        Ok(()) => Ok(Idle::Held(failure)),
        Err(error) => {
            info!(%error, "connects cannot wait for kdev here");
            Err(failure)
        }
    }
}

/// What was begun: the network, or `None` where the system has none and variables will do.
///
/// # Errors
/// When there is none and nothing else is wanted.
pub(super) async fn made(
    making: Option<Making>,
    observer: &impl Observer,
) -> anyhow::Result<Option<Idle>> {
    let Some(Making { idle, wanted }) = making else {
        return Ok(None);
    };
    let failure = match idle.await? {
        Ok(idle) => {
            match &idle {
                Idle::Network(..) => {
                    info!("the command gets a network of its own, all of which comes to kdev");
                }
                Idle::Held(failure) => observer.remark(&format!(
                    "the command gets no network of its own here ({failure}), so kdev looks at each \
                     of its connects; `kdev doctor` says what that leaves out"
                )),
            }
            return Ok(Some(idle));
        }
        Err(failure) => failure,
    };
    if wanted == Capture::On {
        anyhow::bail!("{failure}; `kdev doctor` says what allows it");
    }
    observer.remark(&format!(
        "only programs that read proxy variables reach the cluster here: {failure}; `kdev doctor` says \
         what changes that"
    ));
    Ok(None)
}

impl Idle {
    /// Serves it by `session`, and publishes what the command listens on.
    ///
    /// # Errors
    /// When the system does not allow what it takes.
    pub(super) async fn serve(
        self,
        session: &Session,
        config: &Config,
        publish: &[Publish],
        note: Note,
    ) -> anyhow::Result<Caught> {
        let (network, sockets) = match self {
            Self::Network(network, sockets) => (network, sockets),
            Self::Held(_) => {
                reachable_as_it_is(publish)?;
                let hold = held::serve(session, config, note).await?;
                return Ok(Caught::Held(hold));
            }
        };
        let names = names(session.domain(), session.client.namespace());
        cover(&network, &names)?;
        let Sockets { tcp, udp, dns } = sockets;
        let (listener, socket) = dns;
        dns::serve_inside(
            dns::Sockets::private(socket, listener)?,
            session.catalog.clone(),
            dns::Source::system(),
            session.inside().deciding(),
            &session.tasks,
        );
        let mut serving = proxy::Config::new(Access::SameUser { password: None });
        serving.stats = session.stats.clone();
        serving.refusals = session.refusals();
        let marker = mine::marker(session, config, note.clone());
        let dialer = session.dialer_past_proxies().with_marker(marker);
        let dialer = Named::new(dialer, session.catalog.clone());
        catch(&network, tcp, udp, dialer, serving, &session.tasks)?;
        network.publish(publish, note, &session.tasks)?;
        Ok(Caught::Network(network))
    }

    /// Serves it by the session of another command, of which `report` and `lends` tell; what that
    /// dials for it is counted there.
    ///
    /// # Errors
    /// As [`Idle::serve`].
    pub(super) fn serve_lent(
        self,
        report: &Report,
        lends: &Lends,
        publish: &[Publish],
        stats: Arc<Stats>,
        note: Note,
        tasks: &Tasks,
    ) -> anyhow::Result<Caught> {
        let nameserver = report
            .listening
            .iter()
            .find(|listening| listening.purpose == "dns");
        let nameserver = nameserver.and_then(|listening| listening.address.parse().ok());
        let nameserver = nameserver
            .context("the session to be used answers no names; --own-session goes without it")?;
        let (network, sockets) = match self {
            Self::Network(network, sockets) => (network, sockets),
            Self::Held(_) => {
                reachable_as_it_is(publish)?;
                let hold = held::serve_lent(nameserver, lends, stats, tasks)?;
                return Ok(Caught::Held(hold));
            }
        };
        let names = Names {
            namespace: report.namespace.clone(),
            domain: lends.domain.clone(),
        };
        cover(&network, &names)?;
        let Sockets { tcp, udp, dns } = sockets;
        let (listener, socket) = dns;
        let names = proxy::Names {
            tcp: tokio::net::TcpListener::from_std(listener)?,
            udp: tokio::net::UdpSocket::from_std(socket)?,
        };
        names.serve(nameserver, Laptop { loopback: true }, stats.clone(), tasks);
        let mut serving = proxy::Config::new(Access::SameUser { password: None });
        serving.stats = stats;
        catch(&network, tcp, udp, Lent::new(lends.proxy), serving, tasks)?;
        network.publish(publish, note, tasks)?;
        Ok(Caught::Network(network))
    }
}

fn cover(network: &Network, names: &Names) -> anyhow::Result<()> {
    let covered = network.cover(files(names));
    covered.map_err(|failure| anyhow::anyhow!("{failure}; --capture off goes without"))
}

/// Whether a command that may be captured can do with the session of another one: its names are
/// resolved without the rules of this one, and the other's proxies would be in its way.
pub(super) fn may_borrow(config: &Config) -> bool {
    config.capture == Capture::Off
        || config.routes.iter().next().is_none() && config.environment().proxies.used().is_empty()
}

/// Dials what comes to the sockets of a network.
fn catch<D: Dial + DialUdp>(
    network: &Network,
    tcp: Vec<std::net::TcpListener>,
    udp: Vec<UdpSocket>,
    dial: D,
    serving: proxy::Config,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let tcp = tcp.into_iter().map(tokio::net::TcpListener::from_std);
    let udp = udp.into_iter().map(tokio::net::UdpSocket::from_std);
    let captured = Captured {
        tcp: tcp.collect::<Result<_, _>>()?,
        udp: udp.collect::<Result<_, _>>()?,
        host: IpAddr::V4(HOST_V4),
    };
    let network = network.clone();
    let answers: AnswersFrom = Arc::new(move |address| {
        let network = network.clone();
        Box::pin(async move { network.answers_from(address).await })
    });
    captured.serve(dial, answers, serving, tasks);
    Ok(())
}

fn names(domain: &ClusterDomain, namespace: &str) -> Names {
    Names {
        namespace: namespace.to_owned(),
        domain: domain.name().to_owned(),
    }
}

/// The command `argv`, caught so.
///
/// # Errors
/// When there is none, or there are no descriptors left.
pub(super) fn command(
    caught: &Caught,
    argv: &[OsString],
    env: Vec<(String, String)>,
) -> anyhow::Result<Command> {
    let command = match caught {
        Caught::Network(network) => network.command(argv, env),
        Caught::Held(hold) => hold.command(argv, env),
    };
    command.context("the command's network cannot be handed over")
}

/// The file of a command that becomes another user as it starts, where this user is not root.
fn becomes_root(program: &OsString) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    const SETUID: u32 = 0o4000;
    if nix::unistd::geteuid().is_root() {
        return None;
    }
    let path = look_up(program)?;
    let mode = path.metadata().ok()?.mode();
    (mode & SETUID != 0).then_some(path)
}

/// Whether this machine has a way to the world by IPv6. Asks the routing table, and sends nothing.
fn leads_v6() -> bool {
    // Some address out there: of the block of which all public ones are.
    const WORLD: &str = "[2001:4860:4860::8888]:53";
    UdpSocket::bind("[::]:0").is_ok_and(|socket| socket.connect(WORLD).is_ok())
}
