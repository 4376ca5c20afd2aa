//! The state of one simulated cluster, shared by the API server and the nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::controller::FOREGROUND;
use crate::counters::{Counters, PodCounts};
use crate::endpoints::{self, Derived};
use crate::faults::Faults;
use crate::http::Failure;
use crate::kubelet;
use crate::made::Made;
use crate::node::{DialError, Running};
use crate::options::{Habits, Options};
use crate::pod::{Phase, Pod};
use crate::policy::Policies;
use crate::program::Programs;
use crate::quota;
use crate::rbac::Rbac;
use crate::resources::{DEPLOYMENTS, ENDPOINTS, NAMESPACES, PODS, Resource, SERVICES, SLICES};
use crate::service::Service;
use crate::store::{Key, Store};
use crate::stream::RuntimeEnd;
use crate::task::Tasks;

/// Everything that outlives a restart of the API server.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) store: Store,
    pub(crate) rbac: Rbac,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    /// What runs on the nodes: connections into pods, and the runtime's copying.
    pub(crate) node: Tasks,
    /// What runs in the pods of Deployments.
    pub(crate) programs: Programs,
    /// What refuses writes.
    pub(crate) policies: Policies,
    habits: RwLock<Habits>,
    /// Held by whoever reads an object to write it back. Taken before `state`.
    writes: Mutex<()>,
    /// Held through every change, so that two never derive endpoints from each other's half.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<(String, String), Running>,
    addresses: u32,
    sandboxes: u64,
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
            programs: Programs::default(),
            policies: Policies::default(),
            writes: Mutex::default(),
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

    /// Until the guard is dropped nobody else reads an object to write it back.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
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
        let kept = kept.filter(|ip| ip != "None" && !ip.contains(':'));
        let ip = kept.unwrap_or_else(|| state.next_address("10.96"));
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

    /// An address that no Service has.
    pub(crate) fn service_address(&self) -> String {
        self.lock().next_address("10.96")
    }

    /// Endpoints for Services that were just written.
    pub(crate) fn follow_services(&self, namespace: &str) {
        let _state = self.lock();
        self.derive(namespace);
    }

    pub(crate) fn add_pod(&self, pod: Pod) {
        self.add_namespace(&pod.namespace);
        self.remove_pod(&pod.namespace, &pod.name);
        let mut state = self.lock();
        let place = (pod.namespace.clone(), pod.name.clone());
        state.sandboxes += 1;
        let ip = state.next_address("10.244");
        let running = Running::new(pod, ip, state.sandboxes);
        self.show(&running);
        state.pods.insert(place, running);
    }

    /// Makes a pod of a template and has its node start it.
    pub(crate) fn make_pod(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        template: &Value,
        owner: Value,
    ) -> Result<Value, Failure> {
        let mut pod = Pod::new(namespace, name).phase(Phase::Pending);
        let labels = template["metadata"]["labels"].as_object();
        for (key, value) in labels.into_iter().flatten() {
            pod = pod.label(key, value.as_str().unwrap_or_default());
        }
        pod.made = Some(Made::new(template, owner));
        let shown = pod.object("", "", None);
        self.policies.admit(&PODS, &shown)?;
        quota::admit(&self.store, &PODS, &shown)?;
        self.add_pod(pod);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let shown = self.store.get(PODS.plural, &namespace, &name);
        self.node.spawn(kubelet::run(self.clone(), namespace, name));
        Ok(shown.map(|pod| Value::clone(&pod)).unwrap_or_default())
    }

    /// What the node needs of a pod that a template made: how it is asked to end, how it is told
    /// that it is gone, its spec, and its grace.
    pub(crate) fn made(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<(CancellationToken, CancellationToken, Value, Duration)> {
        let made = self.running(namespace, name)?.pod.made?;
        let grace = made.spec["terminationGracePeriodSeconds"]
            .as_u64()
            .unwrap_or(30);
        Some((made.stop, made.gone, made.spec, Duration::from_secs(grace)))
    }

    /// Asks a pod to end; one without programs is gone at once.
    pub(crate) fn end_pod(&self, namespace: &str, name: &str, grace: Option<u64>) {
        let mut stop = None;
        self.change_pod(namespace, name, |running| {
            if let Some(made) = &running.pod.made {
                stop = Some(made.stop.clone());
                let own = made.spec["terminationGracePeriodSeconds"].as_u64();
                running.terminating = grace.or(own).or(Some(30));
            }
        });
        match stop {
            Some(stop) if grace != Some(0) => stop.cancel(),
            _ => self.remove_pod(namespace, name),
        }
    }

    /// Deletes an object as the API does, and shows what is left of it for now.
    pub(crate) fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        foreground: bool,
        grace: Option<u64>,
    ) -> Option<Value> {
        let place = key(resource.plural, namespace, name);
        if resource == &PODS {
            self.end_pod(namespace, name, grace);
        } else if foreground && resource == &DEPLOYMENTS {
            let mut object = Value::clone(&*self.store.get(resource.plural, namespace, name)?);
            object["metadata"]["deletionTimestamp"] = json!(clock::now());
            let finalizers = object["metadata"]["finalizers"].as_array();
            let mut finalizers = finalizers.cloned().unwrap_or_default();
            finalizers.push(json!(FOREGROUND));
            object["metadata"]["finalizers"] = json!(finalizers);
            self.store.put(place, object);
        } else if resource == &SERVICES {
            self.remove_service(namespace, name);
        } else {
            self.store.remove(&place);
        }
        let left = self.store.get(resource.plural, namespace, name)?;
        Some(Value::clone(&left))
    }

    /// A number that was not used before.
    pub(crate) fn next_number(&self) -> u64 {
        let mut state = self.lock();
        state.sandboxes += 1;
        state.sandboxes
    }

    /// Ends the pod at once: its connections are cut and the object is gone.
    pub(crate) fn remove_pod(&self, namespace: &str, name: &str) {
        let mut state = self.lock();
        if let Some(mut running) = state.pods.remove(&place(namespace, name)) {
            running.cut();
            if let Some(made) = &running.pod.made {
                made.gone.cancel();
            }
            self.store.remove(&key(PODS.plural, namespace, name));
            self.derive(namespace);
        }
    }

    /// Changes a pod and shows the change; false when there is no such pod.
    pub(crate) fn change_pod(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Running),
    ) -> bool {
        let mut state = self.lock();
        let Some(running) = state.pods.get_mut(&place(namespace, name)) else {
            return false;
        };
        change(running);
        self.show(running);
        true
    }

    /// The pods whose labels include this one, by name, without those on their way out.
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
        let running = self.running(namespace, name)?;
        Some(running.connections.counts())
    }

    pub(crate) fn put_object(&self, resource: &str, object: Value) {
        let _state = self.lock();
        let namespace = self.put_as_it_is(resource, object);
        if resource == SERVICES.plural {
            self.derive(&namespace);
        }
    }

    /// Stores an object and leaves endpoints as they are; returns its namespace.
    pub(crate) fn put_as_it_is(&self, resource: &str, object: Value) -> String {
        let field = |name: &str| {
            object["metadata"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let (namespace, name) = (field("namespace"), field("name"));
        self.store.put(key(resource, &namespace, &name), object);
        namespace
    }

    /// The sandbox of a pod that runs.
    pub(crate) fn sandbox(&self, namespace: &str, name: &str) -> Option<String> {
        let running = self.running(namespace, name)?;
        (running.pod.phase == Phase::Running).then_some(running.sandbox)
    }

    /// Connects to a port of the pod that lives in this sandbox; a new pod of the same name lives
    /// in another.
    pub(crate) async fn dial(
        &self,
        namespace: &str,
        name: &str,
        sandbox: &str,
        port: u16,
    ) -> Result<RuntimeEnd, DialError> {
        let running = self
            .running(namespace, name)
            .filter(|r| r.sandbox == sandbox);
        running
            .ok_or(DialError::NoNetwork)?
            .dial(port, &self.node)
            .await
    }

    fn running(&self, namespace: &str, name: &str) -> Option<Running> {
        self.lock().pods.get(&place(namespace, name)).cloned()
    }

    fn show(&self, running: &Running) {
        let pod = &running.pod;
        self.store.put(
            key(PODS.plural, &pod.namespace, &pod.name),
            running.object(),
        );
        self.derive(&pod.namespace);
    }

    /// Does the endpoint controllers' work for one namespace; the caller holds the state.
    fn derive(&self, namespace: &str) {
        let beta = self.options.v1beta1_slices;
        let (_, services) = self.store.list(SERVICES.plural, Some(namespace));
        let (_, pods) = self.store.list(PODS.plural, Some(namespace));
        let named = |resource: &str, object: &Value| {
            key(
                resource,
                namespace,
                object["metadata"]["name"].as_str().unwrap_or_default(),
            )
        };
        let mut wanted = Vec::new();
        for service in &services {
            let Derived { endpoints, slices } = endpoints::derive(service, &pods, beta);
            if let Some(endpoints) = endpoints {
                self.store
                    .put(named(ENDPOINTS.plural, &endpoints), endpoints);
            }
            for slice in slices {
                let place = named(SLICES.plural, &slice);
                wanted.push(place.clone());
                self.store.put(place, slice);
            }
        }
        let (_, slices) = self.store.list(SLICES.plural, Some(namespace));
        for slice in slices.iter().filter(|slice| endpoints::is_managed(slice)) {
            let place = named(SLICES.plural, slice);
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

fn place(namespace: &str, name: &str) -> (String, String) {
    (namespace.to_owned(), name.to_owned())
}
