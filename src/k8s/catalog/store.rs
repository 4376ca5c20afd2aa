//! What is known of Services and pods, with the indexes that make a dial cheap. Pure data.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::family::Families;
use super::mine::{Intercepts, Values};
use super::object::{IntOrString, RawPod, RawService, addresses};
use super::pod::Pod;
use super::texts::{Index, Texts, add, take};
use crate::addr::{Namespaced, Protocol};

/// A label or a selector's term, as `key=value`: no key contains a `=`.
pub(super) type Label = Arc<str>;

/// Namespace and name of an object, as the store keeps them.
pub(super) type Key = (Arc<str>, Arc<str>);

/// A Service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) kind: ServiceKind,
    pub(super) ports: Box<[ServicePort]>,
    pub(super) selector: Box<[Label]>,
    pub(super) publish_not_ready: bool,
    /// Its cluster addresses, of each family one at most; none for a headless one.
    pub(super) ips: Box<[IpAddr]>,
    /// Which of its pods' addresses are endpoints.
    pub(super) families: Families,
    pub(super) intercepts: Intercepts,
}

/// How a Service gets its traffic.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServiceKind {
    ClusterIp,
    Headless,
    /// An alias in DNS.
    External(Box<str>),
}

/// A port of a Service.
#[derive(Debug)]
pub(super) struct ServicePort {
    pub(super) name: Arc<str>,
    pub(super) port: u16,
    pub(super) target: TargetPort,
    pub(super) protocol: Protocol,
}

/// Where a Service's port leads to in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TargetPort {
    Number(u16),
    Name(Arc<str>),
}

/// Whose address it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Service(Arc<str>, Arc<str>),
    Pod(Arc<str>, Arc<str>),
}

impl Owner {
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Service(namespace, _) | Self::Pod(namespace, _) => namespace,
        }
    }
}

/// Services and pods of one namespace.
#[derive(Debug, Default)]
pub(super) struct Namespace {
    pub(super) services: HashMap<Arc<str>, Service>,
    pub(super) pods: HashMap<Arc<str>, Pod>,
    by_label: Index,
    /// Pods by the host names that DNS knows them by.
    by_host: Index,
    /// Services by one term of their selectors.
    selecting: Index,
}

impl Namespace {
    /// The pods that carry all of `selector`; none for an empty one, as in Services.
    pub(super) fn selected<'a>(
        &'a self,
        selector: &'a [Label],
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Pod)> {
        // The rarest label decides how many pods are looked at.
        let sets = selector.iter().map(|label| self.by_label.get(label));
        let rarest = sets.min_by_key(|set| set.map_or(0, HashSet::len)).flatten();
        rarest
            .into_iter()
            .flatten()
            .filter_map(|name| self.pods.get_key_value(name))
            .filter(move |(_, pod)| pod.is_selected(selector))
    }

    /// The pods that DNS knows by this host name, whatever their Service.
    pub(super) fn by_host(&self, host: &str) -> impl Iterator<Item = (&Arc<str>, &Pod)> {
        let names = self.by_host.get(host).into_iter().flatten();
        names.filter_map(|name| self.pods.get_key_value(name))
    }

    /// The Services that select a pod.
    pub(super) fn services_of<'a>(
        &'a self,
        pod: &'a Pod,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Service)> {
        let labels = pod.labels.iter();
        let names = labels
            .filter_map(|label| self.selecting.get(label))
            .flatten();
        names
            .filter_map(|name| self.services.get_key_value(name))
            .filter(|(_, service)| pod.is_selected(&service.selector))
    }
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) namespaces: HashMap<Arc<str>, Namespace>,
    by_ip: HashMap<IpAddr, Owner>,
    /// The pods on the network of the node that has an address.
    by_node: HashMap<IpAddr, HashSet<Key>>,
    /// What is intercepted with `--mine`.
    pub(super) mine: Values,
    texts: Texts,
}

impl Store {
    /// A namespace, if anything in it is known.
    pub(super) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// A Service.
    pub(super) fn service(&self, name: &Namespaced) -> Option<&Service> {
        self.namespace(&name.namespace)?
            .services
            .get(name.name.as_str())
    }

    /// Whose address `ip` is.
    pub(super) fn owner(&self, ip: IpAddr) -> Option<&Owner> {
        self.by_ip.get(&ip)
    }

    /// The pods that have `ip`: its owner, or those on the network of its node.
    pub(super) fn pods_at(&self, ip: IpAddr) -> impl Iterator<Item = (&str, &Pod)> {
        let own = match self.owner(ip) {
            Some(Owner::Pod(namespace, name)) => Some((namespace, name)),
            _ => None,
        };
        let shared = self.by_node.get(&ip).into_iter().flatten();
        let pods = own
            .into_iter()
            .chain(shared.map(|(namespace, name)| (namespace, name)));
        pods.filter_map(|(namespace, name)| {
            let pod = self.namespace(namespace)?.pods.get(name)?;
            Some((&**namespace, pod))
        })
    }

    /// Takes a Service in its new form.
    pub(super) fn apply_service(&mut self, raw: &RawService) -> Key {
        let texts = &mut self.texts;
        let namespace = texts.get(&raw.metadata.namespace);
        let name = texts.get(&raw.metadata.name);
        let mut service = Service::new(raw, texts);
        if let Some(before) = self.remove_service(&namespace, &name) {
            service.intercepts.follow(&before.intercepts);
        }
        self.mine.add(&service);
        for ip in &service.ips {
            let owner = Owner::Service(namespace.clone(), name.clone());
            self.by_ip.insert(*ip, owner);
        }
        let key = (namespace.clone(), name.clone());
        let entry = self.namespaces.entry(namespace).or_default();
        if let Some(label) = service.indexed_by() {
            add(&mut entry.selecting, label, &name);
        }
        entry.services.insert(name, service);
        key
    }

