//! From what is known to the pods behind a destination, or to the reason why there are none.
//! Pure.

use std::net::IpAddr;
use std::sync::Arc;

use super::name::{Query, What};
use super::store::{
    Namespace, Owner, Pod, Protocol, Service, ServiceKind, ServicePort, Store, TargetPort,
};
use crate::addr::{ClusterName, Namespaced, Target, undashed};
use crate::dial::{DialError, Endpoints, NEEDS_RELAY, PodPort, Resolution};

/// How many names a message lists.
const SHOWN_NAMES: usize = 8;

/// A destination in what is known.
pub(super) enum Found {
    /// The answer.
    Is(Resolution),
    /// No such Service, pod or address among what is known.
    Absent,
    /// The Service has no selector: its EndpointSlices say which pods it means.
    NoSelector,
}

/// Looks for `target`, which may ask for `query`.
pub(super) fn find(store: &Store, query: &Query, target: &Target) -> Found {
    match &query.what {
        What::Name(ClusterName::Service(name)) => of_service(store, name, target),
        What::Name(ClusterName::Endpoint { service, host }) => {
            of_endpoint(store, service, host, target)
        }
        What::Name(ClusterName::Srv { service, port }) => of_srv(store, service, port, target),
        What::Name(ClusterName::PodIp { ip, .. }) | What::Ip(ip) => of_ip(store, *ip, target),
    }
}

fn of_ip(store: &Store, ip: IpAddr, target: &Target) -> Found {
    match store.owner(ip) {
        None => Found::Absent,
        Some(Owner::Service(namespace, name)) => {
            of_service(store, &Namespaced::new(&**namespace, &**name), target)
        }
        Some(Owner::Pod(namespace, name)) => {
            let pod = store.namespace(namespace).and_then(|n| n.pods.get(name));
            match pod {
                Some(pod) => Found::Is(one_pod(namespace, name, pod, target)),
                None => Found::Absent,
            }
        }
    }
}

/// One endpoint of a Service by its host name or its address: of one with a cluster address too,
/// for CoreDNS answers for those as well.
fn of_endpoint(store: &Store, name: &Namespaced, host: &str, target: &Target) -> Found {
    let Some((namespace, service)) = service(store, name) else {
        return Found::Absent;
    };
    if matches!(service.kind, ServiceKind::External(_)) {
        return Found::Absent;
    }
    if service.selector.is_empty() {
        return Found::NoSelector;
    }
    let by_host = namespace.by_host(host).find(|(_, pod)| {
        pod.host(&name.name).is_some_and(|own| **own == *host) && pod.is_selected(&service.selector)
    });
    let by_ip = || {
        let ip = undashed(host)?;
        let mut members = namespace.selected(&service.selector);
        members.find(|(_, pod)| pod.ips.contains(&ip))
    };
    let Some((pod_name, pod)) = by_host.or_else(by_ip) else {
        return Found::Absent;
    };
    if pod.over || pod.takes_traffic(service.publish_not_ready) {
        return Found::Is(one_pod(&name.namespace, pod_name, pod, target));
    }
    Found::Is(unreachable(
        target,
        format!(
            "pod {pod_name} in namespace {} is not ready, so it has no name under {}",
            name.namespace,
            describe(name)
        ),
        &match pod.ips.first() {
            Some(ip) => format!("its address {ip} reaches it all the same"),
            None => String::new(),
        },
    ))
}

/// An SRV record's name is no host: it says which port the Service has.
fn of_srv(store: &Store, name: &Namespaced, port: &str, target: &Target) -> Found {
    let Some((_, service)) = service(store, name) else {
        return Found::Absent;
    };
    let port = service.ports.iter().find(|p| *p.name == *port);
    Found::Is(Resolution::Failed(DialError::NotFound {
        what: format!("an address of {}", target.host),
        fix: match port {
            Some(port) => format!(
                "it is the name of an SRV record: dial {name}:{} instead",
                port.port
            ),
            None => format!(
                "it is the name of an SRV record, and {} has no port of that name",
                describe(name)
            ),
        },
    }))
}

