//! The pods of a Service by its EndpointSlices, or by its Endpoints where the server is older
//! than those or the user may not see them: needed where pods cannot be listed, and for Services
//! without a selector, whose endpoints somebody else writes.

use std::collections::HashSet;
use std::net::IpAddr;

use super::feed::escaped;
use super::learn::denied;
use super::lookup::{self, NotTcp, describe, unreachable};
use super::name::Query;
use super::object::{EndpointPort, Page, RawEndpoints, TargetRef};
use super::shared::Shared;
use super::store::{Owner, Protocol, Store, TargetPort};
use crate::addr::{Namespaced, Target};
use crate::dial::{DialError, Endpoints, PodPort, Resolution};
use crate::dns::{Endpoint, Port};

/// Groups of pods with the same ports.
#[derive(Debug, Default)]
pub(super) struct Members {
    groups: Vec<Group>,
    /// Endpoints that are no pods.
    foreign: usize,
    /// All that are ready, as DNS has them.
    pub(super) named: Vec<Endpoint>,
}

#[derive(Debug, Default)]
struct Group {
    /// TCP ports by the Service port's name.
    ports: Vec<(String, u16)>,
    pods: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    pod: Namespaced,
    uid: String,
    ready: bool,
}

/// Asks for a Service's endpoints.
pub(super) async fn ask(shared: &Shared, name: &Namespaced) -> Result<Members, DialError> {
    let Namespaced { namespace, name } = name;
    let mut refused = None;
    if shared.has_slices().await {
        let selector = escaped(&format!("kubernetes.io/service-name={name}"));
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={selector}"
        );
        match shared.client.get::<Page<RawEndpoints>>(&path).await {
            Ok(page) => return Ok(Members::of(page.items)),
            Err(error) if matches!(error.code(), Some(403 | 404)) => refused = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    let path = format!("/api/v1/namespaces/{namespace}/endpoints/{name}");
    match shared.client.get::<RawEndpoints>(&path).await {
        Ok(endpoints) => Ok(Members::of(vec![endpoints])),
        Err(error) if error.code() == Some(404) => Ok(Members::default()),
        Err(error) if error.code() == Some(403) => Err(match refused {
            Some(slices) => denied(slices, "list", "endpointslices.discovery.k8s.io", namespace),
            None => denied(error, "get", "endpoints", namespace),
        }),
        Err(error) => Err(error.into()),
    }
}

fn named(host: &str, ips: Vec<IpAddr>, ports: &[EndpointPort]) -> Endpoint {
    let ports = ports.iter().filter_map(|port| {
        Some(Port {
            name: port.name.as_str().into(),
            protocol: Protocol::of(&port.protocol),
            number: port.port?,
        })
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
                let endpoints = object.endpoints.into_iter();
                let endpoints =
                    endpoints.map(|e| (e.target_ref, e.conditions.ready.unwrap_or(true)));
                members.add(&namespace, &object.ports, endpoints);
            }
            for subset in object.subsets {
                let ready = subset.addresses.into_iter().map(|a| (a.target_ref, true));
                let unready = subset.not_ready_addresses.into_iter();
                let unready = unready.map(|a| (a.target_ref, false));
                members.add(&namespace, &subset.ports, ready.chain(unready));
            }
        }
        members
    }

    /// Notes the addresses with their names.
    fn name(&mut self, object: &RawEndpoints) {
        let slice = object.endpoints.iter();
        let slice = slice.filter(|e| e.conditions.ready.unwrap_or(true));
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
        endpoints: impl Iterator<Item = (Option<TargetRef>, bool)>,
    ) {
        let tcp = ports
            .iter()
            .filter(|p| Protocol::of(&p.protocol) == Protocol::Tcp);
        let mut group = Group {
            ports: tcp
                .filter_map(|p| Some((p.name.clone(), p.port?)))
                .collect(),
            pods: Vec::new(),
        };
        for (target, ready) in endpoints {
            match target.filter(|t| t.kind == "Pod") {
                Some(target) => group.pods.push(Member {
                    pod: Namespaced::new(
                        if target.namespace.is_empty() {
                            namespace
                        } else {
                            &target.namespace
                        },
                        target.name,
                    ),
                    uid: target.uid,
                    ready,
                }),
                None => self.foreign += 1,
            }
        }
        self.groups.push(group);
    }

    /// What `target`, which asks for a Service of `store`, means by these.
    pub(super) fn resolve(&self, store: &Store, query: &Query, target: &Target) -> Resolution {
        let name = match query {
            Query::Service { name, .. } => name.clone(),
            Query::Ip(ip) => match store.owner(*ip) {
                Some(Owner::Service(namespace, name)) => Namespaced::new(&**namespace, &**name),
                _ => return Resolution::Elsewhere,
            },
            Query::PodOf { .. } | Query::Nothing => return Resolution::Elsewhere,
        };
        let Some(service) = store.service(&name) else {
            return Resolution::Elsewhere;
        };
        let numbered = |port: u16| {
            let mut ports = self.groups.iter().flat_map(|g| &g.ports);
            ports.any(|(_, number)| *number == port)
        };
        let route = match lookup::route(service, target.port, || numbered(target.port)) {
            Ok(route) => route,
            Err(NotTcp) => return lookup::not_tcp(&name, target),
        };
        let mut seen = HashSet::new();
        let mut pods = Vec::new();
        for group in &self.groups {
            let by_name = route.name.as_deref().and_then(|name| {
                let mut ports = group.ports.iter();
                ports.find(|(n, _)| n == name).map(|(_, number)| *number)
            });
            let port = match (by_name, &route.to) {
                (Some(number), _) => number,
                (None, TargetPort::Number(number)) => *number,
                (None, TargetPort::Name(_)) => continue,
            };
            for member in group.pods.iter().filter(|m| m.ready) {
                // A pod with two addresses is in two slices.
                if seen.insert(&member.pod) {
                    pods.push(PodPort {
                        pod: member.pod.clone(),
                        uid: member.uid.clone(),
                        port,
                    });
                }
            }
        }
        if pods.is_empty() {
            return self.none(&name, service.selector.is_empty(), target);
        }
        Resolution::Pods(Endpoints {
            service: Some(name),
            pods,
            declared: route.declared,
        })
    }

    fn none(&self, name: &Namespaced, no_selector: bool, target: &Target) -> Resolution {
        let pods: usize = self.groups.iter().map(|g| g.pods.len()).sum();
        if self.foreign > 0 && pods == 0 {
            return unreachable(
                target,
                format!("the endpoints of {} are not pods", describe(name)),
                "port-forward reaches pods only",
            );
        }
        let count = match pods {
            0 if no_selector => "no selector, and nobody wrote endpoints for it".to_owned(),
            0 => "no endpoints".to_owned(),
            1 => "1 pod, not ready".to_owned(),
            n => format!("{n} pods, none ready"),
        };
        unreachable(
            target,
            format!("{} has no ready pod ({count})", describe(name)),
            &format!(
                "`kubectl get endpoints -n {} {}` shows them",
                name.namespace, name.name
            ),
        )
    }
}
