//! `kdev run`: a command, or the container that a command starts, sees the cluster.

mod attend;
#[cfg(target_os = "linux")]
mod captured;
#[cfg(not(target_os = "linux"))]
#[path = "run/uncaptured.rs"]
mod captured;
mod unused;

use std::ffi::OsString;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::{Either, select};
use tokio::net::TcpListener;
use tracing::{Level, debug, enabled, info};

use self::attend::{Proxy, attend};
use self::captured::{Making, Network};
use self::unused::Unused;
use super::connect::{listen, serve_laptop};
use super::intercept::{Intercepts, Planned, Started};
use super::registry::{self, Lease, Lends, Listening};
use super::signals::{self, Ending};
use super::{Note, Session, mine, share};
use crate::config::Config;
use crate::proxy::{self, Access, AllowedPeers, Password, Stats};
use crate::run::child::{Child, Command, SpawnError};
use crate::run::container::{self, ContainerRun, Detected, Finding, Peers, Plan};
use crate::run::environment::{Credentials, ProxyAddress, Settings, Variables};
use crate::run::publish::Publish;
use crate::run::shell::Shell;
use crate::task::Tasks;
use crate::upstream::Proxies;

/// The user name in the proxy URL of a container; only the password matters.
const PROXY_USER: &str = "kdev";

/// What the user hears and sees beside the command itself.
pub trait Observer {
    /// A line that the user must read.
    fn note(&self, text: &str);

    /// A line that helps, and that may be left out.
    fn remark(&self, text: &str);

    /// Says lines that help while the command runs.
    fn teller(&self) -> Note;

    /// Waits for `work`, and shows that `what` goes on when it takes long.
    fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> impl Future<Output = T>;
}

/// What opening a session is called while it goes on.
const CONNECTING: &str = "Connecting to the cluster";
/// What beginning an intercept is called.
const INTERCEPTING: &str = "Intercepting";
/// What giving back what was intercepted is called.
const GIVING_BACK: &str = "Giving back what was intercepted";
/// How long a container may take to try the way to kdev, which holds the user's own up. A firewall
/// that drops packets shows after two seconds, and starting a container takes half a second.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// The variable that says where a command shall listen.
const PORT: &str = "PORT";

/// Runs `argv` with a way into the cluster and gives its exit code. With a `plan`, Services are
/// intercepted meanwhile.
///
/// # Errors
/// When the cluster cannot be reached, or the command cannot work with kdev. A command that does
/// not exist or cannot be executed is an exit code, 127 or 126, with a note.
pub async fn run(
    config: &Config,
    argv: &[OsString],
    plan: Option<&Planned>,
    publish: &[Publish],
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    match container::detect(argv)? {
        Detected::Command { note } => {
            note.iter().for_each(|note| observer.remark(note));
            run_command(config, argv, plan, publish, observer).await
        }
        Detected::Container(_) if !publish.is_empty() => {
            anyhow::bail!("--publish is for commands; a container has -p of its engine for that")
        }
        Detected::Container(run) => {
            if plan.is_some_and(|plan| plan.port.is_some()) {
                anyhow::bail!(
                    "say --to PORT, the port of this laptop that the container publishes"
                );
            }
            run_container(config, &run, plan, observer).await
        }
    }
}

