//! Companions for the services of a project, written into the project as Compose prints it
//! (the Compose specification, in JSON).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::argv::OneOff;
use super::{CAPTURE, NOBODYS, SHAPE};
use crate::addr::inside::{DNS, HOST_NAME, HOST_V4};
use crate::companion::HOLD;
use crate::run::container::{command, companion};

/// What the name of a service's companion begins with.
const PREFIX: &str = "kdev-";
/// The condition of a dependency that only has to be there.
const STARTED: &str = "service_started";

/// What is about the network, and so belongs to its owner.
const MOVED: [&str; 14] = [
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "expose",
    "external_links",
    "extra_hosts",
    "hostname",
    "links",
    "mac_address",
    "network_mode",
    "networks",
    "ports",
    "sysctls",
];

/// What both need to be alike in.
const BOTH: [&str; 2] = ["restart", "userns_mode"];

/// What is known when companions are written in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The services that are started.
    pub(super) active: &'a [String],
    /// The services that shall see the cluster; none where labels say it.
    pub(super) only: &'a [String],
    /// How many containers of a service the command line asks for.
    pub(super) scales: &'a BTreeMap<String, u64>,
    /// Where only a container beside those of its service is started: what is particular to it.
    pub(super) one_off: Option<&'a OneOff>,
    /// When the command line wants images pulled.
    pub(super) pull: Option<&'a str>,
    /// The label's value of the companions that are made, and of the containers that join them.
    pub(super) session: &'a str,
    /// The companions that are there already, by their services.
    pub(super) others: &'a BTreeMap<String, Other>,
    /// The image of companions.
    pub(super) image: &'a str,
}

/// A companion that an earlier command has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    /// What its label says, and that of the containers that joined it.
    pub(super) session: String,
    /// What it was made from.
    pub(super) shape: String,
    /// Whether another kdev serves it.
    pub(super) served: bool,
}

/// What became of a project.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Joined {
    /// The companions that are in it.
    pub(super) companions: Vec<Placed>,
    /// The services that stay outside though nobody wants that, and why, as the end of a sentence.
    pub(super) outside: Vec<(String, String)>,
    /// The services whose companion, which nobody serves, is in the way.
    pub(super) stale: Vec<String>,
}

/// A companion in a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// The service that it is for.
    pub(super) service: String,
    /// Its own service.
    pub(super) name: String,
    /// The nameservers that the user wants asked.
    pub(super) resolvers: Vec<String>,
    /// Whether it stays as it is there already.
    pub(super) kept: bool,
}

/// Writes companions into `project`.
///
/// # Errors
/// When a service has a name that a companion needs, one that is asked for does not start, or another
/// kdev would lose a companion.
pub(super) fn join(project: &mut Value, asked: &Asked<'_>) -> Result<Joined, String> {
    let name = project["name"].as_str().unwrap_or_default().to_owned();
    let Some(services) = project["services"].as_object_mut() else {
        return Ok(Joined::default());
    };
    let mut joined = Joined::default();
    let starts = |service: &&String| asked.active.contains(service);
    if let Some(service) = asked.only.iter().find(|service| !starts(service)) {
        let all = asked.active.join(", ");
        return Err(format!(
            "service {service} is not among those that start: {all}"
        ));
    }
    let mut made = BTreeMap::new();
    let mut sharing = Vec::new();
    for service in &asked.wanted(services) {
        let it = &services[service];
        match (shares(&it["network_mode"]), unfit(service, it, asked)) {
            (Some(owner), _) => sharing.push((service.clone(), owner.to_owned())),
            (None, None) => {
                let one = place(it, &name, service, asked);
                made.extend(one.map(|one| (service.clone(), one)));
            }
            (None, Some(why)) => joined.outside.push((service.clone(), why)),
        }
    }
    for (service, owner) in sharing {
        if !made.contains_key(&owner) {
            let why = format!("its network is that of {owner}, which stays outside");
            joined.outside.push((service, why));
        }
    }
    let started = asked.others.iter().filter(|(service, _)| starts(service));
    for (service, other) in started.filter(|(service, _)| asked.beside(service).is_none()) {
        match made.get(service) {
            Some(one) if one.placed.kept => {}
            _ if other.served => {
                return Err(format!(
                    "another kdev serves {service} and has made its network otherwise (the ports, the \
                     networks or the version of kdev differ); end that one first"
                ));
            }
            // Compose itself makes it anew.
            Some(_) => {}
            None => joined.stale.push(service.clone()),
        }
    }
    for service in asked.active {
        let Some(it) = services.get_mut(service).and_then(Value::as_object_mut) else {
            continue;
        };
        // It is started, so it is no longer asked whether it shall be.
        it.remove("profiles");
        if let Some(pull) = asked.pull {
            it.insert("pull_policy".to_owned(), pull.into());
        }
    }
    let mut names = BTreeMap::new();
    for (service, one) in made {
        let Placed { name, .. } = &one.placed;
        if services.contains_key(name) {
            return Err(format!(
                "the project has a service {name}, which is the name that kdev needs for the network \
                 of {service}"
            ));
        }
        services.insert(name.clone(), one.owner);
        if let Some(it) = services[&service].as_object_mut() {
            for key in MOVED {
                it.remove(key);
            }
            it.extend(one.stays);
            enter(it, name);
            put(it, "labels", command::LABEL, one.session.into());
        }
        names.insert(service, name.clone());
        joined.companions.push(one.placed);
    }
    for (_, service) in services.iter_mut() {
        if let Some(service) = service.as_object_mut() {
            refer(service, &names);
        }
    }
    Ok(joined)
}

