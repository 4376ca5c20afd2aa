//! The address at which one container's network reaches this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::engine::{Engine, Kind};
use super::listen::own_address;
use super::reach::Reach;
use super::{ContainerError, ContainerRun, Listen, Peers};

/// How many `--network container:` steps are followed. The engine allows one; two stand-ins more
/// are generous.
const MAX_JOINS: usize = 3;

/// Where to listen, under which name the container finds it, and who that lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) listen: Listen,
    pub(super) advertised: String,
    pub(super) peers: Peers,
    /// Names of other containers on its network, which the proxy could not resolve.
    pub(super) neighbours: Vec<String>,
    pub(super) link: Link,
}

/// The network of a container, as the engine and a firewall know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// What `--network` takes for it; `None` is the engine's default.
    pub(super) network: Option<String>,
    /// Its bridge, where that is an interface of this machine.
    pub(super) interface: Option<String>,
    /// The addresses of its containers.
    pub(super) subnet: Option<String>,
    /// Whether it is this machine's own network.
    pub(super) shares_host: bool,
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.network {
            Some(name) => write!(f, "the network {name:?}")?,
            None => write!(f, "the default network")?,
        }
        match (&self.interface, &self.subnet) {
            (Some(interface), Some(subnet)) => write!(f, " ({interface}, {subnet})"),
            (Some(one), None) | (None, Some(one)) => write!(f, " ({one})"),
            (None, None) => Ok(()),
        }
    }
}