async fn run_command(
    config: &Config,
    argv: &[OsString],
    plan: Option<&Planned>,
    publish: &[Publish],
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    // What is intercepted is the session's own.
    if !config.own_session
        && plan.is_none()
        && captured::may_borrow(config)
        && let Some((lease, lends)) = share::borrow(config).await
    {
        return run_borrowed(config, argv, lease, &lends, publish, observer).await;
    }
    let making = Making::begin(config, argv, observer)?;
    let listener = listen(config.proxy_listen).await?;
    let address = listener.local_addr()?;
    let session = observer
        .during(CONNECTING, Session::open_behind(config, Some(address)))
        .await?;
    serve_laptop(&session, config, listener, address, observer.teller());
    let network = match making {
        Some(making) => making.made(observer).await?,
        None => None,
    };
    let network = match network {
        Some(idle) => Some(idle.serve(&session, config, publish, observer.teller())?),
        None => reachable_as_it_is(publish)?,
    };
    let registration = session.register("run", vec![listening(&address.to_string())], None);
    let proxy = ProxyAddress::new(address.ip().to_string(), address.port());
    let settings = settings(&session, config, proxy);
    let mut variables = share::variables(config, &settings, &share::inherited());
    if network.is_some() && session.proxies.used().is_empty() {
        variables.keep_own();
    } else {
        note_dropped(&variables, observer);
        note_replaced_proxy(&session.proxies, observer);
    }
    let port = plan.and_then(|plan| plan.port);
    let port = port.map(|port| (PORT.to_owned(), port.to_string()));
    variables.set.extend(port);
    let about = session.client.about();
    let place = Place {
        namespace: &about.namespace,
        context: &about.context,
    };
    let command = command(argv, &place, network.as_ref(), variables.set, observer)?;
    let (session, intercepts) = intercepting(session, config, plan, observer).await?;
    session.client.release_terminal();
    let code = match Child::spawn(command) {
        Ok(child) => {
            let stats = &*session.stats;
            // An app whose requests come through kdev uses it already, and nothing gets past a
            // network of its own.
            let may_pass = plan.is_none() && network.is_none();
            let before = may_pass.then(|| stats.snapshot().came());
            let mut unused = Unused::new(argv, before);
            let over = pin!(elapsed(plan));
            attend(child, None, over, Proxy::Own(stats), &mut unused, observer).await
        }
        Err(error) => Ok(not_started(&error, observer)),
    };
    drop(registration);
    give_back(intercepts, observer).await?;
    session.leave().await;
    code
}

/// Where a shell is.
struct Place<'a> {
    namespace: &'a str,
    context: &'a str,
}

/// The command `argv`, or a shell where that is empty, with variables and in `network`.
fn command(
    argv: &[OsString],
    place: &Place<'_>,
    network: Option<&Network>,
    mut set: Vec<(String, String)>,
    observer: &impl Observer,
) -> anyhow::Result<Command> {
    let mut shell = None;
    if argv.is_empty() {
        let Place { namespace, context } = place;
        observer.remark(&format!(
            "this shell is inside the cluster, in namespace {namespace} of context {context}; \
             `exit` leaves it"
        ));
        let new = Shell::new(std::env::var_os("SHELL"), namespace);
        let new = shell.insert(new.context("the shell cannot be prepared")?);
        set.append(&mut new.env);
    }
    let argv = shell.as_ref().map_or(argv, |shell| &shell.argv);
    let mut command = match network {
        Some(network) => captured::command(network, argv, set)?,
        None => Command::new(argv, set).context("there is no command to run; write it after --")?,
    };
    command.inherit.extend(shell.and_then(|shell| shell.reads));
    Ok(command)
}

/// No network, for ports that are to be published without one.
///
/// # Errors
/// When one of them would not be what the command listens on.
fn reachable_as_it_is(publish: &[Publish]) -> anyhow::Result<Option<Network>> {
    match publish
        .iter()
        .find(|publish| publish.at.port() != publish.port)
    {
        Some(publish) => anyhow::bail!(
            "--publish {publish} needs a network of the command's own, which it does not get; with \
             --capture on kdev says why"
        ),
        None => Ok(None),
    }
}

/// Completes when the time of what is planned is over, counted from now on.
async fn elapsed(plan: Option<&Planned>) {
    match plan.and_then(|plan| plan.terms.lasts) {
        Some(lasts) => tokio::time::sleep(lasts).await,
        None => std::future::pending().await,
    }
}

/// Runs a command beside a running `kdev connect`, whose session and proxy it uses.
async fn run_borrowed(
    config: &Config,
    argv: &[OsString],
    mut lease: Lease,
    lends: &Lends,
    publish: &[Publish],
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    let making = Making::begin(config, argv, observer)?;
    let lender = lease.report.pid;
    info!(
        "using the session of `kdev connect` (pid {lender}, proxy {}); connections of other commands \
         that use it are shown too (--own-session keeps them apart)",
        lends.proxy
    );
    if enabled!(Level::INFO) {
        lease.show_connections().await;
    }
    let tasks = Tasks::new();
    let registration = registry::register_borrower("run", &lease.report, &tasks);
    let network = match making {
        Some(making) => making.made(observer).await?,
        None => None,
    };
    let network = match network {
        Some(idle) => {
            let stats = Arc::new(Stats::default());
            Some(idle.serve_lent(
                &lease.report,
                lends,
                publish,
                stats,
                observer.teller(),
                &tasks,
            )?)
        }
        None => reachable_as_it_is(publish)?,
    };
    let settings = share::settings(config, &lease.report, lends);
    let mut variables = share::variables(config, &settings, &share::inherited());
    if network.is_some() {
        variables.keep_own();
    } else {
        note_dropped(&variables, observer);
        note_replaced_proxy(&config.environment().proxies, observer);
    }
    let place = Place {
        namespace: &lease.report.namespace,
        context: &lease.report.context,
    };
    let command = command(argv, &place, network.as_ref(), variables.set, observer)?;
    // Not as it was when the session was found: whether its proxy is alive was asked by a connection.
    let before = lease.look().await;
    let before = before.and_then(|report| report.app_connections_total);
    let before = before.filter(|_| network.is_none());
    let code = match Child::spawn(command) {
        Ok(child) => {
            let mut unused = Unused::new(argv, before);
            let over = std::future::pending();
            let proxy = Proxy::Lent(&mut lease);
            attend(child, None, over, proxy, &mut unused, observer).await?
        }
        Err(error) => not_started(&error, observer),
    };
    drop(registration);
    tasks.shutdown(Duration::ZERO).await;
    Ok(code)
}

