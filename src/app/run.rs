//! `kdev run`: a command, or the container that a command starts, sees the cluster.

mod attend;
#[cfg(target_os = "linux")]
mod captured;
#[cfg(not(target_os = "linux"))]
#[path = "run/uncaptured.rs"]
mod captured;
mod command;
mod composed;
mod containers;
mod joined;
mod unused;

use std::ffi::OsString;
use std::time::Duration;

use super::intercept::{Intercepts, Planned, Started};
use super::registry::Listening;
use super::signals::Ending;
use super::{Note, Session};
use crate::config::Config;
use crate::run::child::SpawnError;
use crate::run::container::{self, Detected};
use crate::run::environment::{ProxyAddress, Settings, Variables};
use crate::run::publish::Publish;

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

/// What is asked for beside the command.
#[derive(Default)]
pub struct Beside<'a> {
    /// The Services that are intercepted meanwhile.
    pub plan: Option<&'a Planned>,
    /// The command's ports that are reachable at another address.
    pub publish: &'a [Publish],
    /// The services of a project that shall see the cluster; all, where none is named.
    pub only: &'a [String],
}

/// Runs `argv` with a way into the cluster and gives its exit code.
///
/// # Errors
/// When the cluster cannot be reached, or the command cannot work with kdev. A command that does
/// not exist or cannot be executed is an exit code, 127 or 126, with a note.
pub async fn run(
    config: &Config,
    argv: &[OsString],
    beside: &Beside<'_>,
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    let Beside {
        plan,
        publish,
        only,
    } = *beside;
    match container::detect(argv)? {
        Detected::Command { .. } | Detected::Container(_) if !only.is_empty() => {
            anyhow::bail!(
                "--only names services of a project of Compose, and this command has none"
            )
        }
        Detected::Command { note } => {
            note.iter().for_each(|note| observer.remark(note));
            // Boxed, each: they are large, and no two of them run.
            Box::pin(command::run(config, argv, plan, publish, observer)).await
        }
        Detected::Plain => composed::plain(argv, observer).await,
        Detected::Container(_) | Detected::Compose(_) if !publish.is_empty() => {
            anyhow::bail!(
                "--publish is for commands; a container has its engine's own flag, or `ports`"
            )
        }
        Detected::Container(_) | Detected::Compose(_)
            if plan.is_some_and(|plan| plan.port.is_some()) =>
        {
            anyhow::bail!("say --to PORT, the port of this laptop that the container publishes")
        }
        Detected::Container(run) => Box::pin(containers::run(config, &run, plan, observer)).await,
        Detected::Compose(run) => {
            Box::pin(composed::run(config, &run.only(only), plan, observer)).await
        }
    }
}

/// Completes when the time of what is planned is over, counted from now on.
async fn elapsed(plan: Option<&Planned>) {
    match plan.and_then(|plan| plan.terms.lasts) {
        Some(lasts) => tokio::time::sleep(lasts).await,
        None => std::future::pending().await,
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

fn not_started(error: &SpawnError, observer: &impl Observer) -> u8 {
    observer.note(&error.to_string());
    error.exit_code()
}