/// Finds the place for `run`.
pub(super) async fn place(
    run: &ContainerRun,
    kind: Kind,
    reach: Reach,
) -> Result<Place, ContainerError> {
    let networks = run.flags.networks.iter();
    let mut modes: Vec<(String, String)> =
        networks.map(|n| (mode(kind, n), flag(kind, n))).collect();
    if let Some(pod) = &run.flags.pod {
        let networks = networks_of_pod(&run.engine, pod).await;
        modes.extend(networks.into_iter().map(|name| (name.clone(), name)));
    }
    if modes.is_empty() {
        modes.push((String::new(), String::new()));
    }
    // A container on several networks reaches this machine by any of them.
    let mut first_error = None;
    for (mode, flag) in modes {
        match of_mode(&run.engine, kind, reach, &mode).await {
            Ok(mut place) => {
                place.link.network = Some(flag).filter(|flag| !flag.is_empty());
                return Ok(place);
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(ContainerError::NoNetwork))
}

/// The network's name or mode from what the user wrote; empty for the engine's default.
pub(super) fn mode(kind: Kind, written: &str) -> String {
    // Docker: `name=NET,alias=a`; podman: `NET:alias=a` and `bridge:ip=…`.
    let name = if written.contains('=') && kind != Kind::Podman {
        let parts = written.split(',').filter_map(|part| part.split_once('='));
        let mut names = parts.filter(|(key, _)| *key == "name");
        names.next().map_or("", |(_, value)| value)
    } else if kind == Kind::Podman && !written.starts_with("container:") {
        written.split(':').next().unwrap_or_default()
    } else {
        written
    };
    match (kind, name) {
        (Kind::Podman, "bridge" | "private") | (_, "default") => String::new(),
        (_, name) => name.to_owned(),
    }
}

/// What another container's `--network` takes to get the same way out: without the address and
/// the aliases, which are the user's container's own, and with the options of a network stack.
fn flag(kind: Kind, written: &str) -> String {
    let mode = mode(kind, written);
    match mode.as_str() {
        "pasta" | "slirp4netns" if kind == Kind::Podman => written.to_owned(),
        _ => mode,
    }
}

async fn of_mode(
    engine: &Engine,
    kind: Kind,
    reach: Reach,
    mode: &str,
) -> Result<Place, ContainerError> {
    let mut mode = mode.to_owned();
    for _ in 0..MAX_JOINS {
        let Some(other) = mode.strip_prefix("container:") else {
            break;
        };
        mode = mode_of_container(engine, other).await?;
    }
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match (reach, mode.as_str()) {
        (_, "none") => Err(ContainerError::NoNetwork),
        (Reach::Name(name), _) => Ok(Place {
            listen: Listen::at(loopback),
            advertised: name.to_owned(),
            peers: Peers::Password,
            neighbours: neighbours(engine, &mode).await,
            link: Link::default(),
        }),
        (
            Reach::Bridges
            | Reach::UserStack {
                shares_host: true, ..
            },
            "host",
        ) => Ok(Place {
            listen: Listen::at(loopback),
            advertised: loopback.to_string(),
            peers: Peers::Password,
            neighbours: Vec::new(),
            link: Link {
                shares_host: true,
                ..Link::default()
            },
        }),
        (Reach::UserStack { name, .. }, _) => {
            let own = own_address().map_err(|e| ContainerError::NoAddress {
                engine: engine.name(),
                reason: e.to_string(),
            })?;
            Ok(Place {
                listen: Listen::at(own),
                advertised: name.map_or_else(|| own.to_string(), str::to_owned),
                peers: Peers::ThisMachine(own),
                neighbours: neighbours(engine, &mode).await,
                link: Link::default(),
            })
        }
        (Reach::Bridges, name) => bridge(engine, kind, name).await,
    }
}

/// The network that the container `other` is on.
async fn mode_of_container(engine: &Engine, other: &str) -> Result<String, ContainerError> {
    let all: Vec<Value> = engine.ask_json(&["inspect", other]).await?;
    let found = all.first().unwrap_or(&Value::Null);
    let mode = found["HostConfig"]["NetworkMode"].as_str();
    if let Some(mode) = mode.filter(|m| *m == "host" || *m == "none" || m.contains(':')) {
        return Ok(mode.to_owned());
    }
    let networks = found["NetworkSettings"]["Networks"].as_object();
    let first = networks.and_then(|n| n.keys().next());
    Ok(first.cloned().unwrap_or_default())
}

/// The networks of a pod of podman's; none where it is made by this very command.
async fn networks_of_pod(engine: &Engine, pod: &str) -> Vec<String> {
    let Ok(answer) = engine.ask_json::<Value>(&["pod", "inspect", pod]).await else {
        return Vec::new();
    };
    // podman 5 gives a list, 4 the pod itself.
    let infra = &answer.get(0).unwrap_or(&answer)["InfraConfig"];
    if infra["HostNetwork"] == true {
        return vec!["host".to_owned()];
    }
    let names = infra["Networks"].as_array().into_iter().flatten();
    names
        .filter_map(|n| n.as_str().map(str::to_owned))
        .collect()
}

async fn inspect(engine: &Engine, kind: Kind, name: &str) -> Result<Value, ContainerError> {
    let name = match (name, kind) {
        ("", Kind::Podman) => "podman",
        ("", Kind::Docker | Kind::Nerdctl) => "bridge",
        (name, _) => name,
    };
    let all: Vec<Value> = engine.ask_json(&["network", "inspect", name]).await?;
    Ok(all.into_iter().next().unwrap_or(Value::Null))
}

async fn bridge(engine: &Engine, kind: Kind, name: &str) -> Result<Place, ContainerError> {
    let network = inspect(engine, kind, name).await?;
    let ip = gateway(&network, kind, engine)?;
    Ok(Place {
        listen: Listen {
            ip,
            may_come_later: kind != Kind::Docker,
        },
        advertised: ip.to_string(),
        peers: Peers::Containers,
        neighbours: neighbours(engine, name).await,
        link: Link {
            interface: interface(&network, kind, name),
            subnet: subnet(&network, ip),
            ..Link::default()
        },
    })
}

/// Names of the running containers on a network that resolves them, which the default one does
/// not. Empty where the engine does not tell: the names are a courtesy.
async fn neighbours(engine: &Engine, network: &str) -> Vec<String> {
    if ["", "bridge", "podman", "host", "pasta", "slirp4netns"].contains(&network) {
        return Vec::new();
    }
    let filter = format!("network={network}");
    let args = ["ps", "--filter", &filter, "--format", "{{.Names}}"];
    let names = engine.ask(&args).await.unwrap_or_default();
    // Docker adds the names of links behind commas.
    let names = names.split([',', '\n']).map(str::trim);
    names.filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

/// The network's own address on this machine, IPv4 first.
fn gateway(network: &Value, kind: Kind, engine: &Engine) -> Result<IpAddr, ContainerError> {
    let text = |upper: &str, lower: &str| {
        let found = network[upper].as_str().or_else(|| network[lower].as_str());
        found.unwrap_or_default().to_owned()
    };
    let name = text("Name", "name");
    let driver = text("Driver", "driver");
    let no_gateway = |reason: &str| ContainerError::NoGateway {
        network: name.clone(),
        reason: reason.to_owned(),
    };
    // nerdctl does not say, and has bridges unless told otherwise.
    if !["", "bridge", "nat"].contains(&driver.as_str()) {
        return Err(ContainerError::Driver {
            network: name,
            driver,
            engine: engine.name(),
        });
    }
    let isolated = network["Options"]
        .as_object()
        .is_some_and(|o| o.values().any(|v| v == "isolated"));
    if isolated {
        return Err(no_gateway("its gateway mode is \"isolated\""));
    }
    let configs = network["IPAM"]["Config"].as_array();
    let subnets: Vec<(Option<IpAddr>, Option<IpAddr>)> = configs
        .or_else(|| network["subnets"].as_array())
        .into_iter()
        .flatten()
        .map(|c| {
            let text = |upper: &str, lower: &str| c[upper].as_str().or_else(|| c[lower].as_str());
            let gateway = text("Gateway", "gateway").and_then(address);
            let first = text("Subnet", "subnet").and_then(first_host);
            (gateway, first)
        })
        .collect();
    // Docker leaves the default bridge's gateway out while nobody set one; it is the first
    // address then. podman's internal networks truly have none.
    let fall_back = kind == Kind::Docker;
    let mut found: Vec<IpAddr> = subnets
        .into_iter()
        .filter_map(|(gateway, first)| gateway.or_else(|| first.filter(|_| fall_back)))
        .collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found
        .first()
        .copied()
        .ok_or_else(|| no_gateway("the engine names none (an internal network?)"))
}

/// The bridge of a network. Only podman names it; the others have a rule for it.
fn interface(network: &Value, kind: Kind, name: &str) -> Option<String> {
    let named = network["network_interface"].as_str();
    let named = named.or_else(|| network["Options"]["com.docker.network.bridge.name"].as_str());
    if let Some(named) = named.filter(|name| !name.is_empty()) {
        return Some(named.to_owned());
    }
    match (kind, name) {
        (Kind::Docker, "" | "bridge") => Some("docker0".to_owned()),
        (Kind::Nerdctl, "" | "bridge") => Some("nerdctl0".to_owned()),
        (Kind::Docker | Kind::Nerdctl, _) => {
            let id = network["Id"].as_str()?;
            Some(format!("br-{}", id.get(..12)?))
        }
        (Kind::Podman, _) => None,
    }
}

/// The subnet that has `ip` as its gateway.
fn subnet(network: &Value, ip: IpAddr) -> Option<String> {
    let configs = network["IPAM"]["Config"].as_array();
    let configs = configs.or_else(|| network["subnets"].as_array());
    configs.into_iter().flatten().find_map(|c| {
        let text = |upper: &str, lower: &str| c[upper].as_str().or_else(|| c[lower].as_str());
        let subnet = text("Subnet", "subnet")?;
        let gateway = text("Gateway", "gateway").and_then(address);
        let is_its = gateway.or_else(|| first_host(subnet)) == Some(ip);
        is_its.then(|| subnet.to_owned())
    })
}

/// An address that may carry its prefix length.
fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// The address after the network's own.
fn first_host(subnet: &str) -> Option<IpAddr> {
    Some(match address(subnet)? {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).checked_add(1)?).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).checked_add(1)?).into(),
    })
}

#[cfg(test)]
mod tests;
