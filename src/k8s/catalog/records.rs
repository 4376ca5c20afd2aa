//! What the catalog knows, as the cluster's DNS has it.

use std::net::IpAddr;
use std::sync::Arc;

use super::Catalog;
use super::learn::{LEARN_TIMEOUT, Learned};
use super::name::Query;
use super::pod::Pod;
use super::shared::Kind;
use super::store::{Namespace, Owner, Service, ServiceKind, Store, TargetPort};
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
                Subject::Namespace(name) if name == home => Found::Namespace,
                // One that nothing is seen of may be empty, or hidden.
                Subject::Namespace(_) => of(store, None, subject).unwrap_or(Found::Unknown),
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
                Subject::Address(_) => of(store, None, subject).unwrap_or(Found::Unknown),
            }
        });
        match found {
            Found::Unknown => match self.shared.answered(&query(subject)) {
                Some(learned) => self.learned(&learned, subject),
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
        let learned = Arc::clone(&self.shared).ask(&query(subject)).await;
        self.learned(&learned, subject)
    }
}

impl Catalog {
    /// What was learned of a subject.
    fn learned(&self, learned: &Learned, subject: &Subject) -> Found {
        match (learned.records(subject), subject) {
            // Who may see all Services and none in there does not have to see namespaces.
            (Found::Failed(_), Subject::Namespace(name)) => {
                let is_empty = self
                    .shared
                    .read_with(|_, is_live| is_live(Kind::Services, name));
                if is_empty {
                    Found::Absent
                } else {
                    Found::Namespace
                }
            }
            (found, _) => found,
        }
    }
}

/// What the API server is asked for, to learn of a subject.
fn query(subject: &Subject) -> Query {
    match subject {
        Subject::Service(name) | Subject::Endpoint(name, _) => Query::service(name.clone()),
        Subject::Address(ip) => Query::reverse(*ip),
        Subject::Namespace(name) => Query::existence(name),
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
                        let pods = published(namespace, service);
                        pods.map(|pod| endpoint(name, service, pod)).collect()
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
                    let endpoints = endpoints.iter();
                    endpoints
                        .filter_map(|endpoint| part(endpoint, host))
                        .collect()
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
        Subject::Address(ip) => names(store, *ip).map(Found::Owner),
    }
}

/// The names of an address: a Service's own, or those that its pods have as endpoints, whatever
/// the kind of their Services.
fn names(store: &Store, ip: IpAddr) -> Option<Vec<String>> {
    let owner = store.owner(ip);
    if let Some(Owner::Service(namespace, name)) = owner {
        return Some(vec![format!("{name}.{namespace}.svc")]);
    }
    let mut names = Vec::new();
    for (namespace, pod) in store.pods_at(ip) {
        let Some(content) = store.namespace(namespace) else {
            continue;
        };
        let services = content.services_of(pod);
        let services = services.filter(|(_, service)| is_endpoint(service, pod, ip));
        names.extend(services.map(|(service, _)| {
            let host = pod
                .host(service)
                .map_or_else(|| dns::dashed(ip), ToString::to_string);
            format!("{host}.{service}.{namespace}.svc")
        }));
    }
    names.sort_unstable();
    names.dedup();
    // A node may well have a name that others know.
    (owner.is_some() || !names.is_empty()).then_some(names)
}

fn is_endpoint(service: &Service, pod: &Pod, ip: IpAddr) -> bool {
    service.publishes(pod) && service.addresses(pod).any(|own| own == ip)
}

/// The endpoints of a Service that DNS has.
fn published<'a>(namespace: &'a Namespace, service: &'a Service) -> impl Iterator<Item = &'a Pod> {
    let pods = namespace.selected(&service.selector).map(|(_, pod)| pod);
    pods.filter(|pod| service.publishes(pod))
}

/// The endpoints of a Service that bear a host name, or, without one, the address that it is.
fn named(
    store: &Store,
    namespace: &Namespace,
    name: &Namespaced,
    service: &Service,
    host: &str,
) -> Vec<Endpoint> {
    let is_its = |pod: &&Pod| pod.is_selected(&service.selector) && service.publishes(pod);
    let by_host = namespace.by_host(host).map(|(_, pod)| pod).filter(is_its);
    let by_host = by_host.filter(|pod| pod.host(&name.name).is_some_and(|h| **h == *host));
    let mut found: Vec<Endpoint> = by_host.map(|pod| endpoint(name, service, pod)).collect();
    let ip = dns::undashed(host).filter(|ip| dns::dashed(*ip) == host);
    if let Some(ip) = ip {
        let pods = store.pods_at(ip).filter(|(ns, _)| *ns == name.namespace);
        let pods = pods.map(|(_, pod)| pod).filter(is_its);
        let nameless = pods.filter(|pod| pod.host(&name.name).is_none());
        let at_ip = nameless.filter(|pod| is_endpoint(service, pod, ip));
        found.extend(at_ip.map(|pod| Endpoint {
            ips: vec![ip],
            ..endpoint(name, service, pod)
        }));
    }
    found
}

/// The part of a written endpoint that goes by `host`.
fn part(endpoint: &Endpoint, host: &str) -> Option<Endpoint> {
    match &endpoint.host {
        Some(own) => (**own == *host).then(|| endpoint.clone()),
        None => {
            let ips = endpoint.ips.iter().copied();
            let ips: Vec<IpAddr> = ips.filter(|ip| dns::dashed(*ip) == host).collect();
            (!ips.is_empty()).then(|| Endpoint {
                ips,
                ..endpoint.clone()
            })
        }
    }
}

fn own_ports(service: &Service) -> Vec<Port> {
    let ports = service.ports.iter();
    let ports = ports.map(|port| Port {
        name: port.name.clone(),
        protocol: port.protocol,
        number: Some(port.port),
    });
    ports.collect()
}

/// A pod as an endpoint of a Service: with the addresses of the Service's families, and with the
/// numbers that the ports have in it.
fn endpoint(name: &Namespaced, service: &Service, pod: &Pod) -> Endpoint {
    let ports = service.ports.iter().filter_map(|port| {
        let number = match &port.target {
            TargetPort::Number(number) => *number,
            TargetPort::Name(target) => {
                let mut declared = pod.ports.iter();
                let is_it =
                    |p: &&super::pod::PodPortSpec| p.protocol == port.protocol && p.name == *target;
                declared.find(is_it)?.port
            }
        };
        Some(Port {
            name: port.name.clone(),
            protocol: port.protocol,
            number: Some(number),
        })
    });
    Endpoint {
        host: pod.host(&name.name).cloned(),
        ips: service.addresses(pod).collect(),
        ports: ports.collect(),
    }
}
