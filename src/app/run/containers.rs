//! The container that a command starts.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::net::TcpListener;
use tracing::{debug, info};

use super::attend::{Proxy, attend};
use super::joined;
use super::unused::Unused;
use super::{
    CONNECTING, Observer, elapsed, give_back, intercepting, listening, not_started, note_dropped,
    settings,
};
use crate::app::intercept::Planned;
use crate::app::{Note, Session, mine, signals};
use crate::config::Config;
use crate::proxy::{self, Access, AllowedPeers, Password, Stats};
use crate::run::child::{Child, Command};
use crate::run::container::{ContainerRun, Finding, Peers, Plan, Started};
use crate::run::environment::Credentials;

/// The user name in the proxy URL of a container; only the password matters.
const PROXY_USER: &str = "kdev";

/// How long a container may take to try the way to kdev, which holds the user's own up. A firewall
/// that drops packets shows after two seconds, and starting a container takes half a second.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn run(
    config: &Config,
    run: &ContainerRun,
    request: Option<&Planned>,
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    if let Some(code) = joined::run(config, run, request, observer).await? {
        return Ok(code);
    }
    // Before the cluster: what the engine refuses costs no login.
    let plan = run.plan().await?;
    plan.notes.iter().for_each(|note| observer.remark(note));
    let listener = plan
        .listen
        .bind(config.proxy_listen.map_or(0, |address| address.port()))?;
    let address = listener.local_addr()?;
    let id = session_id();
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
    let before = request.is_none().then(|| session.stats.snapshot().came());
    let mut unused = Unused::container(before, plan.listen.ip, &plan.advertised_host);
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
    session.leave().await;
    code
}

/// Starts `command`, whose container `started` is, and stays until that has ended, or until it is left
/// running in the background. Gives its exit code.
pub(super) async fn stay(
    command: Command,
    started: &Started,
    request: Option<&Planned>,
    stats: &Stats,
    unused: &mut Unused,
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    let mut over = pin!(elapsed(request));
    let code = match Child::spawn(command) {
        Ok(child) => {
            let proxy = Proxy::Own(stats);
            attend(child, Some(started), &mut over, proxy, unused, observer).await?
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

/// Unique among all sessions that use an engine.
pub(super) fn session_id() -> String {
    format!("{}-{:08x}", std::process::id(), rand::random::<u32>())
}

/// 128 random bits in hexadecimal: good in a URL, in an environment and in a SOCKS message.
fn password() -> String {
    format!("{:032x}", rand::random::<u128>())
}
