//! What the catalog knows, as the cluster's DNS has it.

use std::net::IpAddr;
use std::sync::Arc;

use super::Catalog;
use super::learn::LEARN_TIMEOUT;
use super::name::Query;
use super::shared::Kind;
use super::store::{Namespace, Owner, Pod, Service, ServiceKind, Store, TargetPort};
use crate::addr::Namespaced;
use crate::dns::{self, Endpoint, Found, Port, Subject, Zone};

impl Zone for Catalog {
    fn domain(&self) -> &str {
        self.shared.domain.name()
    }

    fn namespace(&self) -> &str {
        self.shared.client.namespace()
    }

    fn find(&self, subject: &Subject) -> Found {
        let found = self.shared.read_with(|store, is_live| {
            let home = self.shared.client.namespace();
            match subject {
                // One that nothing is seen of may be empty, or hidden.
                Subject::Namespace(name) if name == home || !is_live(Kind::Services, name) => {
                    Found::Namespace
                }
                Subject::Namespace(_) => of(store, None, subject).unwrap_or(Found::Absent),
                Subject::Service(name) | Subject::Endpoint(name, _) => {
                    match of(store, None, subject) {
                        Some(found) if !needs_pods(store, subject) => found,
                        Some(found) if is_live(Kind::Pods, &name.namespace) => found,
                        None if store.service(name).is_none()
                            && is_live(Kind::Services, &name.namespace) =>
                        {
                            Found::Absent
                        }
                        _ => Found::Unknown,
                    }
                }
                Subject::Address(_) => match of(store, None, subject) {
                    Some(found) => found,
                    None if is_live(Kind::Services, home) && is_live(Kind::Pods, home) => {
                        Found::Absent
                    }
                    None => Found::Unknown,
                },
            }
        });
        match found {
            Found::Unknown => match query(subject).and_then(|q| self.shared.answered(&q)) {
                Some(learned) => learned.records(subject),
                None => Found::Unknown,
            },
            found => found,
        }
    }

    fn may_ask(&self, namespace: &str) -> bool {
        namespace == self.shared.client.namespace() || self.shared.knows(namespace)
    }

    async fn learn(&self, subject: &Subject) -> Found {
        if matches!(subject, Subject::Address(_)) {
            // Addresses can hardly be asked for; the first list brings them.
            let _ = tokio::time::timeout(LEARN_TIMEOUT, self.synced()).await;
            match self.find(subject) {
                Found::Unknown => {}
                found => return found,
            }
        }
        let Some(query) = query(subject) else {
            return Found::Absent;
        };
        let learned = Arc::clone(&self.shared).ask(&query).await;
        learned.records(subject)
    }
}

/// What the API server is asked for, to learn of a subject.
fn query(subject: &Subject) -> Option<Query> {
    match subject {
        Subject::Service(name) | Subject::Endpoint(name, _) => Some(Query::service(name.clone())),
        Subject::Address(ip) => Some(Query::address(*ip)),
        Subject::Namespace(_) => None,
    }
}

/// Whether what is known of a subject is only as good as what is known of pods.
fn needs_pods(store: &Store, subject: &Subject) -> bool {
    match subject {
        Subject::Endpoint(..) => true,
        Subject::Service(name) => store
            .service(name)
            .is_some_and(|service| service.kind == ServiceKind::Headless),
        Subject::Namespace(_) | Subject::Address(_) => false,
    }
}

/// Looks for a subject; `None` where it is not there, or its endpoints are not known.
/// `endpoints` are those of the Service where they do not follow from its selector.
pub(super) fn of(
    store: &Store,
    endpoints: Option<&[Endpoint]>,
    subject: &Subject,
) -> Option<Found> {
    match subject {
        Subject::Namespace(name) => {
            let namespace = store.namespace(name)?;
            let is_empty = namespace.services.is_empty() && namespace.pods.is_empty();
            (!is_empty).then_some(Found::Namespace)
        }
        Subject::Service(name) => {
            let namespace = store.namespace(&name.namespace)?;
            let service = namespace.services.get(name.name.as_str())?;
            let service = match &service.kind {
                ServiceKind::External(alias) => dns::Service::Alias(alias.to_string()),
                ServiceKind::ClusterIp => dns::Service::Cluster {
                    ips: service.ips.to_vec(),
                    ports: own_ports(service),
                },
                ServiceKind::Headless => dns::Service::Headless(match endpoints {
                    Some(endpoints) => endpoints.to_vec(),
                    None if service.selector.is_empty() => return None,
                    None => {
                        let pods =
                            taking(namespace, service).map(|pod| endpoint(name, service, pod));
                        pods.collect()
                    }
                }),
            };
            Some(Found::Service(service))
        }
        Subject::Endpoint(name, host) => {
            let namespace = store.namespace(&name.namespace)?;
            let service = namespace.services.get(name.name.as_str())?;
            let found = match endpoints {
                _ if matches!(service.kind, ServiceKind::External(_)) => {
                    return Some(Found::Absent);
                }
                Some(endpoints) => {
                    let is_it = |e: &&Endpoint| is_named(e, host);
                    endpoints.iter().filter(is_it).cloned().collect()
                }
                None if service.selector.is_empty() => return None,
                None => named(store, namespace, name, service, host),
            };
            Some(if found.is_empty() {
                Found::Absent
            } else {
                Found::Service(dns::Service::Headless(found))
            })
        }
        Subject::Address(ip) => Some(Found::Owner(names(store, *ip)?)),
    }
}