/// Puts services into `project` that nobody starts, so that Compose takes their containers for its own
/// and not for strays.
pub(super) fn know(project: &mut Value, services: impl Iterator<Item = String>) {
    for name in services {
        let service = &mut project["services"][&name];
        if service.is_null() {
            *service = json!({"image": NOBODYS, "profiles": [NOBODYS]});
        }
    }
}

impl Asked<'_> {
    /// What is particular to the companion of `service`, where that is for a container beside those of
    /// its service.
    fn beside(&self, service: &str) -> Option<&OneOff> {
        let named = || self.only.iter().any(|named| named == service);
        self.one_off.filter(|_| named())
    }

    /// The services that shall have a companion, if they can.
    fn wanted(&self, services: &Map<String, Value>) -> Vec<String> {
        let mut wanted = match self.only {
            [] => wanted(services, self.active),
            only => only.to_vec(),
        };
        // Those of another kdev have to stay as they are, and so do those that only run beside this.
        let stays = |service: &&String| match self.others.get(*service) {
            Some(other) => other.served || self.one_off.is_some(),
            None => false,
        };
        for service in self.active.iter().filter(stays) {
            if !wanted.contains(service) && services.contains_key(service) {
                wanted.push(service.clone());
            }
        }
        wanted
    }
}

/// A service and its companion, before they are in the project.
struct Made {
    placed: Placed,
    owner: Value,
    session: String,
    /// What of the moved stays with the service.
    stays: Map<String, Value>,
}

/// Makes the companion of a service; `None` for what a container needs that runs beside it, and has
/// changed since it was made.
fn place(service: &Value, project: &str, name: &str, asked: &Asked<'_>) -> Option<Made> {
    let service = service.as_object()?;
    let beside = asked.beside(name);
    let (mut owner, stays) = split(service, project, name, beside, asked.image);
    let shape = super::hash(owner.to_string().as_bytes());
    let other = asked.others.get(name).filter(|_| beside.is_none());
    let wanted = |other: &&Other| other.served || asked.one_off.is_some();
    let kept = other.filter(|other| other.shape == shape).filter(wanted);
    if asked.one_off.is_some() && beside.is_none() && kept.is_none() {
        return None;
    }
    let session = kept.map_or(asked.session, |other| &other.session);
    owner["labels"] = json!({companion::LABEL: session, SHAPE: shape});
    let companion = companion_of(name);
    let companion = match beside {
        // Any number of them may run at once.
        Some(_) => format!("{companion}-run-{session}"),
        None => companion,
    };
    Some(Made {
        placed: Placed {
            service: name.to_owned(),
            name: companion,
            resolvers: texts(service.get("dns")),
            kept: kept.is_some(),
        },
        owner,
        session: session.to_owned(),
        stays,
    })
}

fn companion_of(service: &str) -> String {
    format!("{PREFIX}{service}")
}

/// The service that `companion` is for.
pub(super) fn service_of(companion: &str) -> &str {
    companion.strip_prefix(PREFIX).unwrap_or(companion)
}

/// The services that shall see the cluster: all but those that say no, or those alone that say yes.
fn wanted(services: &Map<String, Value>, active: &[String]) -> Vec<String> {
    let says = |service: &&String, word: &str| services[*service]["labels"][CAPTURE] == word;
    let there = |service: &&String| services.contains_key(*service);
    let there: Vec<&String> = active.iter().filter(there).collect();
    let chosen = there.iter().any(|service| says(service, "true"));
    let wants = |service: &&String| match chosen {
        true => says(service, "true"),
        false => !says(service, "false"),
    };
    there.into_iter().filter(wants).cloned().collect()
}

/// The service whose network is shared in a `network_mode`.
fn shares(mode: &Value) -> Option<&str> {
    mode.as_str()?.strip_prefix("service:")
}

