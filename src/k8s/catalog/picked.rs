//! Pods that are meant without a Service: one by its name, or those of a workload, as
//! `kubectl port-forward` takes them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::detail::PortDetail;
use super::failure::unreachable;
use super::feed::escaped;
use super::learn::{Answer, Learned, denied};
use super::lookup::{Found, one_of, one_pod, pod_port};
use super::name::{Query, What};
use super::object::{Page, RawPod};
use super::pod::Pod;
use super::shared::Shared;
use super::store::{Label, Store};
use super::{Catalog, Notes, Resolution, Resolve, Wanted};
use crate::addr::{Host, Namespaced, Target};
use crate::dial::{DialError, Endpoints, Inside};
use crate::k8s::client::ClientError;
use crate::k8s::netpolicy::selector::Selector;
use crate::k8s::similar::{did_you_mean, similar};

/// How long who asked for what is not there waits for names that are: a list of a large namespace
/// takes less.
const SIMILAR_WAIT: Duration = Duration::from_secs(1);

/// A kind of object that has pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// `apps/v1`.
    Deployment,
    /// `apps/v1`.
    StatefulSet,
    /// `apps/v1`.
    DaemonSet,
    /// `apps/v1`.
    ReplicaSet,
    /// `batch/v1`.
    Job,
}

impl WorkloadKind {
    /// The kind that kubectl knows by this name, short name or plural, in lower case.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "deployment" | "deployments" | "deploy" => Some(Self::Deployment),
            "statefulset" | "statefulsets" | "sts" => Some(Self::StatefulSet),
            "daemonset" | "daemonsets" | "ds" => Some(Self::DaemonSet),
            "replicaset" | "replicasets" | "rs" => Some(Self::ReplicaSet),
            "job" | "jobs" => Some(Self::Job),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::Job => "Job",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
            Self::ReplicaSet => "replicasets",
            Self::Job => "jobs",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::ReplicaSet => "apps",
            Self::Job => "batch",
        }
    }
}

/// As it stands before a name: `deployment/web`.
impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().to_ascii_lowercase())
    }
}

/// Which pods are meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pick {
    /// The one with this name.
    Pod(Namespaced),
    /// Those that a workload selects. A selector cannot be changed, so it is read once.
    Workload {
        kind: WorkloadKind,
        name: Namespaced,
        selector: Selector,
        /// Its terms that ask for one value, by which pods are found.
        exact: Box<[Label]>,
    },
}

