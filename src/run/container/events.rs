//! Keeps the addresses of a session's containers while they come and go.

use std::collections::HashSet;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::engine::{Engine, Kind};
use super::{ContainerError, Peers, Plan};
use crate::proxy::AllowedPeers;
use crate::task::Tasks;

/// How long to wait before the engine's events are asked for again after they broke off: the
/// engine is restarting, which takes seconds.
const EVENTS_RETRY: Duration = Duration::from_secs(2);

impl Plan {
    /// Keeps `peers` at the addresses of the containers of `session`, from now on until `tasks`
    /// end. Does nothing where addresses tell nothing ([`Peers`]).
    ///
    /// Call it before the command is started. It costs one process of the engine's program, which
    /// waits for events.
    pub fn watch(&self, session: &str, peers: AllowedPeers, tasks: &Tasks) {
        if self.peers != Peers::Containers {
            return;
        }
        let watcher = Watcher {
            engine: self.run.engine.clone(),
            label: Self::label(session),
            peers,
        };
        let tasks_of_watcher = tasks.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = tasks_of_watcher.draining() => {}
                () = watcher.run() => {}
            }
        });
    }
}

struct Watcher {
    engine: Engine,
    label: String,
    peers: AllowedPeers,
}

impl Watcher {
    async fn run(&self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::debug!(%error, "no events from the container engine");
            }
            tokio::time::sleep(EVENTS_RETRY).await;
        }
    }

    /// Looks again at each event. What the event says does not matter: engines and versions word
    /// it differently, and a look also mends what was missed.
    async fn follow(&self) -> std::io::Result<()> {
        let mut command = self.engine.question(self.events_args());
        command.stderr(Stdio::null());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(stdout).lines();
        // Containers that were started before the engine was listened to.
        self.look().await;
        while lines.next_line().await?.is_some() {
            self.look().await;
        }
        Ok(())
    }

    fn events_args(&self) -> Vec<String> {
        let filter = |what: &str| ["--filter".to_owned(), what.to_owned()];
        let mut args = vec!["events".to_owned()];
        match self.engine.kind {
            Kind::Docker => {
                // Replayed, should the container be faster than this program.
                args.extend(["--since".to_owned(), "10s".to_owned()]);
                args.extend(filter(&format!("label={}", self.label)));
                args.extend(filter("event=start"));
                args.extend(filter("event=die"));
            }
            Kind::Podman => {
                args.extend(filter(&format!("label={}", self.label)));
                args.extend(filter("event=start"));
                args.extend(filter("event=died"));
            }
            // Knows no filter by label.
            Kind::Nerdctl => {}
        }
        args
    }

    async fn look(&self) {
        match addresses(&self.engine, &self.label).await {
            Ok(all) => {
                tracing::debug!(?all, "addresses of this session's containers");
                self.peers.replace(all);
            }
            Err(error) => tracing::debug!(%error, "addresses of containers unknown"),
        }
    }
}

/// The addresses of the running containers with `label`.
async fn addresses(engine: &Engine, label: &str) -> Result<HashSet<IpAddr>, ContainerError> {
    let filter = format!("label={label}");
    let ids = engine
        .ask(&["ps", "--quiet", "--no-trunc", "--filter", &filter])
        .await?;
    let mut all = HashSet::new();
    for id in ids.split_whitespace() {
        let mut found = inspect(engine, id).await?;
        // A container that joined another's network has that one's address.
        if let Some(other) = found.joined.take() {
            found = inspect(engine, &other).await?;
        }
        all.extend(found.addresses);
    }
    Ok(all)
}

#[derive(Debug, Default)]
struct Found {
    addresses: Vec<IpAddr>,
    joined: Option<String>,
}

async fn inspect(engine: &Engine, id: &str) -> Result<Found, ContainerError> {
    // Gone again since the list was made: nothing to admit.
    let Ok(all) = engine.ask_json::<Vec<Value>>(&["inspect", id]).await else {
        return Ok(Found::default());
    };
    Ok(all.first().map(read).unwrap_or_default())
}

fn read(container: &Value) -> Found {
    let settings = &container["NetworkSettings"];
    let networks = settings["Networks"].as_object();
    let addresses = networks
        .into_iter()
        .flat_map(|all| all.values())
        .chain([settings])
        .flat_map(|n| [&n["IPAddress"], &n["GlobalIPv6Address"]])
        .filter_map(|ip| ip.as_str()?.parse().ok())
        .collect();
    let mode = container["HostConfig"]["NetworkMode"].as_str();
    Found {
        addresses,
        joined: mode
            .and_then(|m| m.strip_prefix("container:"))
            .map(str::to_owned),
    }
}
