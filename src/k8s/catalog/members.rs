//! The pods of a Service by its EndpointSlices, or by its Endpoints where the server is older
//! than those or the user may not see them: needed where pods cannot be listed, and for Services
//! without a selector, whose endpoints somebody else writes.

use std::collections::HashSet;
use std::net::IpAddr;

use super::detail::PodDetail;
use super::failure::{describe, other_protocol, unreachable};
use super::learn::Answer;
use super::lookup::{self, Route};
use super::name::{Query, What};
use super::object::{Address, EndpointPort, RawEndpoints, SliceEndpoint, TargetRef, addresses};
use super::store::{Owner, Service, Store, TargetPort};
use crate::addr::{ClusterName, Namespaced, Protocol, undashed};
use crate::dial::{DialError, Endpoints, Inside, NEEDS_RELAY, PodPort, Resolution, Wanted};
use crate::dns::{Endpoint, Port};

/// Groups of pods with the same ports.
#[derive(Debug, Default)]
pub(super) struct Members {
    groups: Vec<Group>,
    /// All that are ready, as DNS has them.
    pub(super) named: Vec<Endpoint>,
}

#[derive(Debug, Default)]
struct Group {
    /// By the Service port's name.
    ports: Vec<(String, Protocol, u16)>,
    pods: Vec<Member>,
    /// Endpoints that are no pods.
    foreign: Vec<Foreign>,
}

#[derive(Debug)]
struct Foreign {
    ready: bool,
    host: Box<str>,
    ips: Box<[IpAddr]>,
}

#[derive(Debug)]
struct Member {
    pod: Namespaced,
    uid: String,
    ready: bool,
    host: Box<str>,
    ips: Box<[IpAddr]>,
}

/// An endpoint as it is sent.
struct RawEndpoint {
    target: Option<TargetRef>,
    host: String,
    ips: Box<[IpAddr]>,
    ready: bool,
}

impl RawEndpoint {
    fn of_slice(raw: SliceEndpoint) -> Self {
        Self {
            ready: raw.is_ready(),
            target: raw.target_ref,
            host: raw.hostname,
            ips: addresses("", raw.addresses.iter().map(String::as_str)),
        }
    }

    fn of_subset(raw: Address, ready: bool) -> Self {
        Self {
            target: raw.target_ref,
            host: raw.hostname,
            ips: addresses(&raw.ip, std::iter::empty()),
            ready,
        }
    }
}

fn named(host: &str, ips: Vec<IpAddr>, ports: &[EndpointPort]) -> Endpoint {
    let ports = ports.iter().map(|port| Port {
        name: port.name.as_str().into(),
        protocol: Protocol::of(&port.protocol),
        number: port.port,
    });
    Endpoint {
        host: (!host.is_empty()).then(|| host.into()),
        ips,
        ports: ports.collect(),
    }
}

impl Members {
    pub(super) fn of(raw: Vec<RawEndpoints>) -> Self {
        let mut members = Self::default();
        for object in raw {
            members.name(&object);
            let namespace = object.metadata.namespace;
            if !object.endpoints.is_empty() {
                let endpoints = object.endpoints.into_iter().map(RawEndpoint::of_slice);
                members.add(&namespace, &object.ports, endpoints);
            }
            for subset in object.subsets {
                let ready = subset.addresses.into_iter();
                let ready = ready.map(|a| RawEndpoint::of_subset(a, true));
                let unready = subset.not_ready_addresses.into_iter();
                let unready = unready.map(|a| RawEndpoint::of_subset(a, false));
                members.add(&namespace, &subset.ports, ready.chain(unready));
            }
        }
        members
    }

