//! What matters of a pod. Pure data.

use std::net::IpAddr;
use std::sync::Arc;

use super::object::{RawPod, addresses};
use super::store::Label;
use super::texts::Texts;
use crate::addr::Protocol;

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
    pub(super) labels: Box<[Label]>,
}

/// A port that a pod's containers declare.
#[derive(Debug)]
pub(super) struct PodPortSpec {
    pub(super) name: Arc<str>,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

impl Pod {
    /// Reads what the API server sent.
    pub(super) fn new(raw: &RawPod, texts: &mut Texts) -> Self {
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

    /// Whether a Service with this selector means it.
    pub(super) fn is_selected(&self, selector: &[Label]) -> bool {
        selector.iter().all(|label| self.labels.contains(label))
    }

    /// The value of one of its labels.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        let mut labels = self.labels.iter().filter_map(|label| label.split_once('='));
        labels.find(|(own, _)| *own == key).map(|(_, value)| value)
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
    pub(super) fn own_ips(&self) -> &[IpAddr] {
        if self.host_network { &[] } else { &self.ips }
    }

    /// The addresses that it shares with its node.
    pub(super) fn node_ips(&self) -> &[IpAddr] {
        if self.host_network { &self.ips } else { &[] }
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
