//! The state of one simulated cluster, shared by the API server and the nodes.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::counters::{Counters, Gauge, PodCounts};
use crate::endpoints::{self, Derived};
use crate::faults::Faults;
use crate::options::{Habits, Options};
use crate::pod::{Backend, Phase, Pod};
use crate::rbac::Rbac;
use crate::resources::{ENDPOINTS, NAMESPACES, PODS, SERVICES, SLICES};
use crate::service::Service;
use crate::store::{Key, Store};
use crate::task::Tasks;
use crate::{clock, stream};

/// Everything that outlives a restart of the API server.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) store: Store,
    pub(crate) rbac: Rbac,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    /// What runs on the nodes: connections into pods, and the runtime's copying.
    pub(crate) node: Tasks,
    habits: RwLock<Habits>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<(String, String), Running>,
    addresses: u32,
    sandboxes: u64,
}

/// A pod as its node knows it.
#[derive(Clone)]
struct Running {
    pod: Pod,
    ip: String,
    started: String,
    sandbox: String,
    terminating: Option<u64>,
    gone: CancellationToken,
    connections: Gauge,
}

/// Why a forward into a pod failed.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The pod is gone, and its network with it.
    NoNetwork,
    Refused(u16),
    /// An established connection broke.
    Broken(u16, std::io::Error),
}