    /// Notes the addresses with their names.
    fn name(&mut self, object: &RawEndpoints) {
        let slice = object.endpoints.iter();
        let slice = slice.filter(|e| e.is_ready());
        for endpoint in slice {
            let ips = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok());
            self.named
                .push(named(&endpoint.hostname, ips.collect(), &object.ports));
        }
        for subset in &object.subsets {
            for address in &subset.addresses {
                let ips = address.ip.parse().into_iter().collect();
                self.named
                    .push(named(&address.hostname, ips, &subset.ports));
            }
        }
    }

    fn add(
        &mut self,
        namespace: &str,
        ports: &[EndpointPort],
        endpoints: impl Iterator<Item = RawEndpoint>,
    ) {
        let ports = ports.iter().filter_map(|p| {
            let protocol = Protocol::of(&p.protocol);
            Some((p.name.clone(), protocol, p.port?))
        });
        let mut group = Group {
            ports: ports.collect(),
            ..Group::default()
        };
        for endpoint in endpoints {
            let host = endpoint.host.into();
            let Some(target) = endpoint.target.filter(TargetRef::is_pod) else {
                group.foreign.push(Foreign {
                    ready: endpoint.ready,
                    host,
                    ips: endpoint.ips,
                });
                continue;
            };
            group.pods.push(Member {
                pod: Namespaced::new(
                    if target.namespace.is_empty() {
                        namespace
                    } else {
                        &target.namespace
                    },
                    target.name,
                ),
                uid: target.uid,
                ready: endpoint.ready,
                host,
                ips: endpoint.ips,
            });
        }
        self.groups.push(group);
    }

    /// What is `wanted`, which may ask for `query`, by these and by the Service in `store`.
    pub(super) fn answer(&self, store: &Store, query: &Query, wanted: Wanted<'_>) -> Answer {
        match &query.what {
            What::Name(ClusterName::Service(name)) => self.of_service(store, name, wanted),
            What::Name(ClusterName::Endpoint { service, host }) => {
                self.of_endpoint(store, service, host, wanted)
            }
            What::Name(ClusterName::PodIp { ip, .. }) | What::Ip(ip) => match store.owner(*ip) {
                Some(Owner::Service(namespace, name)) => {
                    self.of_service(store, &Namespaced::new(&**namespace, &**name), wanted)
                }
                _ => Answer::Absent,
            },
            What::Name(ClusterName::Srv { .. })
            | What::Reverse(_)
            | What::Namespace(_)
            | What::Pods(_) => Answer::Absent,
        }
    }

    /// One endpoint of a Service, by its host name or address.
    fn of_endpoint(
        &self,
        store: &Store,
        name: &Namespaced,
        host: &str,
        wanted: Wanted<'_>,
    ) -> Answer {
        let Some(service) = store.service(name) else {
            return Answer::Absent;
        };
        let port = wanted.target.port;
        let ip = undashed(host);
        let is = |h: &str, ips: &[IpAddr]| *h == *host || ip.is_some_and(|ip| ips.contains(&ip));
        let inside = |group: &Group, ready, ips: &[IpAddr]| Inside {
            targets: lookup::one_of(ips, wanted, port).into_iter().collect(),
            known: ready && group.has(port, wanted.protocol),
        };
        for group in self.by_family(service) {
            if let Some(foreign) = group.foreign.iter().find(|f| is(&f.host, &f.ips)) {
                return Answer::Is(Resolution::Inside {
                    inside: inside(group, foreign.ready, &foreign.ips),
                    why: not_pods(
                        wanted,
                        format!("endpoint {host} of {} is no pod", describe(name)),
                    ),
                });
            }
            let mut pods = group.pods.iter();
            if let Some(member) = pods.find(|m| m.ready && is(&m.host, &m.ips)) {
                return Answer::Is(Resolution::Pods(Endpoints {
                    service: None,
                    pods: vec![member.port(port)],
                    declared: group.has(port, wanted.protocol),
                    inside: inside(group, true, &member.ips),
                }));
            }
        }
        Answer::Absent
    }

    fn of_service(&self, store: &Store, name: &Namespaced, wanted: Wanted<'_>) -> Answer {
        let Some(service) = store.service(name) else {
            return Answer::Absent;
        };
        let port = wanted.target.port;
        let numbered = || self.groups.iter().any(|g| g.has(port, wanted.protocol));
        let route = match lookup::route(service, wanted, numbered) {
            Ok(route) => route,
            Err(other) => return Answer::Is(other_protocol(name, other, wanted)),
        };
        let mut seen = HashSet::new();
        let (mut pods, mut targets) = (Vec::new(), Vec::new());
        for group in self.by_family(service) {
            let Some(port) = group.port(&route, wanted.protocol) else {
                continue;
            };
            for member in group.pods.iter().filter(|m| m.ready) {
                if seen.insert(&member.pod) {
                    pods.push(member.port(port));
                    targets.extend(lookup::one_of(&member.ips, wanted, port));
                }
            }
            for foreign in group.foreign.iter().filter(|f| f.ready) {
                targets.extend(lookup::one_of(&foreign.ips, wanted, port));
            }
        }
        if targets.is_empty() && pods.is_empty() {
            return Answer::Is(self.none(name, service.selector.is_empty(), wanted));
        }
        if let Some(own) = lookup::own_target(service, &route, wanted) {
            targets = vec![own];
        }
        let inside = Inside {
            targets,
            known: route.declared,
        };
        Answer::Is(if pods.is_empty() {
            let reason = format!("the endpoints of {} are not pods", describe(name));
            Resolution::Inside {
                inside,
                why: not_pods(wanted, reason),
            }
        } else {
            Resolution::Pods(Endpoints {
                service: Some(name.clone()),
                pods,
                declared: route.declared,
                inside,
            })
        })
    }

    /// The groups, those of the Service's preferred family first: a pod or a host with two
    /// addresses is in two.
    fn by_family(&self, service: &Service) -> Vec<&Group> {
        let rank = |group: &&Group| {
            let ip = group.first_ip();
            ip.map_or(0, |ip| service.families.rank(ip).unwrap_or(usize::MAX))
        };
        let mut groups: Vec<&Group> = self.groups.iter().collect();
        groups.sort_by_key(rank);
        groups
    }

    /// The pods, each once, as a listing shows them.
    pub(super) fn pods(&self) -> Vec<PodDetail> {
        let mut found: Vec<PodDetail> = Vec::new();
        for member in self.groups.iter().flat_map(|group| &group.pods) {
            match found.iter_mut().find(|pod| pod.name == member.pod) {
                Some(pod) => pod.ips.extend(&member.ips),
                None => found.push(PodDetail {
                    name: member.pod.clone(),
                    ips: member.ips.to_vec(),
                    ready: member.ready,
                }),
            }
        }
        found
    }

    fn none(&self, name: &Namespaced, no_selector: bool, wanted: Wanted<'_>) -> Resolution {
        let pods: usize = self.groups.iter().map(|g| g.pods.len()).sum();
        let foreign: usize = self.groups.iter().map(|g| g.foreign.len()).sum();
        let count = match pods {
            0 if foreign > 0 => format!("{foreign} endpoints that are no pods, none ready"),
            0 if no_selector => "no selector, and nobody wrote endpoints for it".to_owned(),
            0 => "no endpoints".to_owned(),
            1 => "1 pod, not ready".to_owned(),
            n => format!("{n} pods, none ready"),
        };
        unreachable(
            wanted,
            format!("{} has no ready pod ({count})", describe(name)),
            &format!(
                "`kubectl get endpointslices -n {} -l kubernetes.io/service-name={}` shows them",
                name.namespace, name.name
            ),
        )
    }
}

