//! Companions for the services of a project, written into the project as Compose prints it
//! (the Compose specification, in JSON).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::CAPTURE;
use super::argv::OneOff;
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
    /// The same of those that others serve, by their services.
    pub(super) others: &'a BTreeMap<String, String>,
    /// The image of companions.
    pub(super) image: &'a str,
}

/// What became of a project.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Joined {
    /// The companions that are in it.
    pub(super) companions: Vec<Placed>,
    /// The services that stay outside though nobody wants that, and why, as the end of a sentence.
    pub(super) outside: Vec<(String, String)>,
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
}

/// Writes companions into `project`.
///
/// # Errors
/// When a service has a name that a companion needs, or one that is asked for does not start.
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
    let wanted = match asked.only {
        [] => wanted(services, asked.active),
        only => only.to_vec(),
    };
    let mut captured = BTreeSet::new();
    let mut sharing = Vec::new();
    for service in &wanted {
        let it = &services[service];
        match (shares(&it["network_mode"]), unfit(service, it, asked)) {
            (Some(owner), _) => sharing.push((service.clone(), owner.to_owned())),
            (None, None) => drop(captured.insert(service.clone())),
            (None, Some(why)) => joined.outside.push((service.clone(), why)),
        }
    }
    for (service, owner) in sharing {
        if !captured.contains(&owner) {
            let why = format!("its network is that of {owner}, which stays outside");
            joined.outside.push((service, why));
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
    let mut companions = Vec::new();
    for service in &captured {
        let companion = companion_of(service);
        if services.contains_key(&companion) {
            return Err(format!(
                "the project has a service {companion}, which is the name that kdev needs for the \
                 network of {service}"
            ));
        }
        let Some(it) = services[service].as_object_mut() else {
            continue;
        };
        let resolvers = texts(it.get("dns"));
        let owner = split(it, &name, service, asked);
        companions.push((companion.clone(), owner));
        joined.companions.push(Placed {
            service: service.clone(),
            name: companion,
            resolvers,
        });
    }
    services.extend(companions);
    for (_, service) in services.iter_mut() {
        if let Some(service) = service.as_object_mut() {
            refer(service, &captured);
        }
    }
    Ok(joined)
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

/// Takes the network from a service, and gives the companion that gets it.
fn split(service: &mut Map<String, Value>, project: &str, name: &str, asked: &Asked<'_>) -> Value {
    // What another kdev serves stays as that one has made it.
    let (session, one_off) = match asked.others.get(name) {
        Some(session) => (session.as_str(), None),
        None => (asked.session, asked.one_off),
    };
    let mut owner = json!({
        "image": asked.image,
        "pull_policy": "never",
        "command": [HOLD],
        "user": "0:0",
        "cap_drop": ["ALL"],
        // For rules and sockets in its own network, and the port for names there.
        "cap_add": ["NET_ADMIN", "NET_BIND_SERVICE"],
        // It says nothing that is for the user.
        "attach": false,
        "logging": {"driver": "none"},
        "labels": {companion::LABEL: session},
    });
    for key in MOVED {
        if let Some(value) = service.remove(key) {
            owner[key] = value;
        }
    }
    for key in BOTH {
        if let Some(value) = service.get(key) {
            owner[key] = value.clone();
        }
    }
    divide_sysctls(service, &mut owner);
    if let Some(one_off) = one_off.filter(|one_off| !one_off.service_ports) {
        owner["ports"] = json!(one_off.ports);
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
            match one_off.is_none_or(|one_off| one_off.aliases) {
                true => known_as(network, [name, &container]),
                false => drop(network.as_object_mut().map(|it| it.remove("aliases"))),
            }
        }
    }
    enter(service, name);
    put(service, "labels", command::LABEL, session.into());
    owner
}

/// The parameters of the network go to its owner, the others stay.
fn divide_sysctls(service: &mut Map<String, Value>, owner: &mut Value) {
    let Some(all) = owner.get_mut("sysctls").and_then(Value::as_object_mut) else {
        return;
    };
    let all = std::mem::take(all).into_iter();
    let (network, others): (Map<_, _>, Map<_, _>) =
        all.partition(|(name, _)| name.starts_with("net."));
    owner["sysctls"] = network.into();
    if !others.is_empty() {
        service.insert("sysctls".to_owned(), others.into());
    }
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

/// Has references to the network of one of `captured` lead to its companion.
fn refer(service: &mut Map<String, Value>, captured: &BTreeSet<String>) {
    if let Some(links) = service.get_mut("links").and_then(Value::as_array_mut) {
        for link in links {
            let text = link.as_str().unwrap_or_default();
            let (target, alias) = text.split_once(':').unwrap_or((text, text));
            if captured.contains(target) {
                *link = format!("{}:{alias}", companion_of(target)).into();
            }
        }
    }
    let target = service.get("network_mode").and_then(shares);
    // Those that have one of their own already name it.
    if let Some(target) = target.filter(|target| captured.contains(*target)) {
        let target = target.to_owned();
        enter(service, &target);
    }
}

/// Lets a service share the network of the companion of `owner`.
fn enter(service: &mut Map<String, Value>, owner: &str) {
    let companion = companion_of(owner);
    let mode = format!("service:{companion}");
    service.insert("network_mode".to_owned(), mode.into());
    let dependency = json!({"condition": STARTED, "restart": true, "required": true});
    put(service, "depends_on", &companion, dependency);
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
