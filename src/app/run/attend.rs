//! Standing beside a command until it has ended.

use std::time::Duration;

use super::Observer;
use super::unused::Unused;
use crate::app::connections::Echo;
use crate::app::feed::Line;
use crate::app::registry::Lease;
use crate::proxy::Stats;
use crate::run::child::Child;
use crate::run::container::Started;

/// How long a command may take to end after SIGTERM before it is killed: what Kubernetes gives a
/// pod.
const GRACE: Duration = Duration::from_secs(30);
/// The same for a container, as `docker stop` has it. A program that is PID 1 and handles no SIGTERM
/// does not even notice it.
const CONTAINER_GRACE: Duration = Duration::from_secs(10);
/// How long the engine's own command may go on after its container was killed.
const ENGINE_GRACE: Duration = Duration::from_secs(5);
/// How long another command's session may take to say what it knows of a command that has ended: a
/// moment, as it waits for nothing itself.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The proxy that a command has.
pub(super) enum Proxy<'a> {
    /// One of its own, which counts here.
    Own(&'a Stats),
    /// That of a running `kdev connect`.
    Lent(&'a mut Lease),
    /// The same, after it has ended.
    Gone,
}

/// What a lent proxy tells.
enum Told {
    Line(Line),
    End,
}

impl Proxy<'_> {
    /// The connections that came so far.
    pub(super) async fn came(&self) -> Option<u64> {
        match self {
            Self::Own(stats) => Some(stats.snapshot().came()),
            Self::Lent(lease) => lease.look().await?.app_connections_total,
            Self::Gone => None,
        }
    }

    /// What happens next at it. Cancel-safe.
    async fn next(&mut self) -> Told {
        match self {
            Self::Lent(lease) => lease.next().await.map_or(Told::End, Told::Line),
            Self::Own(_) | Self::Gone => std::future::pending().await,
        }
    }

    /// What it has to tell still, after a command has ended.
    async fn last_words(&mut self) -> Vec<Line> {
        match self {
            Self::Lent(lease) => lease.until_now(LAST_WORDS).await,
            Self::Own(_) | Self::Gone => Vec::new(),
        }
    }
}

/// Waits for the end of `child`, which is the engine's command where there is a `container`, and
/// gives its exit code. When `over` completes it is asked to end, as by SIGTERM; and whatever is
/// asked to end and does not is killed.
pub(super) async fn attend(
    mut child: Child,
    container: Option<&Started>,
    mut over: impl Future<Output = ()> + Unpin,
    mut proxy: Proxy<'_>,
    unused: &mut Unused,
    observer: &impl Observer,
) -> anyhow::Result<u8> {
    let (mut is_over, mut killed) = (false, false);
    let echo = Echo::default();
    let code = loop {
        let grace = match (container, killed) {
            (None, _) => GRACE,
            (Some(_), false) => CONTAINER_GRACE,
            (Some(_), true) => ENGINE_GRACE,
        };
        tokio::select! {
            biased;
            end = child.wait_within(grace) => match (end?, container) {
                (Some(code), _) => break code,
                (None, Some(container)) if !killed => {
                    say_killed(unused, grace, observer);
                    container.kill().await;
                    killed = true;
                }
                (None, _) => {
                    if container.is_none() {
                        say_killed(unused, grace, observer);
                    }
                    child.kill()?;
                }
            },
            () = &mut over, if !is_over => {
                is_over = true;
                child.end();
            }
            told = proxy.next() => match told {
                // The connection may be this command's.
                Told::Line(line) => echo.say(&line),
                Told::End => {
                    say_alone(&proxy, observer);
                    proxy = Proxy::Gone;
                }
            },
            () = unused.due() => {
                let came = proxy.came().await;
                unused.look(came, observer);
            }
        }
    };
    for line in proxy.last_words().await {
        echo.say(&line);
    }
    if !container.is_some_and(Started::detached) {
        unused.ended(code, proxy.came().await, observer);
    }
    Ok(code)
}

fn say_killed(unused: &Unused, grace: Duration, observer: &impl Observer) {
    observer.note(&format!(
        "{} did not end within {} s after SIGTERM, and is killed",
        unused.name(),
        grace.as_secs()
    ));
}

/// Says that the session of another command has ended.
fn say_alone(proxy: &Proxy<'_>, observer: &impl Observer) {
    let Proxy::Lent(lease) = proxy else {
        return;
    };
    let lender = lease.report.pid;
    let again = lease.report.lends.as_ref().map(|lends| lends.proxy);
    let again = again.map_or_else(String::new, |again| {
        format!("`kdev connect --proxy-listen {again}` gives it back, ")
    });
    observer.note(&format!(
        "the `kdev connect` (pid {lender}) that this command uses has ended, so it reaches nothing \
         any more; {again}--own-session makes `run` independent"
    ));
}