impl DialError {
    /// The container runtime's words for it.
    pub(crate) fn text(&self, sandbox: &str) -> String {
        let within = "failed to execute portforward in network namespace \
                      \"/var/run/netns/cni-sim\"";
        match self {
            Self::NoNetwork => format!("network namespace for sandbox \"{sandbox}\" is closed"),
            Self::Refused(port) => format!(
                "{within}: failed to connect to localhost:{port} inside namespace \"{sandbox}\", \
                 IPv4: dial tcp4 127.0.0.1:{port}: connect: connection refused IPv6 dial tcp6: \
                 address localhost: no suitable address found "
            ),
            Self::Broken(port, error) => {
                format!("{within}: read tcp4 127.0.0.1:40000->127.0.0.1:{port}: {error}")
            }
        }
    }
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            habits: RwLock::new(options.habits.clone()),
            options,
            store: Store::new(),
            rbac: Rbac::default(),
            faults: Faults::new(),
            counters: Counters::default(),
            node: Tasks::default(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn habits(&self) -> Habits {
        self.habits
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_habits(&self, change: impl FnOnce(&mut Habits)) {
        change(&mut self.habits.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn add_namespace(&self, name: &str) {
        if self.store.get(NAMESPACES.plural, "", name).is_some() {
            return;
        }
        let object = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        self.store.put(key(NAMESPACES.plural, "", name), object);
    }

    pub(crate) fn add_service(&self, service: &Service) {
        self.add_namespace(&service.namespace);
        let mut state = self.lock();
        let old = self
            .store
            .get(SERVICES.plural, &service.namespace, &service.name);
        let kept = old.and_then(|old| old["spec"]["clusterIP"].as_str().map(str::to_owned));
        let ip = kept
            .filter(|ip| ip != "None")
            .unwrap_or_else(|| state.next_address("10.96"));
        let place = key(SERVICES.plural, &service.namespace, &service.name);
        self.store.put(place, service.object(&ip));
        self.derive(&service.namespace);
    }

    pub(crate) fn remove_service(&self, namespace: &str, name: &str) {
        let _state = self.lock();
        self.store.remove(&key(SERVICES.plural, namespace, name));
        self.store.remove(&key(ENDPOINTS.plural, namespace, name));
        self.derive(namespace);
    }

    pub(crate) fn add_pod(&self, pod: Pod) {
        self.add_namespace(&pod.namespace);
        let mut state = self.lock();
        let place = (pod.namespace.clone(), pod.name.clone());
        if let Some(old) = state.pods.remove(&place) {
            old.gone.cancel();
        }
        state.sandboxes += 1;
        let running = Running {
            ip: state.next_address("10.244"),
            started: clock::now(),
            sandbox: format!(
                "{:064x}",
                u128::from(state.sandboxes) * 0x9e37_79b9_7f4a_7c15
            ),
            terminating: None,
            gone: CancellationToken::new(),
            connections: Gauge::default(),
            pod,
        };
        self.show(&running);
        state.pods.insert(place, running);
    }

    /// Ends the pod at once: its connections are cut and the object is gone.
    pub(crate) fn remove_pod(&self, namespace: &str, name: &str) {
        let mut state = self.lock();
        if let Some(running) = state.pods.remove(&(namespace.to_owned(), name.to_owned())) {
            running.gone.cancel();
            self.store.remove(&key(PODS.plural, namespace, name));
            self.derive(namespace);
        }
    }

    /// Changes a pod and shows the change; false when there is no such pod.
    fn change_pod(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Running)) -> bool {
        let mut state = self.lock();
        let place = (namespace.to_owned(), name.to_owned());
        let Some(running) = state.pods.get_mut(&place) else {
            return false;
        };
        change(running);
        let shown = running.clone();
        self.show(&shown);
        true
    }

    pub(crate) fn set_ready(&self, namespace: &str, name: &str, ready: bool) -> bool {
        self.change_pod(namespace, name, |running| {
            running.pod.ready = ready && running.pod.phase == Phase::Running;
        })
    }

    /// Marks the pod as terminating: still running, no longer an endpoint.
    pub(crate) fn set_terminating(&self, namespace: &str, name: &str, grace: u64) -> bool {
        self.change_pod(namespace, name, |running| running.terminating = Some(grace))
    }

    /// Cuts what is connected to a pod, as when its containers restart.
    pub(crate) fn cut_pod(&self, namespace: &str, name: &str) -> bool {
        self.change_pod(namespace, name, |running| {
            std::mem::take(&mut running.gone).cancel();
        })
    }

    /// The pods whose labels include this one, oldest name first.
    pub(crate) fn pods_with(&self, namespace: &str, label: (&str, &str)) -> Vec<Pod> {
        let state = self.lock();
        let matches = |running: &&Running| {
            running.pod.namespace == namespace
                && running.terminating.is_none()
                && running
                    .pod
                    .labels
                    .get(label.0)
                    .is_some_and(|value| value == label.1)
        };
        state
            .pods
            .values()
            .filter(matches)
            .map(|running| running.pod.clone())
            .collect()
    }

    pub(crate) fn pod_counts(&self, namespace: &str, name: &str) -> Option<PodCounts> {
        let state = self.lock();
        let running = state.pods.get(&(namespace.to_owned(), name.to_owned()))?;
        Some(running.connections.counts())
    }

    pub(crate) fn put_object(&self, resource: &str, object: Value) {
        let field = |name: &str| {
            object["metadata"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let place = (resource.to_owned(), field("namespace"), field("name"));
        let namespace = place.1.clone();
        let _state = self.lock();
        self.store.put(place, object);
        if resource == SERVICES.plural {
            self.derive(&namespace);
        }
    }

    pub(crate) fn sandbox(&self, namespace: &str, name: &str) -> Option<String> {
        let state = self.lock();
        let running = state.pods.get(&(namespace.to_owned(), name.to_owned()))?;
        (running.pod.phase == Phase::Running).then(|| running.sandbox.clone())
    }

    /// Connects to a port of a pod as the container runtime does: `localhost` in its network.
    pub(crate) async fn dial(
        &self,
        namespace: &str,
        name: &str,
        sandbox: &str,
        port: u16,
    ) -> Result<stream::RuntimeEnd, DialError> {
        let place = (namespace.to_owned(), name.to_owned());
        let found = self.lock().pods.get(&place).cloned();
        // A new pod of the same name is another sandbox.
        let running = found.filter(|running| running.sandbox == sandbox);
        let running = running.ok_or(DialError::NoNetwork)?;
        let backend = running.pod.backends.get(&port).cloned();
        let backend = backend.ok_or(DialError::Refused(port))?;
        let (pod_end, runtime_end) = stream::pair();
        match backend {
            Backend::Serve(serve) => self.serve(&running, serve(pod_end)),
            Backend::Address(address) => {
                let dialled = tokio::net::TcpStream::connect(address).await;
                let socket = dialled.map_err(|_| DialError::Refused(port))?;
                // Only latency is at stake, and only in tests.
                let _ = socket.set_nodelay(true);
                self.serve(&running, stream::join(pod_end, socket));
            }
        }
        Ok(runtime_end)
    }

    fn serve(&self, running: &Running, work: impl Future<Output = ()> + Send + 'static) {
        let held = running.connections.enter();
        let gone = running.gone.clone();
        self.node.spawn(async move {
            gone.run_until_cancelled(work).await;
            drop(held);
        });
    }

    fn show(&self, running: &Running) {
        let pod = &running.pod;
        let object = pod.object(&running.ip, &running.started, running.terminating);
        self.store
            .put(key(PODS.plural, &pod.namespace, &pod.name), object);
        self.derive(&pod.namespace);
    }

    /// Does the endpoint controllers' work for one namespace. The caller holds the state's lock,
    /// so that two changes never derive from each other's half.
    fn derive(&self, namespace: &str) {
        let (_, services) = self.store.list(SERVICES.plural, Some(namespace));
        let (_, pods) = self.store.list(PODS.plural, Some(namespace));
        let mut wanted = Vec::new();
        for service in &services {
            let beta = self.options.v1beta1_slices;
            let Derived { endpoints, slices } = endpoints::derive(service, &pods, beta);
            if let Some(endpoints) = endpoints {
                self.store
                    .put(place(ENDPOINTS.plural, namespace, &endpoints), endpoints);
            }
            for slice in slices {
                let place = place(SLICES.plural, namespace, &slice);
                wanted.push(place.clone());
                self.store.put(place, slice);
            }
        }
        let (_, slices) = self.store.list(SLICES.plural, Some(namespace));
        for slice in slices.iter().filter(|slice| endpoints::is_managed(slice)) {
            let place = place(SLICES.plural, namespace, slice);
            if !wanted.contains(&place) {
                self.store.remove(&place);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next address of a /16; the last octet stays clear of network and broadcast.
    fn next_address(&mut self, prefix: &str) -> String {
        self.addresses += 1;
        format!(
            "{prefix}.{}.{}",
            self.addresses / 250,
            self.addresses % 250 + 2
        )
    }
}

fn key(resource: &str, namespace: &str, name: &str) -> Key {
    (resource.to_owned(), namespace.to_owned(), name.to_owned())
}

fn place(resource: &str, namespace: &str, object: &Value) -> Key {
    key(
        resource,
        namespace,
        object["metadata"]["name"].as_str().unwrap_or_default(),
    )
}
