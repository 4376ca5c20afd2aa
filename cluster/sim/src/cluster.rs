//! The cluster as tests and the demo hold it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::controller;
use crate::counters::{Counts, PodCounts};
use crate::faults::Faults;
use crate::options::{Habits, Options};
use crate::pod::Pod;
use crate::program::{Container, Exit};
use crate::proxy;
use crate::rbac::{Rule, User};
use crate::server::Server;
use crate::service::Service;
use crate::tls::Authority;
use crate::world::World;

/// A running simulated cluster. Dropping it stops everything; [`SimCluster::shutdown`] also waits.
///
/// The user `admin` (token `admin-token`) may do everything from the start.
pub struct SimCluster {
    world: Arc<World>,
    server: Server,
    authority: Authority,
}

impl SimCluster {
    /// Starts an API server on a free port of [`Options::listen`], with an empty namespace `default`.
    ///
    /// # Errors
    /// When no port can be bound or no certificate be made.
    pub async fn start(options: Options) -> io::Result<Self> {
        let world = Arc::new(World::new(options));
        world.add_namespace("default");
        world.rbac.add(
            User::new("admin")
                .group("system:masters")
                .rule(Rule::new(&["*"], &["*"])),
        );
        world.node.spawn(controller::run(world.clone()));
        let authority = Authority::new()?;
        let server = Server::new(world.clone(), authority.acceptor()?)?;
        server.start()?;
        Ok(Self {
            world,
            server,
            authority,
        })
    }