fn service<'a>(store: &'a Store, name: &Namespaced) -> Option<(&'a Namespace, &'a Service)> {
    let namespace = store.namespace(&name.namespace)?;
    Some((namespace, namespace.services.get(name.name.as_str())?))
}

fn one_pod(namespace: &str, name: &str, pod: &Pod, target: &Target) -> Resolution {
    if pod.over {
        return unreachable(
            target,
            format!("pod {name} in namespace {namespace} has ended"),
            "",
        );
    }
    Resolution::Pods(Endpoints {
        service: None,
        declared: pod.declares(target.port),
        pods: vec![pod_port(namespace, name, pod, target.port)],
    })
}

fn of_service(store: &Store, name: &Namespaced, target: &Target) -> Found {
    let Some((namespace, service)) = service(store, name) else {
        return Found::Absent;
    };
    if let ServiceKind::External(alias) = &service.kind {
        return Found::Is(Resolution::Alias {
            service: name.clone(),
            name: alias.to_string(),
        });
    }
    if service.selector.is_empty() {
        return Found::NoSelector;
    }
    Found::Is(of_selector(namespace, service, name, target))
}

fn of_selector(
    namespace: &Namespace,
    service: &Service,
    name: &Namespaced,
    target: &Target,
) -> Resolution {
    let mut all = 0_usize;
    let mut ready: Vec<(&Arc<str>, &Pod)> = Vec::new();
    for (pod_name, pod) in namespace.selected(&service.selector) {
        all += 1;
        if pod.takes_traffic(service.publish_not_ready) {
            ready.push((pod_name, pod));
        }
    }
    let route = match route(service, target.port, || {
        ready.iter().any(|(_, pod)| pod.declares(target.port))
    }) {
        Ok(route) => route,
        Err(protocol) => return not_tcp(name, protocol, target),
    };
    if ready.is_empty() {
        return no_ready_pod(name, service, all, target);
    }
    let pods = ready.iter().filter_map(|(pod_name, pod)| {
        let port = match &route.to {
            TargetPort::Number(number) => *number,
            TargetPort::Name(port) => pod.named(port)?,
        };
        Some(pod_port(&name.namespace, pod_name, pod, port))
    });
    let pods: Vec<PodPort> = pods.collect();
    if pods.is_empty() {
        let TargetPort::Name(port) = &route.to else {
            return no_ready_pod(name, service, all, target);
        };
        return unreachable(
            target,
            format!(
                "port {} of {} leads to the pods' port named {port:?}, which none of its {} ready pods declares",
                target.port,
                describe(name),
                ready.len()
            ),
            "correct targetPort of the Service or the containers' ports",
        );
    }
    Resolution::Pods(Endpoints {
        service: Some(name.clone()),
        pods,
        declared: route.declared,
    })
}

/// Where a Service's port leads.
pub(super) struct Route {
    pub(super) to: TargetPort,
    pub(super) declared: bool,
    /// The Service port's name, which EndpointSlices use.
    pub(super) name: Option<Arc<str>>,
}

/// Finds where `port` of `service` leads; `on_pods` says whether the pods declare that number.
/// The error is the protocol that the port is declared for, where that is not TCP.
pub(super) fn route(
    service: &Service,
    port: u16,
    on_pods: impl FnOnce() -> bool,
) -> Result<Route, Protocol> {
    let straight = |declared| Route {
        to: TargetPort::Number(port),
        declared,
        name: None,
    };
    let by_number = |p: &&ServicePort| p.port == port;
    let matched = service
        .ports
        .iter()
        .filter(|p| p.protocol == Protocol::Tcp)
        .find(by_number);
    // A headless Service's name is its pods' addresses, where ports are the pods' own.
    if service.kind == ServiceKind::Headless || matched.is_none() {
        let declared = on_pods();
        if declared {
            return Ok(straight(true));
        }
    }
    if let Some(matched) = matched {
        return Ok(Route {
            to: matched.target.clone(),
            declared: true,
            name: Some(Arc::clone(&matched.name)),
        });
    }
    match service.ports.iter().find(|p| p.port == port) {
        Some(other) => Err(other.protocol),
        None => Ok(straight(false)),
    }
}

