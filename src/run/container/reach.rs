//! Where the engine runs its containers, so how they reach this machine.

use serde_json::Value;

use super::engine::{Engine, Kind};
use super::{ContainerError, ContainerRun};

/// How containers reach this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The bridges of their networks are interfaces of this machine.
    Bridges,
    /// They are in a virtual machine, which leads this name to this machine's loopback.
    Name(&'static str),
    /// They are in a network namespace of the user's, behind a network stack in user space. It
    /// opens their connections from this machine, but keeps the loopback from them.
    UserStack {
        /// A name that leads here, where the engine gives one; else the address itself does.
        name: Option<&'static str>,
        /// Whether `--network host` is this machine's own network.
        shares_host: bool,
    },
}

/// Docker Desktop, Colima, OrbStack, Rancher Desktop and Lima all have it.
const DOCKER_HOST_NAME: &str = "host.docker.internal";
/// podman's.
pub(super) const PODMAN_HOST_NAME: &str = "host.containers.internal";

/// Asks the engine where it is.
pub(super) async fn find(run: &ContainerRun) -> Result<(Kind, Reach), ContainerError> {
    let engine = &run.engine;
    match program_kind(engine).await? {
        Kind::Docker => Ok((Kind::Docker, docker(engine).await?)),
        Kind::Podman => Ok((Kind::Podman, podman(engine).await?)),
        Kind::Nerdctl => Ok((Kind::Nerdctl, nerdctl(engine).await?)),
    }
}

/// The kind that the program says it is: `docker` may be podman's or nerdctl's stand-in.
async fn program_kind(engine: &Engine) -> Result<Kind, ContainerError> {
    let version = engine.ask(&["--version"]).await?.to_ascii_lowercase();
    Ok(if version.starts_with("podman") {
        Kind::Podman
    } else if version.starts_with("nerdctl") {
        Kind::Nerdctl
    } else if version.starts_with("docker") {
        Kind::Docker
    } else {
        engine.kind
    })
}

async fn docker(engine: &Engine) -> Result<Reach, ContainerError> {
    let (endpoint, info) = tokio::try_join!(
        engine.ask(&[
            "context",
            "inspect",
            "--format",
            "{{.Endpoints.docker.Host}}"
        ]),
        engine.ask_json::<Value>(&["info", "--format", "{{json .}}"]),
    )?;
    if !is_local(&endpoint) {
        return Err(ContainerError::Remote {
            engine: engine.name(),
            endpoint,
        });
    }
    // An engine that does not answer gives an info of errors, with the exit code 0.
    if let Some(error) = info["ServerErrors"].get(0).and_then(Value::as_str) {
        return Err(ContainerError::Engine {
            command: format!("{} info", engine.name()),
            reason: error.to_owned(),
        });
    }
    Ok(docker_reach(&endpoint, &info, cfg!(target_os = "linux")))
}

fn docker_reach(endpoint: &str, info: &Value, on_linux: bool) -> Reach {
    let os = info["OperatingSystem"].as_str().unwrap_or_default();
    let name = info["Name"].as_str().unwrap_or_default();
    let machine = ["Docker Desktop", "OrbStack"].contains(&os)
        || ["colima", "docker-desktop", "orbstack"].contains(&name)
        || ["colima-", "lima-"].iter().any(|p| name.starts_with(p))
        || [
            "/.colima/",
            "/.lima/",
            "/.orbstack/",
            "/.rd/",
            "/.docker/desktop/",
        ]
        .iter()
        .any(|dir| endpoint.contains(dir));
    if machine || !on_linux {
        return Reach::Name(DOCKER_HOST_NAME);
    }
    if !is_rootless(info) {
        return Reach::Bridges;
    }
    // Docker's client against podman's socket.
    let podman = endpoint.contains("podman");
    Reach::UserStack {
        name: podman.then_some(PODMAN_HOST_NAME),
        shares_host: podman,
    }
}

fn is_rootless(info: &Value) -> bool {
    info["SecurityOptions"].as_array().is_some_and(|all| {
        all.iter()
            .any(|o| o.as_str().is_some_and(|o| o.contains("rootless")))
    })
}

async fn nerdctl(engine: &Engine) -> Result<Reach, ContainerError> {
    if !cfg!(target_os = "linux") {
        return Err(ContainerError::Remote {
            engine: engine.name(),
            endpoint: "a virtual machine whose shell passes no descriptors on".to_owned(),
        });
    }
    let info: Value = engine.ask_json(&["info", "--format", "{{json .}}"]).await?;
    Ok(if is_rootless(&info) {
        Reach::UserStack {
            name: None,
            shares_host: false,
        }
    } else {
        Reach::Bridges
    })
}

