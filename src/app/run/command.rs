//! A command like any other: with a session of its own, or beside a running `kdev connect`.

use std::ffi::OsString;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tracing::{Level, enabled, info};

use super::attend::{Proxy, attend};
use super::captured::{self, Caught, Making};
use super::unused::Unused;
use super::{
    CONNECTING, Observer, elapsed, give_back, intercepting, listening, not_started, note_dropped,
    settings,
};
use crate::app::connect::{listen, serve_laptop};
use crate::app::intercept::Planned;
use crate::app::registry::{self, Lease, Lends};
use crate::app::{Session, share};
use crate::config::Config;
use crate::proxy::Stats;
use crate::run::child::{Child, Command};
use crate::run::environment::ProxyAddress;
use crate::run::publish::Publish;
use crate::run::shell::Shell;
use crate::task::Tasks;
use crate::upstream::Proxies;

/// The variable that says where a command shall listen.
const PORT: &str = "PORT";

pub(super) async fn run(
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
        return borrowed(config, argv, lease, &lends, publish, observer).await;
    }
    let making = Making::begin(config, argv, observer)?;
    let listener = listen(config.proxy_listen).await?;
    let address = listener.local_addr()?;
    let session = observer
        .during(CONNECTING, Session::open_behind(config, Some(address)))
        .await?;
    serve_laptop(&session, config, listener, address, observer.teller());
    let caught = match captured::made(making, observer).await? {
        Some(idle) => {
            let serving = idle.serve(&session, config, publish, observer.teller());
            Some(serving.await?)
        }
        None => reachable_as_it_is(publish).map(|()| None)?,
    };
    let registration = session.register("run", vec![listening(&address.to_string())], None);
    let proxy = ProxyAddress::new(address.ip().to_string(), address.port());
    let settings = settings(&session, config, proxy);
    let mut variables = share::variables(config, &settings, &share::inherited());
    if caught.is_some() && session.proxies.used().is_empty() {
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
    let command = command(argv, &place, caught.as_ref(), variables.set, observer)?;
    let (session, intercepts) = intercepting(session, config, plan, observer).await?;
    session.client.release_terminal();
    let code = match Child::spawn(command) {
        Ok(child) => {
            let stats = &*session.stats;
            // An app whose requests come through kdev uses it already, and nothing gets past a
            // network of its own.
            let may_pass = plan.is_none() && caught.is_none();
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

/// The command `argv`, or a shell where that is empty, with variables and, where it is `caught`, so.
fn command(
    argv: &[OsString],
    place: &Place<'_>,
    caught: Option<&Caught>,
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
    let mut command = match caught {
        Some(caught) => captured::command(caught, argv, set)?,
        None => Command::new(argv, set).context("there is no command to run; write it after --")?,
    };
    command.inherit.extend(shell.and_then(|shell| shell.reads));
    Ok(command)
}

/// Ports that are to be published by a command in this machine's own network.
///
/// # Errors
/// When one of them would not be what the command listens on.
pub(super) fn reachable_as_it_is(publish: &[Publish]) -> anyhow::Result<()> {
    match publish
        .iter()
        .find(|publish| publish.at.port() != publish.port)
    {
        Some(publish) => anyhow::bail!(
            "--publish {publish} needs a network of the command's own, which it does not get; `kdev \
             doctor` says why"
        ),
        None => Ok(()),
    }
}

/// Runs a command beside a running `kdev connect`, whose session and proxy it uses.
async fn borrowed(
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
    let caught = match captured::made(making, observer).await? {
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
        None => reachable_as_it_is(publish).map(|()| None)?,
    };
    let settings = share::settings(config, &lease.report, lends);
    let mut variables = share::variables(config, &settings, &share::inherited());
    if caught.is_some() {
        variables.keep_own();
    } else {
        note_dropped(&variables, observer);
        note_replaced_proxy(&config.environment().proxies, observer);
    }
    let place = Place {
        namespace: &lease.report.namespace,
        context: &lease.report.context,
    };
    let command = command(argv, &place, caught.as_ref(), variables.set, observer)?;
    // Not as it was when the session was found: whether its proxy is alive was asked by a connection.
    let before = lease.look().await;
    let before = before.and_then(|report| report.app_connections_total);
    let before = before.filter(|_| caught.is_none());
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
