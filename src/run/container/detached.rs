//! Containers that go on after the engine's command has ended (`-d`).

use std::time::Duration;

use serde_json::Value;

use super::engine::Kind;
use super::{ContainerError, Started};

/// How long a container with a restart policy may stay down before it has ended for good. Engines
/// start one again within tens of milliseconds at first, and say that they are about to.
const RESTART_PATIENCE: Duration = Duration::from_secs(1);

impl Started {
    /// Whether the engine's command ends while the container goes on.
    #[must_use]
    pub fn detached(&self) -> bool {
        self.run.detached()
    }

    /// What to tell the user once it runs: the prompt that they expect does not come.
    #[must_use]
    pub fn stays(&self) -> String {
        let id = self.container_id().unwrap_or_default();
        let id = id.get(..12).unwrap_or("CONTAINER");
        format!(
            "the container {id} runs in the background, and kdev stays in this terminal as its way \
             to the cluster until it ends; Ctrl-C leaves it without"
        )
    }

    /// What to tell the user when kdev ends before the container: it is left running, as one that
    /// was started with `-d` is expected to.
    #[must_use]
    pub fn farewell(&self) -> String {
        let id = self.container_id().unwrap_or_default();
        let id = id.get(..12).unwrap_or("CONTAINER");
        let names = if self.joined {
            " and without names"
        } else {
            ""
        };
        format!(
            "the container {id} keeps running, without its way to the cluster{names}; `{} stop {id}` \
             ends it",
            self.run.engine.name()
        )
    }

    /// Waits until the detached container has ended for good, restarts included, and gives its
    /// exit code. Cancel-safe; cancelling leaves the container alone.
    pub async fn follow(&self) -> Result<u8, ContainerError> {
        let id = self.container_id()?;
        loop {
            let code = match self.run.engine.ask_unbounded(&["wait", &id]).await {
                Ok(code) => code,
                // It may have ended and been removed (`--rm`) before it was asked about.
                Err(error) => return self.recorded_exit(&id).await.ok_or(error),
            };
            let now = self.state(&id).await;
            if now.is_some_and(|state| state.running) {
                // Somebody has started it again (`docker restart`).
                continue;
            }
            let Some(ended) = now.filter(|state| state.may_restart) else {
                return Ok(code.parse().map_or(1, exit_code));
            };
            tokio::time::sleep(RESTART_PATIENCE).await;
            match self.state(&id).await {
                Some(now) if now.running || now.restarts != ended.restarts => {}
                now => return Ok(exit_code(now.unwrap_or(ended).exit_code)),
            }
        }
    }

    /// Whether the container runs, or is about to again.
    pub async fn goes_on(&self) -> bool {
        let Ok(id) = self.container_id() else {
            return false;
        };
        self.state(&id).await.is_some_and(|state| state.running)
    }

    /// How the container is; `None` where it is gone.
    async fn state(&self, id: &str) -> Option<State> {
        let engine = &self.run.engine;
        let all: Vec<Value> = engine.ask_json(&["inspect", id]).await.ok()?;
        let container = all.first()?;
        let state = &container["State"];
        let policy = container["HostConfig"]["RestartPolicy"]["Name"].as_str();
        Some(State {
            running: state["Running"] == true || state["Restarting"] == true,
            restarts: container["RestartCount"].as_i64(),
            exit_code: state["ExitCode"].as_i64().unwrap_or(1),
            may_restart: policy.is_some_and(|p| !p.is_empty() && p != "no"),
        })
    }

    /// The exit code from the engine's record of events.
    async fn recorded_exit(&self, id: &str) -> Option<u8> {
        let engine = &self.run.engine;
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
        Some(exit_code(code))
    }
}

/// What an engine says of a container.
#[derive(Clone, Copy, Debug)]
struct State {
    running: bool,
    restarts: Option<i64>,
    exit_code: i64,
    may_restart: bool,
}

/// Exit codes of containers have eight bits; those of Windows containers may have more.
fn exit_code(code: i64) -> u8 {
    u8::try_from(code).unwrap_or(1)
}
