//! A container whose network is a companion's: what its programs send comes to kdev, and they need
//! no variables for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::sleep;
use tracing::{Instrument as _, debug, debug_span, field, info};

use super::containers::{session_id, stay};
use super::unused::Unused;
use super::{CONNECTING, Observer, give_back, intercepting};
use crate::addr::inside::HOST_V4;
use crate::addr::{Host, Protocol, Target};
use crate::app::install::binaries;
use crate::app::intercept::Planned;
use crate::app::named::Named;
use crate::app::session::Dialer;
use crate::app::{Note, Session, mine};
use crate::config::{Capture, Config};
use crate::dial::{Laptop, NAMESERVERS, Notes, Way as Leads};
use crate::dns::{self, Resolvers, Source};
use crate::proxy::{self, Access, Tunnelled};
use crate::run::container::ContainerRun;
use crate::run::container::companion::{Companion, Failed, Holder, Joining, Way};
use crate::task::Tasks;
use crate::tunnel::{self, Budget, Incoming};

/// What making the companion is called.
pub(super) const PREPARING: &str = "Preparing the container's network";
/// Bytes that the tunnel of a container may have on the way to this side.
const BUDGET: u32 = 64 << 20;
/// The first pause before a way that broke is made anew, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs the container, and gives its exit code; `None` where its connections cannot be captured and
/// need not be.
///
/// # Errors
/// When the cluster cannot be reached, or `--capture on` cannot be had.
pub(super) async fn run(
    config: &Config,
    run: &ContainerRun,
    request: Option<&Planned>,
    observer: &impl Observer,
) -> anyhow::Result<Option<u8>> {
    if config.capture == Capture::Off {
        return Ok(None);
    }
    let joining = match run.joining(&session_id()) {
        Ok(joining) => joining,
        Err(why) => {
            let why = format!("the container {why}");
            return without(config, &why, observer).map(|()| None);
        }
    };
    let resolvers = joining.resolvers().to_vec();
    let making = observer.during(PREPARING, make(joining));
    let opening = observer.during(CONNECTING, Session::open(config));
    let (made, session) = tokio::join!(making, opening);
    let (session, (companion, way)) = match (session, made) {
        (Ok(session), Ok(made)) => (session, made),
        (Ok(session), Err(failed)) => {
            session.close(Duration::ZERO).await;
            return match failed {
                // The user's own mistake, most likely, which is no better without kdev.
                Failed::Refused(error) => Err(error.into()),
                Failed::Uncaptured(why) => without(config, &why, observer).map(|()| None),
            };
        }
        (Err(error), made) => {
            if let Ok((companion, _)) = made {
                companion.end().await;
            }
            return Err(error);
        }
    };
    let result = serve(config, &session, &resolvers, observer.teller()).await;
    let serving = match result {
        Ok(serving) => serving,
        Err(error) => {
            companion.end().await;
            session.close(Duration::ZERO).await;
            return Err(error);
        }
    };
    info!("the container's connections come to kdev");
    let ways = session.tasks.child();
    let following = follow(
        companion.holder().clone(),
        way,
        serving,
        observer.teller(),
        ways.clone(),
    );
    ways.spawn(following);
    let registration = session.register("run", Vec::new(), None);
    let about = session.client.about();
    let variables = [
        ("KDEV_CONTEXT".to_owned(), about.context.clone()),
        ("KDEV_NAMESPACE".to_owned(), about.namespace.clone()),
    ];
    let prepared = companion.command(&variables);
    let begun = match prepared {
        Ok(prepared) => intercepting(session, config, request, observer)
            .await
            .map(|(session, intercepts)| (session, intercepts, prepared)),
        Err(error) => {
            session.close(Duration::ZERO).await;
            Err(error.into())
        }
    };
    let (session, intercepts, (command, started)) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            companion.end().await;
            return Err(error);
        }
    };
    session.client.release_terminal();
    let mut unused = Unused::container(None, Ipv4Addr::UNSPECIFIED.into(), "");
    let code = stay(
        command,
        &started,
        request,
        &session.stats,
        &mut unused,
        observer,
    )
    .await;
    drop(registration);
    give_back(intercepts, observer).await?;
    // A container that goes on needs its network; another process waits for its end.
    let goes_on = started.detached() && started.goes_on().await;
    ways.kill();
    if !goes_on {
        companion.end().await;
    }
    session.leave().await;
    code.map(Some)
}

/// Goes without, where that is allowed.
fn without(config: &Config, why: &str, observer: &impl Observer) -> anyhow::Result<()> {
    if config.capture == Capture::On {
        anyhow::bail!("{why}, so its connections cannot be captured; --capture off goes without");
    }
    observer.remark(&format!(
        "only programs that read proxy variables reach the cluster from this container: {why}"
    ));
    Ok(())
}

async fn make(joining: Joining) -> Result<(Companion, Way), Failed> {
    joining.make(program).await
}

