//! From what is known to the pods behind a destination, or to the reason why there are none.
//! Pure.

use std::net::IpAddr;
use std::sync::Arc;

use super::failure::{Seen, describe, no_ready_pod, other_protocol, unreachable};
use super::name::{Query, What};
use super::pod::Pod;
use super::store::{Namespace, Owner, Service, ServiceKind, ServicePort, Store, TargetPort};
use crate::addr::{ClusterName, Host, Namespaced, Protocol, Target, undashed};
use crate::dial::{DialError, Endpoints, Inside, PodPort, Resolution, Wanted};

/// A destination in what is known.
pub(super) enum Found {
    /// The answer.
    Is(Resolution),
    /// No such Service, pod or address among what is known.
    Absent,
    /// The Service has no selector: its EndpointSlices say which pods it means.
    NoSelector,
}

/// Looks for what is `wanted`, which may ask for `query`.
pub(super) fn find(store: &Store, query: &Query, wanted: Wanted<'_>) -> Found {
    match &query.what {
        What::Name(ClusterName::Service(name)) => of_service(store, name, wanted),
        What::Name(ClusterName::Endpoint { service, host }) => {
            of_endpoint(store, service, host, wanted)
        }
        What::Name(ClusterName::Srv { service, port }) => of_srv(store, service, port, wanted),
        What::Name(ClusterName::PodIp { ip, .. }) | What::Ip(ip) => of_ip(store, *ip, wanted),
        What::Pods(pick) => pick.find(store, wanted),
        // Nobody dials these.
        What::Reverse(_) | What::Namespace(_) => Found::Absent,
    }
}

fn of_ip(store: &Store, ip: IpAddr, wanted: Wanted<'_>) -> Found {
    match store.owner(ip) {
        None => Found::Absent,
        Some(Owner::Service(namespace, name)) => {
            of_service(store, &Namespaced::new(&**namespace, &**name), wanted)
        }
        Some(Owner::Pod(namespace, name)) => {
            let pod = store.namespace(namespace).and_then(|n| n.pods.get(name));
            match pod {
                Some(pod) => Found::Is(one_pod(namespace, name, pod, &pod.ips, wanted)),
                None => Found::Absent,
            }
        }
    }
}