impl Pick {
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Pod(name) | Self::Workload { name, .. } => &name.namespace,
        }
    }

    /// What is said where there is no such pod.
    pub(super) fn near(&self, store: &Store) -> String {
        let namespace = self.namespace();
        let Self::Pod(name) = self else {
            return String::new();
        };
        let known = store.namespace(namespace);
        let known = known.into_iter().flat_map(|n| n.pods.keys()).map(|n| &**n);
        let meant = similar(known, &name.name).into_iter();
        let meant: Vec<String> = meant.map(str::to_owned).collect();
        did_you_mean(&meant)
            .unwrap_or_else(|| format!("`kubectl get pods -n {namespace}` lists those that exist"))
    }

    /// The pods that are there.
    fn pods<'a>(&'a self, store: &'a Store) -> Vec<(&'a Arc<str>, &'a Pod)> {
        let Some(namespace) = store.namespace(self.namespace()) else {
            return Vec::new();
        };
        match self {
            Self::Pod(name) => {
                let pod = namespace.pods.get_key_value(name.name.as_str());
                pod.into_iter().collect()
            }
            Self::Workload {
                exact, selector, ..
            } => {
                let has = |pod: &Pod| selector.selects_by(|key| pod.label(key));
                match exact.is_empty() {
                    true => namespace.pods.iter().filter(|(_, pod)| has(pod)).collect(),
                    false => {
                        let pods = namespace.selected(exact);
                        pods.filter(|(_, pod)| has(pod)).collect()
                    }
                }
            }
        }
    }

    /// The ready ones among them, for a connection.
    pub(super) fn find(&self, store: &Store, wanted: Wanted<'_>) -> Found {
        let pods = self.pods(store);
        let (namespace, port) = (self.namespace(), wanted.target.port);
        let Self::Workload { selector, .. } = self else {
            let Some((name, pod)) = pods.first() else {
                return Found::Absent;
            };
            if pod.ips.is_empty() && !pod.over {
                let reason = format!("{self} has no address yet");
                return Found::Is(unreachable(wanted, reason, ""));
            }
            return Found::Is(one_pod(namespace, name, pod, &pod.ips, wanted));
        };
        let ready = pods.iter().filter(|(_, pod)| pod.takes_traffic(false));
        let ready: Vec<_> = ready.collect();
        if ready.is_empty() {
            let count = match pods.len() {
                0 => "no pod matches its selector".to_owned(),
                1 => "1 pod, not ready".to_owned(),
                n => format!("{n} pods, none ready"),
            };
            return Found::Is(unreachable(
                wanted,
                format!("{self} has no ready pod ({count})"),
                &format!("`kubectl get pods -n {namespace} -l '{selector}'` shows them"),
            ));
        }
        let declares = |pod: &Pod| pod.declares(port, wanted.protocol);
        let declared = ready.iter().any(|(_, pod)| declares(pod));
        let targets = ready
            .iter()
            .filter_map(|(_, pod)| one_of(&pod.ips, wanted, port));
        let targets: Vec<Target> = targets.collect();
        let pods = ready.iter();
        let pods = pods.map(|(name, pod)| pod_port(namespace, name, pod, port));
        Found::Is(Resolution::Pods(Endpoints {
            service: None,
            pods: pods.collect(),
            declared,
            inside: Inside {
                targets,
                known: declared,
            },
        }))
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, Namespaced { namespace, name }) = match self {
            Self::Pod(name) => ("pod", name),
            Self::Workload { kind, name, .. } => (kind.name(), name),
        };
        write!(f, "{kind} {name} in namespace {namespace}")
    }
}

/// Where dials of pods that are meant without a Service lead, whatever the name in their target:
/// each finds those that are ready at that moment.
#[derive(Clone)]
pub struct Picked {
    catalog: Catalog,
    query: Query,
}

impl Picked {
    /// The ports that its pods declare, each once.
    #[must_use]
    pub fn ports(&self) -> Vec<PortDetail> {
        let ports = self.catalog.shared.read(|store| self.ports_in(store));
        if !ports.is_empty() {
            return ports;
        }
        let learned = self.catalog.shared.answered(&self.query);
        learned.map_or(ports, |learned| self.ports_in(learned.seen().0))
    }

    fn ports_in(&self, store: &Store) -> Vec<PortDetail> {
        let What::Pods(pick) = &self.query.what else {
            return Vec::new();
        };
        let pods = pick.pods(store).into_iter();
        let mut ports: Vec<PortDetail> = pods
            .flat_map(|(_, pod)| &pod.ports)
            .map(|port| PortDetail {
                name: port.name.to_string(),
                port: port.port,
                protocol: port.protocol.name().to_owned(),
                target: port.port.to_string(),
            })
            .collect();
        ports.sort_unstable_by(|a, b| {
            (a.port, &a.protocol, &a.name).cmp(&(b.port, &b.protocol, &b.name))
        });
        ports.dedup();
        ports
    }
}

impl fmt::Display for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.query.fmt(f)
    }
}

impl Resolve for Picked {
    fn resolve_as(&self, wanted: Wanted<'_>, notes: &mut Notes) -> Resolution {
        let queries = std::slice::from_ref(&self.query);
        self.catalog.settle(wanted, queries, None, notes)
    }