    /// Where the API server listens; the same across restarts.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The `https://` form of the address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The certificate authority, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.authority.ca_pem
    }

    /// A kubeconfig for a user, with `namespace` as the context's default. An unknown user gets
    /// the token that [`User::new`] would have given.
    #[must_use]
    pub fn kubeconfig(&self, user: &str, namespace: &str) -> String {
        let token = self
            .world
            .rbac
            .token_of(user)
            .unwrap_or_else(|| format!("{user}-token"));
        self.kubeconfig_with_token(user, &token, namespace)
    }

    /// A kubeconfig with any token.
    #[must_use]
    pub fn kubeconfig_with_token(&self, user: &str, token: &str, namespace: &str) -> String {
        self.kubeconfig_of(user, &format!("token: {token}"), namespace)
    }

    /// A kubeconfig with a client certificate in place of a token.
    ///
    /// # Errors
    /// When no certificate can be made for the name.
    pub fn kubeconfig_with_certificate(&self, user: &str, namespace: &str) -> io::Result<String> {
        let client = self.authority.client(user)?;
        self.world.rbac.add_certificate(client.der, user);
        let credentials = format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            STANDARD.encode(client.certificate_pem),
            STANDARD.encode(client.key_pem),
        );
        Ok(self.kubeconfig_of(user, &credentials, namespace))
    }

    fn kubeconfig_of(&self, user: &str, credentials: &str, namespace: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: sim\n  cluster:\n    server: {url}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: {user}\n  user:\n    {credentials}\n\
             contexts:\n- name: sim\n  context:\n    cluster: sim\n    user: {user}\n    \
             namespace: {namespace}\ncurrent-context: sim\n",
            url = self.url(),
            ca = STANDARD.encode(self.ca_pem()),
        )
    }

    /// Writes [`SimCluster::kubeconfig`] to a file that only its owner can read.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, user: &str, namespace: &str) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        io::Write::write_all(&mut file, self.kubeconfig(user, namespace).as_bytes())
    }

    /// Adds a namespace; one that exists stays as it is.
    pub fn add_namespace(&self, name: &str) {
        self.world.add_namespace(name);
    }

    /// Adds or replaces a Service, and its namespace where that is missing.
    pub fn add_service(&self, service: Service) {
        self.world.add_service(&service);
    }

    /// Removes a Service with its endpoints.
    pub fn remove_service(&self, namespace: &str, name: &str) {
        self.world.remove_service(namespace, name);
    }

    /// Adds a pod, and its namespace where that is missing. A pod of the same name is replaced by
    /// a new one: other address, connections cut.
    pub fn add_pod(&self, pod: Pod) {
        self.world.add_pod(pod);
    }

    /// Ends a pod at once: connections cut, object gone, endpoints updated.
    pub fn remove_pod(&self, namespace: &str, name: &str) {
        self.world.remove_pod(namespace, name);
    }

    /// Ends a pod as `kubectl delete` does: it is no endpoint from now on, goes on serving for
    /// `grace` (a preStop hook, say), and is gone when this returns.
    pub async fn terminate_pod(&self, namespace: &str, name: &str, grace: Duration) {
        let seconds = grace.as_secs();
        if self
            .world
            .change_pod(namespace, name, |pod| pod.terminating = Some(seconds))
        {
            tokio::time::sleep(grace).await;
            // Its containers have ended: the last that is seen of it.
            self.world
                .change_pod(namespace, name, |pod| pod.set_ready(false));
            self.world.remove_pod(namespace, name);
        }
    }

    /// Passes or fails a pod's readiness probe; false when there is no such pod.
    pub fn set_ready(&self, namespace: &str, name: &str, ready: bool) -> bool {
        self.world
            .change_pod(namespace, name, |pod| pod.set_ready(ready))
    }

    /// Sets a label of a pod, and so which Services it belongs to; false when there is no such
    /// pod.
    pub fn set_label(&self, namespace: &str, name: &str, label: (&str, &str)) -> bool {
        self.world.change_pod(namespace, name, |running| {
            running
                .pod
                .labels
                .insert(label.0.to_owned(), label.1.to_owned());
        })
    }

    /// Cuts all connections into a pod, as a restart of its containers does; false when there is
    /// no such pod.
    pub fn cut_pod(&self, namespace: &str, name: &str) -> bool {
        self.world.change_pod(namespace, name, |pod| pod.cut())
    }

    /// Replaces the pods that carry a label, one after the other as a Deployment does: the new
    /// one becomes ready after `startup`, then the old one terminates within `grace`.
    ///
    /// New pods are named after the old with a suffix that counts restarts.
    pub async fn rolling_restart(
        &self,
        namespace: &str,
        label: (&str, &str),
        startup: Duration,
        grace: Duration,
    ) {
        for old in self.world.pods_with(namespace, label) {
            let mut new = old.clone().not_ready();
            new.name = restarted(&old.name);
            let name = new.name.clone();
            self.add_pod(new);
            tokio::time::sleep(startup).await;
            self.set_ready(namespace, &name, true);
            self.terminate_pod(namespace, &old.name, grace).await;
        }
    }

    /// Says what runs in containers of this name, in pods that Deployments make: one call for each
    /// start. It publishes its ports and its readiness through the [`Container`], and ends when
    /// that is [stopped](Container::stopped). Without a program a container is ready at once; an
    /// init container then does nothing.
    pub fn add_program<F, Fut>(&self, container: &str, program: F)
    where
        F: Fn(Container) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Exit> + Send + 'static,
    {
        self.world.programs.add(container, program);
    }

    /// Makes the namespace's Services reachable on this machine, each port where `at` says by the
    /// Service's name and the port's number; not at all where it says nothing. Of two Services at the
    /// same place the first by name is. Only root may listen on ports below 1024, as a rule.
    pub fn proxy_services<F>(&self, namespace: &str, at: F)
    where
        F: Fn(&str, u16) -> Option<SocketAddr> + Send + Sync + 'static,
    {
        let run = proxy::run(self.world.clone(), namespace.to_owned(), Box::new(at));
        self.world.node.spawn(run);
    }

    /// The objects of a resource in a namespace, as the API shows them now.
    #[must_use]
    pub fn objects(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let (_, objects) = self.world.store.list(resource, Some(namespace));
        objects.iter().map(|object| Value::clone(object)).collect()
    }

    /// Stores any object of a resource that the server knows (`endpointslices`, say, for a
    /// Service without selector). Its metadata needs a name.
    pub fn put_object(&self, resource: &str, object: Value) {
        self.world.put_object(resource, object);
    }

    /// Stores many objects of a resource as they are; no endpoints are derived from them.
    pub fn put_objects(&self, resource: &str, objects: impl IntoIterator<Item = Value>) {
        for object in objects {
            self.world.put_as_it_is(resource, object);
        }
    }

    /// Removes an object that [`SimCluster::put_object`] stored.
    pub fn remove_object(&self, resource: &str, namespace: &str, name: &str) {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.world.store.remove(&key);
    }

    /// An object as the API shows it now; the namespace is empty for cluster-wide ones.
    #[must_use]
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.world
            .store
            .get(resource, namespace, name)
            .map(|object| Value::clone(&object))
    }

    /// Has `check` refuse objects of these resources (`pods`, `deployments`, …) that are created or
    /// changed from now on, with its own words, as a ValidatingAdmissionPolicy of this name does.
    pub fn add_policy<F>(&self, name: &str, resources: &[&str], check: F)
    where
        F: Fn(&Value) -> Result<(), String> + Send + Sync + 'static,
    {
        self.world.policies.add(name, resources, check);
    }

    /// Removes such a policy.
    pub fn remove_policy(&self, name: &str) {
        self.world.policies.remove(name);
    }

    /// Adds or replaces a user.
    pub fn add_user(&self, user: User) {
        self.world.rbac.add(user);
    }

    /// Replaces a user's rights, for requests from now on; streams that run go on.
    pub fn set_rules(&self, user: &str, rules: impl IntoIterator<Item = Rule>) {
        self.world.rbac.set_rules(user, rules.into_iter().collect());
    }

    /// Makes a token unknown (401), for requests from now on.
    pub fn revoke_token(&self, token: &str) {
        self.world.rbac.revoke(token);
    }

    /// Changes the port-forward habits, for upgrades from now on.
    pub fn set_habits(&self, change: impl FnOnce(&mut Habits)) {
        self.world.set_habits(change);
    }

    /// The fault switches.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.world.faults
    }

    /// Forgets all past resource versions: running watches end with an ERROR event of code 410,
    /// as do new ones from an old version.
    pub fn expire_watches(&self) {
        self.world.store.compact();
    }

    /// Cuts every connection to the API server, which goes on listening.
    pub fn drop_connections(&self) {
        self.server.drop_connections();
    }

    /// Kills the API server: connections are cut, new ones refused. Pods live on.
    pub async fn stop_api(&self) {
        self.server.stop().await;
    }

    /// Starts the API server again on the same port, with the same objects and certificate.
    ///
    /// # Errors
    /// When the port cannot be bound, which would be another program's fault.
    pub async fn start_api(&self) -> io::Result<()> {
        self.server.start()
    }

    /// What was asked and what is open.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.world.counters.snapshot()
    }

    /// Connections into a pod that exists.
    #[must_use]
    pub fn pod_counts(&self, namespace: &str, name: &str) -> Option<PodCounts> {
        self.world.pod_counts(namespace, name)
    }

    /// Stops everything and waits until nothing runs any more.
    pub async fn shutdown(self) {
        self.server.stop().await;
        self.world.node.stop();
        self.world.node.stopped().await;
    }
}

impl Drop for SimCluster {
    fn drop(&mut self) {
        self.server.abandon();
        self.world.node.stop();
    }
}

/// `web-1` → `web-1-r1` → `web-1-r2`.
fn restarted(name: &str) -> String {
    let counted = name
        .rsplit_once("-r")
        .and_then(|(base, n)| Some((base, n.parse::<u32>().ok()?)));
    match counted {
        Some((base, count)) => format!("{base}-r{}", count + 1),
        None => format!("{name}-r1"),
    }
}