/// The answer for a port that is declared, but not for TCP.
pub(super) fn not_tcp(name: &Namespaced, protocol: Protocol, target: &Target) -> Resolution {
    unreachable(
        target,
        format!(
            "port {} of {} is {}, and port-forward carries TCP alone",
            target.port,
            describe(name),
            protocol.label().trim_start_matches('_').to_uppercase()
        ),
        NEEDS_RELAY,
    )
}

fn no_ready_pod(name: &Namespaced, service: &Service, all: usize, target: &Target) -> Resolution {
    let count = match all {
        0 => "no pod matches its selector".to_owned(),
        1 => "1 pod, not ready".to_owned(),
        n => format!("{n} pods, none ready"),
    };
    let mut terms: Vec<&str> = service.selector.iter().map(|term| &**term).collect();
    terms.sort_unstable();
    unreachable(
        target,
        format!("{} has no ready pod ({count})", describe(name)),
        &format!(
            "`kubectl get pods -n {} -l {}` shows them",
            name.namespace,
            terms.join(",")
        ),
    )
}

/// The answer for a name that can only be the cluster's and is not there.
pub(super) fn not_found(store: &Store, query: &Query) -> Resolution {
    let fix = match &query.what {
        What::Name(ClusterName::Service(name) | ClusterName::Srv { service: name, .. }) => {
            near(store, name)
        }
        What::Name(ClusterName::Endpoint { service: name, .. }) => {
            if service(store, name).is_none() {
                near(store, name)
            } else {
                "ready pods of a Service go by their address with dashes, and by their host \
                 name where `hostname` and `subdomain` are set, as StatefulSets set them"
                    .to_owned()
            }
        }
        What::Name(ClusterName::PodIp { .. }) => NEEDS_RELAY.to_owned(),
        What::Ip(_) => String::new(),
    };
    Resolution::Failed(DialError::NotFound {
        what: query.to_string(),
        fix,
    })
}

/// What the user may have meant.
fn near(store: &Store, name: &Namespaced) -> String {
    let Some(namespace) = store.namespace(&name.namespace) else {
        return format!("kdev sees no Service in namespace {}", name.namespace);
    };
    let mut known: Vec<&str> = namespace.services.keys().map(|n| &**n).collect();
    known.sort_unstable();
    let similar: Vec<&str> = known
        .iter()
        .copied()
        .filter(|known| is_similar(known, &name.name))
        .take(SHOWN_NAMES)
        .collect();
    if !similar.is_empty() {
        return format!("did you mean {}?", similar.join(", "));
    }
    let shown = known.iter().take(SHOWN_NAMES).copied();
    let shown = shown.collect::<Vec<_>>().join(", ");
    match known.len() {
        0 => format!("kdev sees no Service in namespace {}", name.namespace),
        n if n > SHOWN_NAMES => {
            format!(
                "kdev sees {n} Services in namespace {}: {shown}, …",
                name.namespace
            )
        }
        _ => format!("in namespace {} there is {shown}", name.namespace),
    }
}

/// Whether two names differ by a slip: one contains the other, or two letters at most differ.
fn is_similar(known: &str, asked: &str) -> bool {
    /// Shorter names than this are contained in too many.
    const MIN_PART: usize = 3;
    let contained = asked.len() >= MIN_PART && known.contains(asked)
        || known.len() >= MIN_PART && asked.contains(known);
    contained || known.len().abs_diff(asked.len()) <= 2 && distance(known, asked) <= 2
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

pub(super) fn describe(name: &Namespaced) -> String {
    format!("Service {} in namespace {}", name.name, name.namespace)
}

pub(super) fn unreachable(target: &Target, reason: String, fix: &str) -> Resolution {
    Resolution::Failed(DialError::Unreachable {
        target: target.to_string(),
        reason,
        fix: fix.to_owned(),
    })
}

fn pod_port(namespace: &str, name: &str, pod: &Pod, port: u16) -> PodPort {
    PodPort {
        pod: Namespaced::new(namespace, name),
        uid: pod.uid.to_string(),
        port,
    }
}