/// One endpoint of a Service by its host name or its address: of one with a cluster address too,
/// for CoreDNS answers for those as well.
fn of_endpoint(store: &Store, name: &Namespaced, host: &str, wanted: Wanted<'_>) -> Found {
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
        members.find(|(_, pod)| service.addresses(pod).any(|own| own == ip))
    };
    let Some((pod_name, pod)) = by_host.or_else(by_ip) else {
        return Found::Absent;
    };
    if pod.over || service.takes(pod) {
        let ips: Vec<IpAddr> = service.addresses(pod).collect();
        return Found::Is(one_pod(&name.namespace, pod_name, pod, &ips, wanted));
    }
    if pod.takes_traffic(service.publish_not_ready) {
        return Found::Is(unreachable(
            wanted,
            format!(
                "pod {pod_name} in namespace {} has no {} address, so it has no name under {}",
                name.namespace,
                service.families,
                describe(name)
            ),
            "",
        ));
    }
    Found::Is(unreachable(
        wanted,
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
fn of_srv(store: &Store, name: &Namespaced, port: &str, wanted: Wanted<'_>) -> Found {
    let Some((_, service)) = service(store, name) else {
        return Found::Absent;
    };
    let port = service.ports.iter().find(|p| *p.name == *port);
    Found::Is(Resolution::Failed(DialError::NotFound {
        what: format!("an address of {}", wanted.target.host),
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

pub(super) fn service<'a>(
    store: &'a Store,
    name: &Namespaced,
) -> Option<(&'a Namespace, &'a Service)> {
    let namespace = store.namespace(&name.namespace)?;
    Some((namespace, namespace.services.get(name.name.as_str())?))
}

/// A pod, by one of `ips`, which are those of its addresses that the name stands for.
pub(super) fn one_pod(
    namespace: &str,
    name: &str,
    pod: &Pod,
    ips: &[IpAddr],
    wanted: Wanted<'_>,
) -> Resolution {
    if pod.over {
        return unreachable(
            wanted,
            format!("pod {name} in namespace {namespace} has ended"),
            "",
        );
    }
    let port = wanted.target.port;
    let declared = pod.declares(port, wanted.protocol);
    Resolution::Pods(Endpoints {
        service: None,
        declared,
        pods: vec![pod_port(namespace, name, pod, port)],
        inside: Inside {
            targets: one_of(ips, wanted, port).into_iter().collect(),
            known: declared && pod.ready,
        },
    })
}

fn of_service(store: &Store, name: &Namespaced, wanted: Wanted<'_>) -> Found {
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
    Found::Is(of_selector(namespace, service, name, wanted))
}

fn of_selector(
    namespace: &Namespace,
    service: &Service,
    name: &Namespaced,
    wanted: Wanted<'_>,
) -> Resolution {
    let mut seen = Seen::default();
    let mut ready: Vec<(&Arc<str>, &Pod)> = Vec::new();
    for (pod_name, pod) in namespace.selected(&service.selector) {
        seen.all += 1;
        if service.takes(pod) {
            ready.push((pod_name, pod));
        } else if pod.takes_traffic(service.publish_not_ready) {
            seen.of_other_family += 1;
        }
    }
    let port = wanted.target.port;
    let route = match route(service, wanted, || {
        let mut pods = ready.iter();
        pods.any(|(_, pod)| pod.declares(port, wanted.protocol))
    }) {
        Ok(route) => route,
        Err(other) => return other_protocol(name, other, wanted),
    };
    if ready.is_empty() {
        return no_ready_pod(name, service, &seen, wanted);
    }
    let mut pods = Vec::with_capacity(ready.len());
    let mut targets: Vec<Target> = own_target(service, &route, wanted).into_iter().collect();
    for (pod_name, pod) in &ready {
        let port = match &route.to {
            TargetPort::Number(number) => *number,
            TargetPort::Name(port) => match pod.named(port, wanted.protocol) {
                Some(number) => number,
                None => continue,
            },
        };
        pods.push(pod_port(&name.namespace, pod_name, pod, port));
        if !route.own {
            let ips: Vec<IpAddr> = service.addresses(pod).collect();
            targets.extend(one_of(&ips, wanted, port));
        }
    }
    if pods.is_empty() {
        let TargetPort::Name(port) = &route.to else {
            return no_ready_pod(name, service, &seen, wanted);
        };
        return unreachable(
            wanted,
            format!(
                "port {} of {} leads to the pods' port named {port:?}, which none of its {} ready pods declares",
                wanted.target.port,
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
        inside: Inside {
            targets,
            known: route.declared,
        },
    })
}

/// Where a Service's port leads.
pub(super) struct Route {
    pub(super) to: TargetPort,
    pub(super) declared: bool,
    /// The Service port's name, which EndpointSlices use.
    pub(super) name: Option<Arc<str>>,
    /// Whether the Service's own address has the port.
    pub(super) own: bool,
}

/// Finds where the port that is `wanted` of `service` leads; `on_pods` says whether the pods
/// declare that number. The error is the protocol that the port is declared for instead.
pub(super) fn route(
    service: &Service,
    wanted: Wanted<'_>,
    on_pods: impl FnOnce() -> bool,
) -> Result<Route, Protocol> {
    let port = wanted.target.port;
    let straight = |declared| Route {
        to: TargetPort::Number(port),
        declared,
        name: None,
        own: false,
    };
    let by_number = |p: &&ServicePort| p.port == port;
    let matched = service
        .ports
        .iter()
        .filter(|p| p.protocol == wanted.protocol)
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
            own: !service.ips.is_empty(),
        });
    }
    match service.ports.iter().find(|p| p.port == port) {
        Some(other) => Err(other.protocol),
        None => Ok(straight(false)),
    }
}

/// The Service's own address, where it has the port: what pods dial.
pub(super) fn own_target(service: &Service, route: &Route, wanted: Wanted<'_>) -> Option<Target> {
    let ips: &[IpAddr] = if route.own { &service.ips } else { &[] };
    one_of(ips, wanted, wanted.target.port)
}

/// One of the addresses that something has: the one that was asked for, also as a label with
/// dashes, else the first, whose family is the one that the Service or the cluster prefers.
pub(super) fn one_of(ips: &[IpAddr], wanted: Wanted<'_>, port: u16) -> Option<Target> {
    let asked = match &wanted.target.host {
        Host::Ip(ip) => Some(*ip),
        Host::Name(name) => name.split('.').next().and_then(undashed),
    };
    let asked = ips.iter().find(|own| Some(**own) == asked);
    let ip = asked.or_else(|| ips.first())?;
    Some(Target::new((*ip).into(), port))
}

/// The answer for what the user may not see, because of `error`. Who is inside does without: a
/// Service's own address leads to its pods, and the cluster's DNS knows its name, which a pod in
/// the context's namespace reads as kdev does.
pub(super) fn unseen(
    store: &Store,
    query: &Query,
    wanted: Wanted<'_>,
    error: &DialError,
) -> Resolution {
    let owned;
    let name = match &query.what {
        What::Name(ClusterName::Service(name)) => Some(name),
        What::Name(ClusterName::PodIp { ip, .. }) | What::Ip(ip) => match store.owner(*ip) {
            Some(Owner::Service(namespace, name)) => {
                owned = Namespaced::new(&**namespace, &**name);
                Some(&owned)
            }
            _ => None,
        },
        What::Name(_) | What::Reverse(_) | What::Namespace(_) | What::Pods(_) => None,
    };
    let target = name.and_then(|name| {
        let (_, service) = service(store, name)?;
        let route = route(service, wanted, || false).ok()?;
        own_target(service, &route, wanted)
    });
    // Only these are names that the cluster's DNS knows.
    let has_name =
        matches!(wanted.target.host, Host::Name(_)) && matches!(query.what, What::Name(_));
    let named = || has_name.then(|| wanted.target.clone());
    let denied = matches!(error, DialError::Denied { .. });
    match target.or_else(|| named().filter(|_| denied)) {
        Some(target) => Resolution::Inside {
            inside: Inside::unknown(target),
            why: error.clone(),
        },
        None => Resolution::Failed(error.clone()),
    }
}

pub(super) fn pod_port(namespace: &str, name: &str, pod: &Pod, port: u16) -> PodPort {
    PodPort {
        pod: Namespaced::new(namespace, name),
        uid: pod.uid.to_string(),
        port,
    }
}
