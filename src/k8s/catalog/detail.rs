//! What is known of one Service or pod, for who looks closer.

use std::net::IpAddr;
use std::sync::Arc;

use super::Catalog;
use super::members::Members;
use super::name::Query;
use super::pod::Pod;
use super::shared::{FeedState, Kind};
use super::store::{ServiceKind, Store, TargetPort};
use crate::addr::{Namespaced, Protocol};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDetail {
    /// Its name.
    pub name: Namespaced,
    /// `ClusterIP`, `headless` or `ExternalName`.
    pub kind: &'static str,
    /// Its own addresses.
    pub ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<PortDetail>,
    /// Its pods, by name.
    pub pods: Vec<PodDetail>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDetail {
    /// Its name; may be empty.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number or name of the pods' port that it leads to.
    pub target: String,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDetail {
    /// Its name.
    pub name: Namespaced,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether the Service sends traffic to it; for a pod by itself, whether it is ready.
    pub ready: bool,
}

/// A pod that was looked for by a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledPod {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is ready for traffic.
    pub ready: bool,
    /// Whether it has an address and was not told to end.
    pub runs: bool,
}

/// The pods of a namespace with a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labelled {
    /// Not known yet.
    Syncing,
    /// They may not be watched.
    Forbidden,
    /// These.
    Pods(Vec<LabelledPod>),
}

impl Catalog {
    /// The pods of `namespace` with the label `(key, value)`, from the snapshot.
    #[must_use]
    pub fn labelled(&self, namespace: &str, (key, value): (&str, &str)) -> Labelled {
        let selector = [format!("{key}={value}").into()];
        self.shared
            .read_feed(Kind::Pods, namespace, |feed, store| match feed {
                Some(FeedState::Live) => {
                    let namespace = store.namespace(namespace).into_iter();
                    let pods = namespace.flat_map(|n| n.selected(&selector));
                    Labelled::Pods(pods.map(|(name, pod)| labelled(name, pod)).collect())
                }
                Some(FeedState::Forbidden { .. }) => Labelled::Forbidden,
                Some(FeedState::Syncing) | None => Labelled::Syncing,
            })
    }

    /// Whether a pod of the snapshot declares the TCP port.
    #[must_use]
    pub fn declares(&self, pod: &Namespaced, port: u16) -> bool {
        self.shared.read(|store| {
            let namespace = store.namespace(&pod.namespace);
            let pod = namespace.and_then(|n| n.pods.get(&*pod.name));
            pod.is_some_and(|pod| pod.declares(port, Protocol::Tcp))
        })
    }

    /// What is known of a Service, from the snapshot and from what was asked just now.
    #[must_use]
    pub fn service_detail(&self, name: &Namespaced) -> Option<ServiceDetail> {
        let known = self.shared.read(|store| service(store, None, name));
        // Without pods the snapshot may know half of it.
        if known.as_ref().is_some_and(|known| !known.pods.is_empty()) {
            return known;
        }
        let query = Query::service(name.clone());
        let possible = Query {
            certain: false,
            ..query.clone()
        };
        let mut asked = [query, possible].into_iter();
        let learned = asked.find_map(|query| self.shared.answered(&query));
        let learned = learned.and_then(|learned| {
            let (store, members) = learned.seen();
            service(store, members, name)
        });
        learned.or(known)
    }

    /// What is known of a pod.
    #[must_use]
    pub fn pod_detail(&self, name: &Namespaced) -> Option<PodDetail> {
        self.shared.read(|store| {
            let pod = store.namespace(&name.namespace)?.pods.get(&*name.name)?;
            Some(pod_of(name.clone(), pod, false))
        })
    }
}

fn labelled(name: &Arc<str>, pod: &Pod) -> LabelledPod {
    LabelledPod {
        name: name.clone(),
        ready: pod.takes_traffic(false),
        runs: pod.takes_traffic(true),
    }
}

fn service(store: &Store, members: Option<&Members>, name: &Namespaced) -> Option<ServiceDetail> {
    let namespace = store.namespace(&name.namespace)?;
    let service = namespace.services.get(name.name.as_str())?;
    let mut pods: Vec<PodDetail> = match members {
        Some(members) => members.pods(),
        None => namespace
            .selected(&service.selector)
            .map(|(pod, content)| {
                let pod = Namespaced::new(&*name.namespace, &**pod);
                pod_of(pod, content, service.publish_not_ready)
            })
            .collect(),
    };
    pods.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let ports = service.ports.iter().map(|port| PortDetail {
        name: port.name.to_string(),
        port: port.port,
        protocol: port.protocol.label().trim_start_matches('_').to_uppercase(),
        target: match &port.target {
            TargetPort::Number(number) => number.to_string(),
            TargetPort::Name(name) => name.to_string(),
        },
    });
    Some(ServiceDetail {
        name: name.clone(),
        kind: match service.kind {
            ServiceKind::ClusterIp => "ClusterIP",
            ServiceKind::Headless => "headless",
            ServiceKind::External(_) => "ExternalName",
        },
        ips: service.ips.to_vec(),
        ports: ports.collect(),
        pods,
    })
}

fn pod_of(name: Namespaced, pod: &Pod, publish_not_ready: bool) -> PodDetail {
    PodDetail {
        name,
        ips: pod.ips.to_vec(),
        ready: pod.takes_traffic(publish_not_ready),
    }
}
