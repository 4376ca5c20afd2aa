//! Pods: what they look like in the API, and what answers on their ports.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock;
use crate::families::Families;
use crate::made::Made;
use crate::stream::SimStream;

type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a dial of a pod's port reaches.
#[derive(Clone)]
pub(crate) enum Backend {
    Address(SocketAddr),
    Serve(Arc<dyn Fn(SimStream) -> Served + Send + Sync>),
}

/// A pod to add to the cluster; running and ready unless told otherwise.
///
/// A port that nothing serves refuses connections, declared or not.
#[derive(Clone)]
pub struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) declared: Vec<(Option<String>, u16)>,
    pub(crate) backends: HashMap<u16, Backend>,
    /// Where the machine has the pod's other ports.
    pub(crate) network: Option<IpAddr>,
    pub(crate) ready: bool,
    pub(crate) phase: Phase,
    /// What a Deployment's template says, where it came from one.
    pub(crate) made: Option<Made>,
    families: Families,
    host: Option<(String, String)>,
}

/// Where a pod is in its life, as far as port-forward can tell the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not scheduled: no node, no address.
    Pending,
    /// Its containers run.
    Running,
    /// Ended; the node knows of no sandbox for it any more.
    Succeeded,
}

impl Pod {
    /// A pod without ports or labels.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            declared: Vec::new(),
            backends: HashMap::new(),
            network: None,
            ready: true,
            phase: Phase::Running,
            made: None,
            families: Families::default(),
            host: None,
        }
    }

    /// Gives it addresses of these families.
    #[must_use]
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// Gives it a host name under a headless Service, as a StatefulSet does.
    #[must_use]
    pub fn host(mut self, hostname: &str, subdomain: &str) -> Self {
        self.host = Some((hostname.to_owned(), subdomain.to_owned()));
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Declares a container port, as `containerPort` does, with the name that Services may use.
    #[must_use]
    pub fn port(mut self, name: &str, number: u16) -> Self {
        self.declared
            .push(((!name.is_empty()).then(|| name.to_owned()), number));
        self
    }

    /// Serves connections to `port` with a closure, one call each.
    ///
    /// The future is dropped when the pod goes away.
    #[must_use]
    pub fn serve<F, Fut>(mut self, port: u16, serve: F) -> Self
    where
        F: Fn(SimStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let boxed = move |io| -> Served { Box::pin(serve(io)) };
        self.backends.insert(port, Backend::Serve(Arc::new(boxed)));
        self
    }

    /// Sends connections to `port` on to a real socket, loopback in tests.
    #[must_use]
    pub fn forward(mut self, port: u16, to: SocketAddr) -> Self {
        self.backends.insert(port, Backend::Address(to));
        self
    }

    /// Makes the pod start unready; [`SimCluster::set_ready`](crate::SimCluster::set_ready)
    /// changes it.
    #[must_use]
    pub fn not_ready(mut self) -> Self {
        self.ready = false;
        self
    }

    /// Puts the pod at another point of its life; only running pods are ready.
    #[must_use]
    pub fn phase(mut self, phase: Phase) -> Self {
        self.phase = phase;
        self.ready &= phase == Phase::Running;
        self
    }

    /// What answers on a port.
    pub(crate) fn backend(&self, port: u16) -> Option<Backend> {
        let network = self.network.map(|ip| Backend::Address((ip, port).into()));
        self.backends.get(&port).cloned().or(network)
    }

    /// The pod as the API shows it.
    pub(crate) fn object(&self, ip: &str, started: &str, terminating: Option<u64>) -> Value {
        if let Some(made) = &self.made {
            return made.object(self, ip, started, terminating);
        }
        let ports: Vec<Value> = self.declared.iter().map(declared_port).collect();
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": self.labels,
            },
            "spec": {
                "containers": [{
                    "name": "main",
                    "image": "simulated:1",
                    "imagePullPolicy": "IfNotPresent",
                    "ports": ports,
                }],
                "restartPolicy": "Always",
                "dnsPolicy": "ClusterFirst",
                "serviceAccountName": "default",
                "terminationGracePeriodSeconds": 30,
            },
            "status": {"phase": format!("{:?}", self.phase), "qosClass": "BestEffort"},
        });
        if let Some(grace) = terminating {
            object["metadata"]["deletionTimestamp"] = json!(clock::in_seconds(grace));
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        if let Some((hostname, subdomain)) = &self.host {
            object["spec"]["hostname"] = json!(hostname);
            object["spec"]["subdomain"] = json!(subdomain);
        }
        let scheduled = self.phase != Phase::Pending;
        let running = self.phase == Phase::Running;
        let reason = if self.phase == Phase::Succeeded {
            "PodCompleted"
        } else {
            ""
        };
        object["status"]["conditions"] = json!([
            condition("Initialized", scheduled, "", started),
            condition("Ready", self.ready, reason, started),
            condition("ContainersReady", self.ready, reason, started),
            condition("PodScheduled", scheduled, "", started),
        ]);
        if scheduled {
            object["spec"]["nodeName"] = json!(NODE);
            object["status"]["hostIP"] = json!(NODE_IP);
            let ips = self.families.addresses(ip);
            let all: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            object["status"]["podIP"] = json!(ips[0]);
            object["status"]["podIPs"] = json!(all);
            object["status"]["startTime"] = json!(started);
            let state = if running {
                json!({"running": {"startedAt": started}})
            } else {
                json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": started}})
            };
            object["status"]["containerStatuses"] = json!([{
                "name": "main",
                "image": "simulated:1",
                "imageID": "",
                "ready": self.ready,
                "started": running,
                "restartCount": 0,
                "lastState": {},
                "state": state,
            }]);
        }
        object
    }
}

/// The only node; its address is from the documentation range, since nothing ever dials it.
pub(crate) const NODE: &str = "sim-node";
pub(crate) const NODE_IP: &str = "192.0.2.10";

fn declared_port((name, number): &(Option<String>, u16)) -> Value {
    let mut port = json!({"containerPort": number, "protocol": "TCP"});
    if let Some(name) = name {
        port["name"] = json!(name);
    }
    port
}

pub(crate) fn condition(kind: &str, holds: bool, reason: &str, since: &str) -> Value {
    let status = if holds { "True" } else { "False" };
    let mut condition = json!({
        "type": kind,
        "status": status,
        "lastProbeTime": null,
        "lastTransitionTime": since,
    });
    if !holds && !reason.is_empty() {
        condition["reason"] = json!(reason);
    }
    condition
}
