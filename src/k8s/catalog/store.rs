//! What is known of Services and pods, with the indexes that make a dial cheap. Pure data.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::object::{IntOrString, RawPod, RawService, addresses};
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

/// A pod.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) uid: Box<str>,
    pub(super) ports: Box<[PodPortSpec]>,
    /// Its `Ready` condition.
    pub(super) ready: bool,
    /// It was asked to end.
    pub(super) terminating: bool,
    /// Its containers have ended and will not come back.
    pub(super) over: bool,
    /// Its host name and the headless Service that it has this name under, where the pod sets
    /// both: StatefulSets do.
    pub(super) subdomain: Option<(Arc<str>, Arc<str>)>,
    /// Its addresses are the node's, which mean the node.
    pub(super) host_network: bool,
    /// Its addresses, of each family one at most; none before it has one, and once it is over,
    /// when it has given them back.
    pub(super) ips: Box<[IpAddr]>,
    labels: Box<[Label]>,
}

/// A port that a pod's containers declare.
#[derive(Debug)]
pub(super) struct PodPortSpec {
    pub(super) name: Arc<str>,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

impl Pod {
    /// Whether a Service with this selector means it.
    pub(super) fn is_selected(&self, selector: &[Label]) -> bool {
        selector.iter().all(|label| self.labels.contains(label))
    }

    /// Its name in DNS under a Service.
    pub(super) fn host(&self, service: &str) -> Option<&Arc<str>> {
        let (host, subdomain) = self.subdomain.as_ref()?;
        (**subdomain == *service).then_some(host)
    }

    /// Whether a Service sends traffic to it.
    pub(super) fn takes_traffic(&self, publish_not_ready: bool) -> bool {
        !self.ips.is_empty() && !self.terminating && (self.ready || publish_not_ready)
    }

    /// The addresses that nothing else has.
    fn own_ips(&self) -> &[IpAddr] {
        if self.host_network { &[] } else { &self.ips }
    }

    /// Whether it declares the port.
    pub(super) fn declares(&self, port: u16, protocol: Protocol) -> bool {
        let mut ports = self.ports.iter();
        ports.any(|p| p.protocol == protocol && p.port == port)
    }

    /// The number of the port that it declares under `name`.
    pub(super) fn named(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut ports = self.ports.iter();
        ports
            .find(|p| p.protocol == protocol && &*p.name == name)
            .map(|port| port.port)
    }
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
    /// Headless Services by one term of their selectors.
    headless: Index,
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

    /// The headless Services that select a pod.
    pub(super) fn headless_of<'a>(
        &'a self,
        pod: &'a Pod,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Service)> {
        let labels = pod.labels.iter();
        let names = labels
            .filter_map(|label| self.headless.get(label))
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

    /// Takes a Service in its new form.
    pub(super) fn apply_service(&mut self, raw: &RawService) -> Key {
        let texts = &mut self.texts;
        let namespace = texts.get(&raw.metadata.namespace);
        let name = texts.get(&raw.metadata.name);
        let service = Service::new(raw, texts);
        self.remove_service(&namespace, &name);
        for ip in &service.ips {
            let owner = Owner::Service(namespace.clone(), name.clone());
            self.by_ip.insert(*ip, owner);
        }
        let key = (namespace.clone(), name.clone());
        let entry = self.namespaces.entry(namespace).or_default();
        if let Some(label) = service.indexed_by() {
            add(&mut entry.headless, label, &name);
        }
        entry.services.insert(name, service);
        key
    }

    /// Forgets a Service.
    pub(super) fn remove_service(&mut self, namespace: &str, name: &str) {
        let Some(entry) = self.namespaces.get_mut(namespace) else {
            return;
        };
        if let Some((name, old)) = entry.services.remove_entry(name) {
            if let Some(label) = old.indexed_by() {
                take(&mut entry.headless, label, &name);
            }
            for ip in &old.ips {
                let by_ip = &mut self.by_ip;
                let owner = by_ip.get(ip);
                if matches!(owner, Some(Owner::Service(ns, n)) if **ns == *namespace && *n == name)
                {
                    by_ip.remove(ip);
                }
            }
        }
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
    /// The term under which a headless Service is found from its pods.
    fn indexed_by(&self) -> Option<&Label> {
        let headless = self.kind == ServiceKind::Headless;
        headless.then(|| self.selector.first()).flatten()
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
        Self {
            kind,
            ports,
            selector: texts.labels(&spec.selector),
            publish_not_ready: spec.publish_not_ready_addresses,
            ips: addresses(
                &spec.cluster_ip,
                spec.cluster_ips.iter().map(String::as_str),
            ),
        }
    }
}

impl Pod {
    fn new(raw: &RawPod, texts: &mut Texts) -> Self {
        let (spec, status) = (&raw.spec, &raw.status);
        // Init containers that restart always are sidecars: they run beside the others.
        let sidecars = spec.init_containers.iter();
        let sidecars = sidecars.filter(|c| c.restart_policy == "Always");
        let ports = spec.containers.iter().chain(sidecars);
        let ports = ports.flat_map(|c| &c.ports).map(|port| PodPortSpec {
            name: texts.get(&port.name),
            port: port.container_port,
            protocol: Protocol::of(&port.protocol),
        });
        let ports = ports.collect();
        let over = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let many = status.pod_ips.iter().map(|ip| ip.ip.as_str());
        let ips = addresses(&status.pod_ip, many);
        let mut conditions = status.conditions.iter();
        Self {
            uid: raw.metadata.uid.as_str().into(),
            ports,
            ready: conditions.any(|c| c.kind == "Ready" && c.status == "True"),
            terminating: raw.metadata.deletion_timestamp.is_some(),
            over,
            subdomain: (!spec.hostname.is_empty() && !spec.subdomain.is_empty())
                .then(|| (spec.hostname.as_str().into(), texts.get(&spec.subdomain))),
            host_network: spec.host_network,
            ips: if over { Box::default() } else { ips },
            labels: texts.labels(&raw.metadata.labels),
        }
    }
}