    async fn learn_as(&self, wanted: Wanted<'_>, notes: &mut Notes) -> Resolution {
        let learned = Arc::clone(&self.catalog.shared).ask(&self.query).await;
        let queries = std::slice::from_ref(&self.query);
        let learned = [(self.query.clone(), learned)];
        self.catalog.settle(wanted, queries, Some(&learned), notes)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawWorkload {
    spec: RawSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSpec {
    selector: Value,
}

impl Catalog {
    /// The pod `name`.
    ///
    /// # Errors
    /// When there is no such pod, or it may not be seen.
    pub async fn pick_pod(&self, name: Namespaced) -> Result<Picked, DialError> {
        self.picked(Pick::Pod(name)).await
    }

    /// The pods of a workload.
    ///
    /// # Errors
    /// When there is no such workload, or it or its pods may not be seen.
    pub async fn pick_workload(
        &self,
        kind: WorkloadKind,
        name: Namespaced,
    ) -> Result<Picked, DialError> {
        let Namespaced {
            namespace,
            name: own,
        } = &name;
        let (group, plural) = (kind.group(), kind.plural());
        let path = format!("/apis/{group}/v1/namespaces/{namespace}/{plural}/{own}");
        let raw: RawWorkload = match self.shared.asking.get(&path).await {
            Ok(raw) => raw,
            Err(error) if error.code() == Some(404) => {
                return Err(DialError::NotFound {
                    what: format!("{} {own} in namespace {namespace}", kind.name()),
                    fix: format!("`kubectl get {plural} -n {namespace}` lists those that exist"),
                });
            }
            Err(error) => {
                let resource = format!("{plural}.{group}");
                return Err(refused(error, "get", &resource, namespace));
            }
        };
        let selector = Selector::read(&raw.spec.selector);
        let exact = selector
            .exact()
            .map(|(key, value)| format!("{key}={value}").into());
        self.picked(Pick::Workload {
            kind,
            name,
            exact: exact.collect(),
            selector,
        })
        .await
    }

    /// Makes sure that it is there, and that its pods can be seen.
    async fn picked(&self, pick: Pick) -> Result<Picked, DialError> {
        let query = Query {
            what: What::Pods(pick),
            certain: true,
        };
        // Any port will do: whether there is something to dial is asked later.
        let target = Target::new(Host::Name(String::new()), 0);
        let there = match self.shared.known(&query, Wanted::tcp(&target)) {
            Answer::Is(_) => true,
            Answer::Absent => false,
            Answer::Unknown => {
                let learned = Arc::clone(&self.shared).ask(&query).await;
                learned.is_there()?
            }
        };
        let catalog = self.clone();
        if there {
            return Ok(Picked { catalog, query });
        }
        // A name is mistyped at the start more often than not, before the first list is there.
        let _ = tokio::time::timeout(SIMILAR_WAIT, self.synced()).await;
        Err(DialError::NotFound {
            what: query.to_string(),
            fix: self.shared.read(|store| match &query.what {
                What::Pods(pick) => pick.near(store),
                _ => String::new(),
            }),
        })
    }
}

fn refused(error: ClientError, verb: &str, resource: &str, namespace: &str) -> DialError {
    match error.code() {
        Some(403) => denied(error, verb, resource, namespace),
        _ => error.into(),
    }
}

/// Asks for the pods.
pub(super) async fn ask(
    shared: &Arc<Shared>,
    pick: &Pick,
    learned: &mut Learned,
) -> Result<bool, DialError> {
    let namespace = pick.namespace();
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    match pick {
        Pick::Pod(name) => match shared
            .asking
            .get::<RawPod>(&format!("{path}/{}", name.name))
            .await
        {
            Ok(pod) => {
                learned.store.apply_pod(&pod);
            }
            Err(error) if error.code() == Some(404) => return Ok(false),
            Err(error) => return Err(refused(error, "get", "pods", namespace)),
        },
        Pick::Workload { selector, .. } => {
            let path = format!("{path}?labelSelector={}", escaped(&selector.to_string()));
            let page = shared.asking.get::<Page<RawPod>>(&path).await;
            let page = page.map_err(|error| refused(error, "list", "pods", namespace))?;
            for pod in &page.items {
                learned.store.apply_pod(pod);
            }
        }
    }
    shared.watch_namespace(namespace);
    Ok(true)
}
