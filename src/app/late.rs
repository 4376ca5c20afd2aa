//! What leads late callers of a Service to its pods after an intercept, and its end.
//!
//! Nodes lag, so callers come to the relay for a moment after a Service has its own pods again, and find
//! their way by what the intercept put there. Nobody waits for that at a terminal: a helper does, which
//! is kdev itself without one. What it could not clear away, the next kdev does that looks there.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::Config;
use crate::intercept::reverse::Reverse;
use crate::k8s::Client;
use crate::k8s::kubeconfig::IN_CLUSTER;
use crate::k8s::redirect::Doing;
use crate::k8s::redirect::list::{Intercepted, Scope};
use crate::k8s::redirect::sweep::{Last, LateCallers, Stays, clear};
use crate::rule::control::Tell;

/// The command that is the helper.
pub const COMMAND: &str = "clear";
/// How long the helper waits for callers who still come: what is in use for longer is left to the next
/// kdev.
pub const HELPER: Duration = Duration::from_secs(90);
/// How long the helper may take to leave the terminal: it starts in a hundredth of a second.
const STARTS: Duration = Duration::from_secs(2);

/// What starts the helper.
#[derive(Clone, Debug)]
pub(super) struct Helper {
    /// Which cluster, user and namespace it is, as variables.
    environment: Vec<(String, String)>,
}

impl Helper {
    pub(super) fn new(config: &Config, client: &Client) -> Self {
        let mut environment = config.command_line.clone();
        // The kubeconfig's own may be another one by then.
        let context = &client.about().context;
        if context != IN_CLUSTER {
            environment.push(("KDEV_CONTEXT".to_owned(), context.clone()));
        }
        let namespace = client.namespace().to_owned();
        environment.push(("KDEV_NAMESPACE".to_owned(), namespace));
        Self { environment }
    }

    /// Starts it, and waits until it is out of reach of the terminal's signals.
    pub(super) async fn start(&self) {
        if let Err(error) = self.started().await {
            tracing::debug!("what late callers need is left to the next kdev: {error:#}");
        }
    }

    async fn started(&self) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("which program is this")?;
        let mut helper = Command::new(program)
            .arg(COMMAND)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("the helper does not start")?;
        let mut out = helper.stdout.take().context("it has no output")?;
        let said = timeout(STARTS, out.read_u8()).await;
        said.context("the helper says nothing")?
            .context("the helper has ended")?;
        Ok(())
    }
}

/// The relay's replicas, as far as they answer.
pub(super) struct ByRelay<'a>(pub(super) &'a Reverse);

impl LateCallers for ByRelay<'_> {
    fn last<'a>(&'a self, found: &'a Intercepted) -> Doing<'a, Last> {
        Box::pin(async move {
            let (mut answered, mut last) = (false, None);
            for (_, landing) in &found.landings {
                for tell in self.0.look(*landing).await {
                    let Tell::Seen { ago, .. } = tell else {
                        continue;
                    };
                    answered = true;
                    last = [last, ago].into_iter().flatten().min();
                }
            }
            match (answered, last) {
                (false, _) => Last::Unknown,
                (true, None) => Last::Never,
                (true, Some(ago)) => Last::Ago(Duration::from_millis(ago)),
            }
        })
    }
}

/// Clears away what is due in a namespace, and gives what stays; none where it may not.
pub(super) async fn clear_due(
    client: &Client,
    namespace: &str,
    late: &dyn LateCallers,
) -> Option<Vec<Stays>> {
    let scope = Scope::Namespace(namespace.to_owned());
    let cleared = clear(client, &scope, &|_| true, late, Duration::ZERO).await;
    cleared
        .inspect_err(|error| {
            tracing::debug!(%error, namespace, "what late callers needed stays");
        })
        .ok()
}