/// Why a service cannot have a companion.
fn unfit(name: &str, service: &Value, asked: &Asked<'_>) -> Option<String> {
    if service.get("provider").is_some() {
        return Some("it is no container".to_owned());
    }
    let mode = service["network_mode"].as_str().unwrap_or_default();
    if !["", "bridge", "default"].contains(&mode) {
        return Some(format!("its network is not its own (network_mode: {mode})"));
    }
    if service["uts"] == "host" {
        return Some("it has the host name of the engine's machine (uts: host)".to_owned());
    }
    let scale = asked.scales.get(name).copied();
    let scale = scale.or_else(|| service["scale"].as_u64());
    let scale = scale.or_else(|| service["deploy"]["replicas"].as_u64());
    match scale {
        None | Some(0 | 1) => None,
        Some(count) => Some(format!(
            "it has {count} containers, which cannot share one network (--scale {name}=1 brings it \
             in)"
        )),
    }
}

/// The companion that gets the network of a service, without labels; and what of the service's keys about
/// that stays with it.
fn split(
    service: &Map<String, Value>,
    project: &str,
    name: &str,
    beside: Option<&OneOff>,
    image: &str,
) -> (Value, Map<String, Value>) {
    let mut owner = json!({
        "image": image,
        "pull_policy": "never",
        "command": [HOLD],
        "user": "0:0",
        "cap_drop": ["ALL"],
        // For rules and sockets in its own network, and the port for names there.
        "cap_add": ["NET_ADMIN", "NET_BIND_SERVICE"],
        // It says nothing that is for the user.
        "attach": false,
        "logging": {"driver": "none"},
    });
    for key in MOVED.into_iter().chain(BOTH) {
        if let Some(value) = service.get(key) {
            owner[key] = value.clone();
        }
    }
    let stays = divide_sysctls(&mut owner);
    if let Some(beside) = beside.filter(|beside| !beside.service_ports) {
        owner["ports"] = json!(beside.ports);
    }
    owner["dns"] = json!([DNS.to_string()]);
    if owner["dns_search"].is_null() {
        // kdev knows short names, and those of the user's networks go before the cluster's.
        owner["dns_search"] = json!(["."]);
    }
    let mut hosts = texts(owner.get("extra_hosts"));
    hosts.push(format!("{HOST_NAME}:{HOST_V4}"));
    owner["extra_hosts"] = json!(hosts);
    if let Some(networks) = owner.get_mut("networks").and_then(Value::as_object_mut) {
        let container = service.get("container_name").and_then(Value::as_str);
        let container = container.map_or_else(|| format!("{project}-{name}-1"), str::to_owned);
        for (_, network) in networks {
            match beside.is_none_or(|beside| beside.aliases) {
                true => known_as(network, [name, &container]),
                false => drop(network.as_object_mut().map(|it| it.remove("aliases"))),
            }
        }
    }
    (owner, stays)
}

/// The parameters of the network are for its owner. Gives those of the service.
fn divide_sysctls(owner: &mut Value) -> Map<String, Value> {
    let Some(all) = owner.get_mut("sysctls").and_then(Value::as_object_mut) else {
        return Map::new();
    };
    let all = std::mem::take(all).into_iter();
    let (network, others): (Map<_, _>, Map<_, _>) =
        all.partition(|(name, _)| name.starts_with("net."));
    owner["sysctls"] = network.into();
    let others = Some(others).filter(|others| !others.is_empty());
    let stays = others.map(|others| ("sysctls".to_owned(), others.into()));
    stays.into_iter().collect()
}

/// Gives a member of a network more names there.
fn known_as(network: &mut Value, names: [&str; 2]) {
    let mut aliases = texts(network.get("aliases"));
    for name in names {
        if !aliases.iter().any(|alias| alias == name) {
            aliases.push(name.to_owned());
        }
    }
    if !network.is_object() {
        *network = json!({});
    }
    network["aliases"] = json!(aliases);
}

/// Has references to the network of a service lead to its companion, where `names` has one.
fn refer(service: &mut Map<String, Value>, names: &BTreeMap<String, String>) {
    if let Some(links) = service.get_mut("links").and_then(Value::as_array_mut) {
        for link in links {
            let text = link.as_str().unwrap_or_default();
            let (target, alias) = text.split_once(':').unwrap_or((text, text));
            if let Some(companion) = names.get(target) {
                *link = format!("{companion}:{alias}").into();
            }
        }
    }
    let target = service.get("network_mode").and_then(shares);
    // Those that have one of their own already name it.
    if let Some(companion) = target.and_then(|target| names.get(target)) {
        enter(service, companion);
    }
}

/// Lets a service share the network of a companion.
fn enter(service: &mut Map<String, Value>, companion: &str) {
    let mode = format!("service:{companion}");
    service.insert("network_mode".to_owned(), mode.into());
    let dependency = json!({"condition": STARTED, "restart": true, "required": true});
    put(service, "depends_on", companion, dependency);
}

/// Puts an entry into a map of a service, which may not be there yet.
fn put(service: &mut Map<String, Value>, map: &str, key: &str, value: Value) {
    let map = service.entry(map).or_insert_with(|| json!({}));
    if let Some(map) = map.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

/// A list of texts, which may not be there. Compose prints none of them in another form.
fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    let texts = list.filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
