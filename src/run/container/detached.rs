//! Containers that go on after the engine's command has ended (`-d`).

use std::time::Duration;

use serde_json::Value;

use super::engine::Kind;
use super::{ContainerError, Started};

/// Pause between two looks at a container that its restart policy keeps alive, so that a
/// container that fails at once does not keep kdev busy.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

impl Started {
    /// Whether the engine's command ends while the container goes on.
    #[must_use]
    pub fn detached(&self) -> bool {
        self.plan.detached()
    }

    /// What to tell the user when kdev ends before the container: it is left running, as one that
    /// was started with `-d` is expected to.
    #[must_use]
    pub fn farewell(&self) -> String {
        let id = self.container_id().unwrap_or_default();
        let id = id.get(..12).unwrap_or("CONTAINER");
        format!(
            "the container {id} keeps running, without its way to the cluster; `{} stop {id}` \
             ends it",
            self.plan.run.engine.name()
        )
    }

    /// Waits until the detached container has ended for good, restarts included, and gives its
    /// exit code. Cancel-safe; cancelling leaves the container alone.
    pub async fn follow(&self) -> Result<u8, ContainerError> {
        let id = self.container_id()?;
        loop {
            let Ok(code) = self.plan.run.engine.ask_unbounded(&["wait", &id]).await else {
                // Ended and removed (`--rm`) before it was asked about.
                return Ok(self.recorded_exit(&id).await.unwrap_or_default());
            };
            if !self.is_running(&id).await {
                // Exit codes of containers have eight bits; Windows containers' may have more.
                return Ok(code
                    .parse()
                    .map_or(1, |c: i64| u8::try_from(c).unwrap_or(1)));
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    async fn is_running(&self, id: &str) -> bool {
        let engine = &self.plan.run.engine;
        let all: Result<Vec<Value>, _> = engine.ask_json(&["inspect", id]).await;
        let state = |key: &str| {
            let all = all.as_deref().unwrap_or_default();
            all.first().is_some_and(|c| c["State"][key] == true)
        };
        state("Running") || state("Restarting")
    }

    /// The exit code from the engine's record of events.
    async fn recorded_exit(&self, id: &str) -> Option<u8> {
        let engine = &self.plan.run.engine;
        let event = match engine.kind {
            Kind::Docker => "event=die",
            Kind::Podman => "event=died",
            // Keeps no record.
            Kind::Nerdctl => return None,
        };
        let container = format!("container={id}");
        let since = self.since.to_string();
        let until = std::time::UNIX_EPOCH.elapsed().ok()?.as_secs() + 1;
        let until = until.to_string();
        #[rustfmt::skip]
        let args = [
            "events", "--since", &since, "--until", &until, "--filter", &container,
            "--filter", event, "--format", "{{json .}}",
        ];
        let lines = engine.ask(&args).await.ok()?;
        let last: Value = serde_json::from_str(lines.lines().last()?).ok()?;
        let code = &last["Actor"]["Attributes"]["exitCode"];
        let code = code.as_str().and_then(|c| c.parse().ok());
        let code = code.or_else(|| last["ContainerExitCode"].as_i64())?;
        Some(u8::try_from(code).unwrap_or(1))
    }
}