async fn run_container(
    config: &Config,
    run: &ContainerRun,
    request: Option<&Planned>,
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    // Before the cluster: what the engine refuses costs no login.
    let plan = run.plan().await?;
    plan.notes.iter().for_each(|note| observer.remark(note));
    let listener = plan
        .listen
        .bind(config.proxy_listen.map_or(0, |address| address.port()))?;
    let address = listener.local_addr()?;
    // Unique among all sessions that use this engine.
    let id = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
    let session = open_and_probe(config, &plan, &listener, &id, observer).await?;
    let secret = password();
    serve_container(
        &session,
        listener,
        &plan,
        &id,
        &secret,
        config,
        observer.teller(),
    );
    let registration = session.register("run", vec![listening(&address.to_string())], None);
    let credentials = Credentials {
        user: PROXY_USER.to_owned(),
        password: secret,
    };
    let settings = settings(&session, config, plan.proxy(address.port(), credentials));
    let variables = plan.variables(&settings);
    note_dropped(&variables, observer);
    let (command, started) = plan.command(&id, &variables.set)?;
    let (session, intercepts) = intercepting(session, config, request, observer).await?;
    session.client.release_terminal();
    let running = async {
        let stats = &*session.stats;
        let before = request.is_none().then(|| stats.snapshot().came());
        let mut unused = Unused::container(before, plan.listen.ip, &plan.advertised_host);
        let mut over = pin!(elapsed(request));
        let code = match Child::spawn(command) {
            Ok(child) => {
                let proxy = Proxy::Own(stats);
                attend(
                    child,
                    Some(&started),
                    &mut over,
                    proxy,
                    &mut unused,
                    observer,
                )
                .await?
            }
            Err(error) => not_started(&error, observer),
        };
        if code != 0 || !started.detached() {
            return Ok(code);
        }
        observer.note(&started.stays());
        let mut following = pin!(signals::unless_told(started.follow()));
        loop {
            tokio::select! {
                biased;
                ended = &mut following => match ended? {
                    Ok(code) => {
                        let code = code?;
                        unused.ended(code, Some(stats.snapshot().came()), observer);
                        return Ok(code);
                    }
                    Err(number) => {
                        observer.note(&started.farewell());
                        return Ok(128 + number);
                    }
                },
                () = &mut over => {
                    observer.note(&started.farewell());
                    return Ok(0);
                }
                () = unused.due() => unused.look(Some(stats.snapshot().came()), observer),
            }
        }
    };
    let code = running.await;
    drop(registration);
    give_back(intercepts, observer).await?;
    session.leave().await;
    code
}

/// Opens the session for a container while another one tries the way to `listener`. What does not
/// reach it is refused before it is started; where nothing is found out, it is let go on.
async fn open_and_probe(
    config: &Config,
    plan: &Plan,
    listener: &TcpListener,
    id: &str,
    observer: &impl Observer,
) -> anyhow::Result<Session> {
    let address = listener.local_addr()?;
    let opening = pin!(observer.during(CONNECTING, Session::open_behind(config, Some(address))));
    let probing = pin!(async {
        match plan.probe(listener, id, PROBE_LIMIT).await {
            Finding::Unreached(unreached) => return Err(unreached),
            Finding::Untold(why) => info!("not known whether the container reaches kdev: {why}"),
            found @ Finding::Reached { .. } => debug!(?found, "a container reaches kdev"),
        }
        Ok(())
    });
    match select(opening, probing).await {
        Either::Left((session, probing)) => {
            let session = session?;
            if let Err(error) = probing.await {
                session.close(Duration::ZERO).await;
                return Err(error.into());
            }
            Ok(session)
        }
        Either::Right((reached, opening)) => {
            reached?;
            opening.await
        }
    }
}

