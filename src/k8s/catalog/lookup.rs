//! From what is known to the pods behind a destination, or to the reason why there are none.
//! Pure.

use std::net::IpAddr;
use std::sync::Arc;

use super::name::Query;
use super::store::{
    Namespace, Owner, Pod, Protocol, Service, ServiceKind, ServicePort, Store, TargetPort,
};
use crate::addr::{Namespaced, Target};
use crate::dial::{DialError, Endpoints, PodPort, Resolution};

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

/// Looks for `target`, which asks for `query`.
pub(super) fn find(store: &Store, query: &Query, target: &Target) -> Found {
    match query {
        Query::Nothing => Found::Is(Resolution::Elsewhere),
        Query::Service { name, .. } => of_service(store, name, target),
        Query::PodOf { service, host } => of_pod_name(store, service, host, target),
        Query::Ip(ip) => of_ip(store, *ip, target),
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

fn of_pod_name(store: &Store, service: &Namespaced, host: &str, target: &Target) -> Found {
    let Some(namespace) = store.namespace(&service.namespace) else {
        return Found::Absent;
    };
    let named = |pod: &Pod| {
        let subdomain = pod.subdomain.as_ref();
        subdomain.is_some_and(|(h, s)| **h == *host && **s == *service.name)
    };
    // Almost always the pod's own name; `hostname` may be set otherwise.
    let by_name = namespace.pods.get_key_value(host).filter(|(_, p)| named(p));
    match by_name.or_else(|| namespace.pods.iter().find(|(_, pod)| named(pod))) {
        Some((name, pod)) => Found::Is(one_pod(&service.namespace, name, pod, target)),
        None => Found::Absent,
    }
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
    let namespace = store.namespace(&name.namespace);
    let Some((namespace, service)) =
        namespace.and_then(|n| Some((n, n.services.get(name.name.as_str())?)))
    else {
        return Found::Absent;
    };
    if let ServiceKind::External(alias) = &service.kind {
        return Found::Is(unreachable(
            target,
            format!("{} is an alias of {alias} (ExternalName)", describe(name)),
            &format!("dial {alias} itself"),
        ));
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
        Err(NotTcp) => return not_tcp(name, target),
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

/// The port is declared, for another protocol than TCP.
pub(super) struct NotTcp;

/// Finds where `port` of `service` leads; `on_pods` says whether the pods declare that number.
pub(super) fn route(
    service: &Service,
    port: u16,
    on_pods: impl FnOnce() -> bool,
) -> Result<Route, NotTcp> {
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
    match matched {
        Some(matched) => Ok(Route {
            to: matched.target.clone(),
            declared: true,
            name: Some(Arc::clone(&matched.name)),
        }),
        None if service.ports.iter().any(|p| p.port == port) => Err(NotTcp),
        None => Ok(straight(false)),
    }
}

/// The answer for a port that is declared, but not for TCP.
pub(super) fn not_tcp(name: &Namespaced, target: &Target) -> Resolution {
    unreachable(
        target,
        format!("port {} of {} is not TCP", target.port, describe(name)),
        "port-forward carries TCP only",
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

/// The answer for a name that can only be a Service's and is not.
pub(super) fn not_found(store: &Store, query: &Query) -> Resolution {
    let (what, fix) = match query {
        Query::Service { name, .. } => (describe(name), near(store, name)),
        Query::PodOf { service, host } => (
            format!("pod {host} of {}", describe(service)),
            "only pods with `subdomain` set, as StatefulSets set it, have such a name".to_owned(),
        ),
        Query::Ip(ip) => (format!("address {ip}"), String::new()),
        Query::Nothing => ("the host".to_owned(), String::new()),
    };
    Resolution::Failed(DialError::NotFound { what, fix })
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