async fn podman(engine: &Engine) -> Result<Reach, ContainerError> {
    let info: Value = engine.ask_json(&["info", "--format", "json"]).await?;
    let host = &info["host"];
    if host["serviceIsRemote"].as_bool() == Some(true) {
        let endpoint = podman_endpoint(engine).await?;
        if !is_local(&endpoint) {
            return Err(ContainerError::Remote {
                engine: engine.name(),
                endpoint,
            });
        }
        // `podman machine` is a virtual machine behind SSH on the loopback.
        if !cfg!(target_os = "linux") || endpoint.starts_with("ssh://") {
            return Ok(Reach::Name(PODMAN_HOST_NAME));
        }
    }
    Ok(match host["security"]["rootless"].as_bool() {
        Some(true) => Reach::UserStack {
            name: Some(PODMAN_HOST_NAME),
            shares_host: true,
        },
        _ => Reach::Bridges,
    })
}

/// The service that a remote podman talks to, in podman's own order of precedence.
async fn podman_endpoint(engine: &Engine) -> Result<String, ContainerError> {
    if let Some(url) = flag_value(engine, &["--url"]) {
        return Ok(url);
    }
    if let Ok(url) = std::env::var("CONTAINER_HOST") {
        return Ok(url);
    }
    let name = flag_value(engine, &["--connection", "-c"])
        .or_else(|| std::env::var("CONTAINER_CONNECTION").ok());
    let all: Vec<Value> = engine
        .ask_json(&["system", "connection", "list", "--format", "json"])
        .await?;
    let chosen = all.iter().find(|c| match &name {
        Some(name) => c["Name"].as_str() == Some(name),
        None => c["Default"].as_bool() == Some(true),
    });
    // No connection at all is the socket of this machine.
    let uri = chosen.and_then(|c| c["URI"].as_str());
    Ok(uri.unwrap_or("unix://").to_owned())
}

fn flag_value(engine: &Engine, names: &[&str]) -> Option<String> {
    let mut args = engine.globals.iter().filter_map(|a| a.to_str());
    while let Some(arg) = args.next() {
        for name in names {
            if arg == *name {
                return args.next().map(str::to_owned);
            }
            if let Some(value) = arg.strip_prefix(name).and_then(|v| v.strip_prefix('=')) {
                return Some(value.to_owned());
            }
        }
    }
    None
}

/// Whether an endpoint is on this machine, as far as its address tells.
fn is_local(endpoint: &str) -> bool {
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return true;
    };
    if ["unix", "npipe", "fd"].contains(&scheme) {
        return true;
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let host_port = authority.rsplit('@').next().unwrap_or_default();
    let (host, _) = crate::addr::split_port(host_port);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_of_this_machine_and_of_others() {
        for (endpoint, local) in [
            ("unix:///var/run/docker.sock", true),
            ("npipe:////./pipe/docker_engine", true),
            ("tcp://127.0.0.1:2375", true),
            ("tcp://localhost:2375", true),
            ("tcp://[::1]:2376", true),
            ("tcp://192.168.49.2:2376", false),
            ("ssh://me@build.example", false),
            (
                "ssh://core@127.0.0.1:41234/run/user/1000/podman/podman.sock",
                true,
            ),
            ("tcp://docker:2375", false),
        ] {
            assert_eq!(is_local(endpoint), local, "{endpoint}");
        }
    }

    #[test]
    fn docker_engines_are_told_apart() {
        let reach = |endpoint: &str, os: &str, name: &str, rootless: bool, linux: bool| {
            let security = if rootless {
                json!(["name=rootless"])
            } else {
                json!([])
            };
            let info = json!({"OperatingSystem": os, "Name": name, "SecurityOptions": security});
            docker_reach(endpoint, &info, linux)
        };
        let sock = "unix:///var/run/docker.sock";
        let vm = Reach::Name("host.docker.internal");
        assert_eq!(
            reach(sock, "Debian GNU/Linux 12", "box", false, true),
            Reach::Bridges
        );
        assert_eq!(
            reach(sock, "Docker Desktop", "docker-desktop", false, true),
            vm
        );
        assert_eq!(
            reach(sock, "Docker Desktop", "docker-desktop", false, false),
            vm
        );
        assert_eq!(reach(sock, "Ubuntu 24.04", "colima", false, false), vm);
        assert_eq!(
            reach(
                "unix:///home/u/.colima/default/docker.sock",
                "Ubuntu",
                "x",
                false,
                true
            ),
            vm
        );
        assert_eq!(reach(sock, "OrbStack", "orbstack", false, false), vm);
        // WSL2 with its own dockerd: the bridge is here.
        assert_eq!(
            reach(sock, "Ubuntu 24.04", "LAPTOP", false, true),
            Reach::Bridges
        );
        assert_eq!(
            reach(
                "unix:///run/user/1000/docker.sock",
                "Ubuntu",
                "box",
                true,
                true
            ),
            Reach::UserStack {
                name: None,
                shares_host: false
            }
        );
        assert_eq!(
            reach(
                "unix:///run/user/1000/podman/podman.sock",
                "fedora",
                "box",
                true,
                true
            ),
            Reach::UserStack {
                name: Some("host.containers.internal"),
                shares_host: true
            }
        );
    }
}