/// Begins what is planned, if anything; where that fails the session is closed.
async fn intercepting(
    session: Session,
    config: &Config,
    plan: Option<&Planned>,
    observer: &impl Observer,
) -> anyhow::Result<(Session, Option<Intercepts>)> {
    let Some(plan) = plan else {
        return Ok((session, None));
    };
    let mut ending = Ending::listen()?;
    let starting = plan.start(&session, config, &mut ending);
    match observer.during(INTERCEPTING, starting).await {
        Ok(Started::Live(intercepts)) => Ok((session, Some(intercepts))),
        Ok(Started::Told(_, begun)) => {
            if let Some(begun) = begun {
                begun.give_back(&mut ending).await;
            }
            session.close(Duration::ZERO).await;
            anyhow::bail!("it was told to end before the command began");
        }
        Err(error) => {
            session.close(Duration::ZERO).await;
            Err(error)
        }
    }
}

/// Ends what was intercepted while a command ran. Of the signals that ended the command some may come
/// only now.
async fn give_back(intercepts: Option<Intercepts>, observer: &impl Observer) -> anyhow::Result<()> {
    if let Some(intercepts) = intercepts {
        let mut ending = Ending::listen()?;
        let giving_back = intercepts.give_back(&mut ending);
        observer.during(GIVING_BACK, giving_back).await;
    }
    Ok(())
}

/// Serves the containers of this session, and whoever knows its password.
fn serve_container(
    session: &Session,
    listener: TcpListener,
    plan: &Plan,
    id: &str,
    secret: &str,
    settings: &Config,
    note: Note,
) {
    let password = Password::new(secret);
    let access = match plan.peers {
        Peers::Containers => {
            let allowed = AllowedPeers::default();
            plan.watch(id, allowed.clone(), &session.tasks);
            Access::Peers { allowed, password }
        }
        Peers::Password => Access::Peers {
            allowed: AllowedPeers::default(),
            password,
        },
        Peers::ThisMachine(ip) => Access::OnlyFrom { ip, password },
    };
    let mut config = proxy::Config::new(access);
    config.stats = session.stats.clone();
    config.refusals = session.refusals();
    let marker = mine::marker(session, settings, note);
    let dialer = session.dialer(settings.host_loopback).with_marker(marker);
    session.tasks.spawn(proxy::serve(
        listener,
        dialer,
        config,
        session.tasks.clone(),
    ));
}

fn settings(session: &Session, config: &Config, proxy: ProxyAddress) -> Settings {
    let about = session.client.about();
    Settings {
        proxy,
        direct: Vec::new(),
        domain: session.domain().name().to_owned(),
        context: Some(about.context.clone()),
        namespace: Some(about.namespace.clone()),
        all_proxy: config.all_proxy,
    }
}

fn listening(address: &str) -> Listening {
    Listening {
        purpose: "proxy".to_owned(),
        address: address.to_owned(),
        target: None,
    }
}

fn note_dropped(variables: &Variables, observer: &impl Observer) {
    if !variables.dropped_no_proxy.is_empty() {
        observer.remark(&format!(
            "left out of NO_PROXY, since it would keep the program from the cluster: {}",
            variables.dropped_no_proxy.join(", ")
        ));
    }
}

/// Says what becomes of the proxy of the user's environment, whose place kdev's takes.
fn note_replaced_proxy(proxies: &Proxies, observer: &impl Observer) {
    // Inside another `kdev run` the proxy is that one's, and there is nothing to tell.
    if std::env::var_os("KDEV_HTTP").is_some() {
        return;
    }
    let used = proxies.used().into_iter();
    let set: Vec<String> = used
        .filter_map(|(name, chosen)| match chosen {
            Ok(chosen) => Some(format!("{name} ({})", chosen?.proxy.url())),
            Err(error) => Some(error.to_string()),
        })
        .collect();
    if !set.is_empty() {
        observer.remark(&format!(
            "the command gets kdev's proxy in place of yours; what is not the cluster's goes on \
             through {}, as NO_PROXY says",
            set.join(" and ")
        ));
    }
}

fn not_started(error: &SpawnError, observer: &impl Observer) -> u8 {
    observer.note(&error.to_string());
    error.exit_code()
}

/// 128 random bits in hexadecimal: good in a URL, in an environment and in a SOCKS message.
fn password() -> String {
    format!("{:032x}", rand::random::<u128>())
}