/// The failure of endpoints that port-forward does not reach.
fn not_pods(wanted: Wanted<'_>, reason: String) -> DialError {
    DialError::Unreachable {
        target: wanted.target.to_string(),
        reason,
        fix: NEEDS_RELAY.to_owned(),
    }
}

impl Group {
    /// An address of an endpoint; all are of one family.
    fn first_ip(&self) -> Option<IpAddr> {
        let pods = self.pods.iter().flat_map(|pod| &pod.ips);
        let foreign = self.foreign.iter().flat_map(|foreign| &foreign.ips);
        pods.chain(foreign).next().copied()
    }

    /// Whether its endpoints have a port of this number.
    fn has(&self, port: u16, protocol: Protocol) -> bool {
        let mut ports = self.ports.iter();
        ports.any(|(_, p, number)| *p == protocol && *number == port)
    }

    /// The number that the port of a Service has here.
    fn port(&self, route: &Route, protocol: Protocol) -> Option<u16> {
        let by_name = route.name.as_deref().and_then(|name| {
            let mut ports = self.ports.iter();
            ports
                .find(|(n, p, _)| n == name && *p == protocol)
                .map(|(.., number)| *number)
        });
        match (by_name, &route.to) {
            (Some(number), _) => Some(number),
            (None, TargetPort::Number(number)) => Some(*number),
            (None, TargetPort::Name(_)) => None,
        }
    }
}

impl Member {
    fn port(&self, port: u16) -> PodPort {
        PodPort {
            pod: self.pod.clone(),
            uid: self.uid.clone(),
            port,
        }
    }
}