/// The names of an address.
fn names(store: &Store, ip: IpAddr) -> Option<Vec<String>> {
    match store.owner(ip)? {
        Owner::Service(namespace, name) => Some(vec![format!("{name}.{namespace}.svc")]),
        Owner::Pod(namespace, name) => {
            let content = store.namespace(namespace)?;
            let pod = content.pods.get(name)?;
            let services = content.headless_of(pod);
            let services = services.filter(|(_, s)| pod.takes_traffic(s.publish_not_ready));
            let names = services.map(|(service, _)| {
                let host = match pod.host(service) {
                    Some(host) => host.to_string(),
                    None => dns::dashed(ip),
                };
                format!("{host}.{service}.{namespace}.svc")
            });
            Some(names.collect())
        }
    }
}

/// The pods that take the traffic of a Service.
fn taking<'a>(namespace: &'a Namespace, service: &'a Service) -> impl Iterator<Item = &'a Pod> {
    let pods = namespace.selected(&service.selector).map(|(_, pod)| pod);
    pods.filter(|pod| pod.takes_traffic(service.publish_not_ready))
}

/// The endpoints of a Service that bear a host name, or the address that it is.
fn named(
    store: &Store,
    namespace: &Namespace,
    name: &Namespaced,
    service: &Service,
    host: &str,
) -> Vec<Endpoint> {
    let is_its = |pod: &&Pod| {
        pod.is_selected(&service.selector) && pod.takes_traffic(service.publish_not_ready)
    };
    let by_host = namespace.by_host(host).map(|(_, pod)| pod).filter(is_its);
    let by_host = by_host.filter(|pod| pod.host(&name.name).is_some_and(|h| **h == *host));
    let mut found: Vec<Endpoint> = by_host.map(|pod| endpoint(name, service, pod)).collect();
    if found.is_empty()
        && let Some(ip) = dns::undashed(host)
    {
        let pod = match store.owner(ip) {
            Some(Owner::Pod(ns, pod)) if **ns == *name.namespace => namespace.pods.get(pod),
            // On the node's network an address has no owner.
            None => taking(namespace, service).find(|pod| pod.ips.contains(&ip)),
            _ => None,
        };
        let pod = pod.filter(is_its);
        found.extend(pod.map(|pod| Endpoint {
            ips: vec![ip],
            ..endpoint(name, service, pod)
        }));
    }
    found
}

fn is_named(endpoint: &Endpoint, host: &str) -> bool {
    match &endpoint.host {
        Some(own) => **own == *host,
        None => endpoint.ips.iter().any(|ip| dns::dashed(*ip) == host),
    }
}

fn own_ports(service: &Service) -> Vec<Port> {
    let ports = service.ports.iter();
    let ports = ports.map(|port| Port {
        name: port.name.clone(),
        protocol: port.protocol,
        number: port.port,
    });
    ports.collect()
}

/// A pod as an endpoint of a Service: with the numbers that the ports have in it.
fn endpoint(name: &Namespaced, service: &Service, pod: &Pod) -> Endpoint {
    let ports = service.ports.iter().filter_map(|port| {
        let number = match &port.target {
            TargetPort::Number(number) => *number,
            TargetPort::Name(target) => {
                let mut declared = pod.ports.iter();
                let is_it = |p: &&super::store::PodPortSpec| {
                    p.protocol == port.protocol && p.name == *target
                };
                declared.find(is_it)?.port
            }
        };
        Some(Port {
            name: port.name.clone(),
            protocol: port.protocol,
            number,
        })
    });
    Endpoint {
        host: pod.host(&name.name).cloned(),
        ips: pod.ips.to_vec(),
        ports: ports.collect(),
    }
}