    /// Forgets a Service, and gives what was known of it.
    pub(super) fn remove_service(&mut self, namespace: &str, name: &str) -> Option<Service> {
        let entry = self.namespaces.get_mut(namespace)?;
        let (name, old) = entry.services.remove_entry(name)?;
        if let Some(label) = old.indexed_by() {
            take(&mut entry.selecting, label, &name);
        }
        for ip in &old.ips {
            let by_ip = &mut self.by_ip;
            let owner = by_ip.get(ip);
            if matches!(owner, Some(Owner::Service(ns, n)) if **ns == *namespace && *n == name) {
                by_ip.remove(ip);
            }
        }
        self.mine.take(&old);
        Some(old)
    }

    /// Takes a pod in its new form.
    pub(super) fn apply_pod(&mut self, raw: &RawPod) -> Key {
        let texts = &mut self.texts;
        let namespace = texts.get(&raw.metadata.namespace);
        // A pod's name is its own: interning it would only keep it longer.
        let name: Arc<str> = raw.metadata.name.as_str().into();
        let pod = Pod::new(raw, texts);
        self.remove_pod(&namespace, &name);
        for ip in pod.own_ips() {
            let owner = Owner::Pod(namespace.clone(), name.clone());
            self.by_ip.insert(*ip, owner);
        }
        let key = (namespace.clone(), name.clone());
        for ip in pod.node_ips() {
            self.by_node.entry(*ip).or_default().insert(key.clone());
        }
        let entry = self.namespaces.entry(namespace).or_default();
        for label in &pod.labels {
            add(&mut entry.by_label, label, &name);
        }
        if let Some((host, _)) = &pod.subdomain {
            add(&mut entry.by_host, host, &name);
        }
        entry.pods.insert(name, pod);
        key
    }

    /// Forgets a pod.
    pub(super) fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some(entry) = self.namespaces.get_mut(namespace) else {
            return;
        };
        let Some(old) = entry.pods.remove(name) else {
            return;
        };
        for label in &old.labels {
            take(&mut entry.by_label, label, name);
        }
        if let Some((host, _)) = &old.subdomain {
            take(&mut entry.by_host, host, name);
        }
        for ip in old.node_ips() {
            if let Some(pods) = self.by_node.get_mut(ip) {
                pods.retain(|(ns, n)| **ns != *namespace || **n != *name);
                if pods.is_empty() {
                    self.by_node.remove(ip);
                }
            }
        }
        for ip in old.own_ips() {
            let by_ip = &mut self.by_ip;
            let owner = by_ip.get(ip);
            if matches!(owner, Some(Owner::Pod(ns, n)) if **ns == *namespace && **n == *name) {
                by_ip.remove(ip);
            }
        }
    }
}

impl Service {
    /// Those of a pod's addresses that are endpoints, the preferred one first.
    pub(super) fn addresses<'a>(&self, pod: &'a Pod) -> impl Iterator<Item = IpAddr> + use<'a> {
        self.families.of(&pod.ips)
    }

    /// Whether it sends traffic to a pod.
    pub(super) fn takes(&self, pod: &Pod) -> bool {
        pod.takes_traffic(self.publish_not_ready) && self.addresses(pod).next().is_some()
    }

    /// Whether a pod is an endpoint that DNS has: with `publishNotReadyAddresses` also one that
    /// is about to end (`podToEndpoint` of k8s.io/endpointslice).
    pub(super) fn publishes(&self, pod: &Pod) -> bool {
        let ready = self.publish_not_ready || pod.takes_traffic(false);
        ready && self.addresses(pod).next().is_some()
    }

    /// The term under which a Service is found from its pods.
    fn indexed_by(&self) -> Option<&Label> {
        let has_endpoints = !matches!(self.kind, ServiceKind::External(_));
        has_endpoints.then(|| self.selector.first()).flatten()
    }

    fn new(raw: &RawService, texts: &mut Texts) -> Self {
        let spec = &raw.spec;
        let kind = if spec.kind == "ExternalName" {
            ServiceKind::External(spec.external_name.trim_end_matches('.').into())
        } else if spec.cluster_ip == "None" {
            ServiceKind::Headless
        } else {
            ServiceKind::ClusterIp
        };
        let ports = spec.ports.iter().map(|port| ServicePort {
            name: texts.get(&port.name),
            port: port.port,
            target: match &port.target_port {
                None | Some(IntOrString::Int(0)) => TargetPort::Number(port.port),
                Some(IntOrString::Int(number)) => TargetPort::Number(*number),
                Some(IntOrString::Text(name)) => match name.parse() {
                    Ok(number) => TargetPort::Number(number),
                    Err(_) => TargetPort::Name(texts.get(name)),
                },
            },
            protocol: Protocol::of(&port.protocol),
        });
        let ports = ports.collect();
        let ips = addresses(
            &spec.cluster_ip,
            spec.cluster_ips.iter().map(String::as_str),
        );
        Self {
            kind,
            ports,
            selector: texts.labels(&spec.selector),
            publish_not_ready: spec.publish_not_ready_addresses,
            families: Families::new(&spec.ip_families, &ips),
            intercepts: Intercepts::new(raw, texts),
            ips,
        }
    }
}
