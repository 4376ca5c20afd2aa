//! What a container needs to see the cluster, decided before anything is started.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::engine::Kind;
use super::network::{self, Link, Place};
use super::{ContainerError, ContainerRun, Listen, reach};
use crate::run::environment::{self, Credentials, ProxyAddress, Settings, Variables};

/// Names by which containers know this machine. The proxy may be unable to resolve them, and the
/// container reaches it directly.
const HOST_NAMES: [&str; 3] = [
    "host.docker.internal",
    "gateway.docker.internal",
    "host.containers.internal",
];

/// Whom the container's listener should serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Connections come from the containers' own addresses: those of this session need no
    /// password ([`Plan::watch`]), all others do.
    Containers,
    /// Connections come from this address of this machine. Others must be cut off, whatever they
    /// present: it is an address that the network reaches. And all need the password.
    ThisMachine(IpAddr),
    /// Connections cannot be told apart by their address: all need the password.
    Password,
}

/// How one container command is put into the cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the proxy must listen.
    pub listen: Listen,
    /// The host under which the container finds that listener.
    pub advertised_host: String,
    /// Whom the listener should serve.
    pub peers: Peers,
    /// What the user should know.
    pub notes: Vec<String>,
    pub(super) run: ContainerRun,
    pub(super) link: Link,
    /// Whether the image is on this machine already.
    pub(super) image_here: bool,
    /// What the container reaches without the proxy.
    direct: Vec<String>,
    /// The image's `JAVA_TOOL_OPTIONS`.
    image_java: Option<String>,
    /// The `noProxy` of the proxies in Docker's client configuration, where it has proxies.
    pub(super) client_proxies: Option<String>,
}

impl ContainerRun {
    /// Asks the engine what it needs to know; starts nothing.
    pub async fn plan(&self) -> Result<Plan, ContainerError> {
        let (kind, reach) = reach::find(self).await?;
        let mut run = self.clone();
        run.engine.kind = kind;
        let (place, image_env) =
            tokio::join!(network::place(self, kind, reach), image_environment(&run));
        let place = place?;
        let image_here = image_env.is_some();
        let image_java = image_env
            .iter()
            .flatten()
            .find_map(|line| line.strip_prefix("JAVA_TOOL_OPTIONS="))
            .map(str::to_owned);
        let client_proxies = match kind {
            Kind::Docker => client_proxies(&run),
            Kind::Podman | Kind::Nerdctl => None,
        };
        Ok(Plan {
            listen: place.listen,
            advertised_host: place.advertised.clone(),
            peers: place.peers,
            notes: notes(&place),
            link: place.link.clone(),
            image_here,
            direct: direct(&run, place),
            run,
            image_java,
            client_proxies,
        })
    }
}

impl Plan {
    /// The proxy as the container sees it.
    #[must_use]
    pub fn proxy(&self, port: u16, credentials: Credentials) -> ProxyAddress {
        ProxyAddress::new(self.advertised_host.clone(), port).with_credentials(credentials)
    }

    /// The variables of the container. They start from the image's, not from the laptop's.
    #[must_use]
    pub fn variables(&self, settings: &Settings) -> Variables {
        let mut settings = settings.clone();
        settings.direct.extend(self.direct.iter().cloned());
        let mut variables = environment::variables(&settings, |name| match name {
            "JAVA_TOOL_OPTIONS" => self.image_java.clone(),
            "NO_PROXY" => self.client_proxies.clone(),
            _ => None,
        });
        if self.peers != Peers::Containers {
            // The JVM cannot say the password: with the proxy it would reach nothing at all.
            variables
                .set
                .retain(|(name, _)| name != "JAVA_TOOL_OPTIONS");
        }
        variables
    }

    /// Whether the engine's command ends while the container goes on (`-d`).
    #[must_use]
    pub fn detached(&self) -> bool {
        self.run.detached()
    }
}

fn notes(place: &Place) -> Vec<String> {
    let mut notes = Vec::new();
    match place.peers {
        Peers::Containers => {}
        Peers::ThisMachine(_) | Peers::Password => notes.push(
            "with this engine and network a container must send the proxy's password; Java cannot, \
             and is left without a way to the cluster (`kdev forward` is one)"
                .to_owned(),
        ),
    }
    if !place.neighbours.is_empty() {
        notes.push(format!(
            "containers on the same network stay reachable by name, even where a Service has the \
             same one: {}",
            place.neighbours.join(", ")
        ));
    }
    notes
}

/// The container itself, its neighbours, this machine, and what the user gave an address to.
fn direct(run: &ContainerRun, place: Place) -> Vec<String> {
    let flags = &run.flags;
    let mut direct: Vec<String> = HOST_NAMES.iter().map(ToString::to_string).collect();
    direct.push(place.advertised);
    direct.extend(flags.name.iter().chain(&flags.hostname).cloned());
    direct.extend(flags.network_aliases.iter().cloned());
    direct.extend(place.neighbours);
    // `NAME:IP`, newer also `NAME=IP`; podman: `NAME;NAME:IP`.
    for entry in &flags.add_hosts {
        let names = entry.split([':', '=']).next().unwrap_or_default();
        direct.extend(names.split(';').map(str::to_owned));
    }
    direct.sort();
    direct.dedup();
    direct.retain(|name| !name.is_empty());
    direct
}

/// The variables of the image, where it is here already. One that must be pulled first is not
/// worth waiting for.
async fn image_environment(run: &ContainerRun) -> Option<Vec<String>> {
    let format = "{{json .Config.Env}}";
    let args = ["image", "inspect", "--format", format, &run.image];
    let asked = run.engine.ask_json::<Option<Vec<String>>>(&args);
    Some(asked.await.ok()?.unwrap_or_default())
}

/// The `noProxy` entry of Docker's client configuration, where that has `proxies`. The client adds
/// those as if by `-e`, so they would win over an `--env-file`.
pub(super) fn client_proxies(run: &ContainerRun) -> Option<String> {
    let globals = &run.engine.globals;
    let given = globals.iter().enumerate().find_map(|(i, arg)| {
        let arg = arg.to_str()?;
        match arg.strip_prefix("--config=") {
            Some(dir) => Some(PathBuf::from(dir)),
            None if arg == "--config" => globals.get(i + 1).map(PathBuf::from),
            None => None,
        }
    });
    let dir = given
        .or_else(|| std::env::var_os("DOCKER_CONFIG").map(PathBuf::from))
        .or_else(|| std::env::home_dir().map(|home| home.join(".docker")))?;
    let text = std::fs::read_to_string(dir.join("config.json")).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    let proxies = config["proxies"].as_object().filter(|p| !p.is_empty())?;
    let no_proxy = |entry: &Value| entry["noProxy"].as_str().map(str::to_owned);
    Some(proxies.values().find_map(no_proxy).unwrap_or_default())
}