/// The program of companions for a machine.
pub(super) async fn program(machine: String) -> Result<Vec<u8>, String> {
    let say = |text: &str| info!("{text}");
    let program = binaries::for_machine(&machine, &say).await;
    program.map_err(|error| error.to_string())
}

/// What serves the streams of a container.
#[derive(Clone)]
pub(super) struct Serving {
    router: Dialer,
    /// To the cluster, and to this machine where that is allowed.
    through: Tunnelled<Named>,
    /// To kdev's own nameserver.
    names: Tunnelled<Laptop>,
    nameserver: Target,
}

/// Begins to serve names, with `resolvers` asked for what is not the cluster's, or those of this machine.
pub(super) async fn serve(
    config: &Config,
    session: &Session,
    resolvers: &[String],
    note: Note,
) -> anyhow::Result<Serving> {
    let sockets = dns::Sockets::bind(None).await?;
    let nameserver = target(sockets.address());
    let source = match resolvers.is_empty() {
        true => Source::system(),
        false => {
            let lines = resolvers.iter().map(|ip| format!("nameserver {ip}\n"));
            Source::fixed(Resolvers::parse(lines.collect::<String>().as_bytes()))
        }
    };
    dns::serve_inside(
        sockets,
        session.catalog.clone(),
        source,
        session.inside().deciding(),
        &session.tasks,
    );
    let router = session.dialer(config.host_loopback);
    let marker = mine::marker(session, config, note);
    let dialer = Named::new(router.clone().with_marker(marker), session.catalog.clone());
    let mut serving = proxy::Config::new(Access::SameUser { password: None });
    serving.stats = session.stats.clone();
    serving.refusals = session.refusals();
    let uncounted = proxy::Config::new(Access::SameUser { password: None });
    Ok(Serving {
        router,
        through: Tunnelled::new(dialer, serving, &session.tasks),
        names: Tunnelled::new(Laptop { loopback: true }, uncounted, &session.tasks),
        nameserver,
    })
}

fn target(address: SocketAddr) -> Target {
    Target::new(Host::Ip(address.ip()), address.port())
}

/// Serves what comes by `way`, and by those that follow it, until `tasks` drain.
pub(super) async fn follow(holder: Holder, way: Way, serving: Serving, note: Note, tasks: Tasks) {
    let what = holder.what();
    let mut next = Some(way);
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(way) = next.take() {
            tokio::select! {
                () = tasks.draining() => return,
                () = carry(way, &serving, &tasks) => {
                    note(&format!("the way to {what} broke; it is made anew"));
                }
            }
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = tasks.draining() => return,
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
        match holder.connect().await {
            Ok(way) => next = Some(way),
            Err(why) if holder.stands().await => debug!(why, what, "no way"),
            Err(_) => {
                return note(&format!(
                    "the companion of {what} is gone and with it the network; run it anew"
                ));
            }
        }
    }
}

/// Serves what comes by `way` until that has ended.
async fn carry(mut way: Way, serving: &Serving, tasks: &Tasks) {
    if let Some(troubles) = way.troubles() {
        tasks.spawn(async move {
            let mut lines = BufReader::new(troubles).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                debug!(line, "the companion");
            }
        });
    }
    let Some(share) = Budget::new(BUDGET).share() else {
        return;
    };
    let mut listener = match tunnel::serve(way, share).await {
        Ok(listener) => listener,
        Err(error) => return debug!(%error, "no tunnel to the container"),
    };
    while let Some(incoming) = listener.next().await {
        let span = debug_span!("conn", target = field::Empty);
        let serving = serving.clone();
        tasks.spawn(async move { serving.one(incoming).await }.instrument(span));
    }
    debug!(ended = ?listener.ended(), "the tunnel to the container");
}

impl Serving {
    async fn one(&self, incoming: Incoming) {
        let target = match &incoming.target.host {
            Host::Name(name) if name == NAMESERVERS => {
                return self.names.serve(incoming, &self.nameserver).await;
            }
            Host::Ip(IpAddr::V4(HOST_V4)) => {
                let loopback = Host::Ip(Ipv4Addr::LOCALHOST.into());
                let target = Target::new(loopback, incoming.target.port);
                return self.through.serve(incoming, &target).await;
            }
            _ => incoming.target.clone(),
        };
        let protocol = match incoming.protocol {
            tunnel::Protocol::Udp => Protocol::Udp,
            tunnel::Protocol::Tcp | tunnel::Protocol::Control => Protocol::Tcp,
        };
        let mut notes = Notes::off();
        let deciding = self.router.decide_for(&target, protocol, &mut notes);
        // Boxed, since it is large and a stream lives much longer.
        if matches!(Box::pin(deciding).await.way, Leads::Laptop) {
            return incoming.decline();
        }
        self.through.serve(incoming, &target).await;
    }
}
