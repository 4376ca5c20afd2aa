//! A simulated cluster and clients of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use kdev::addr::ClusterDomain;
use kdev::k8s::kubeconfig::Environment;
use kdev::k8s::{Catalog, Client, ClientError, KubeOptions};
use kdev::task::Tasks;
use kdev_sim::{Options, SimCluster, User};
use tempfile::TempDir;

pub(crate) struct World {
    pub(crate) cluster: SimCluster,
    pub(crate) tasks: Tasks,
    pub(crate) dir: TempDir,
}

impl World {
    /// A cluster with the shop in it.
    pub(crate) async fn new(options: Options) -> Self {
        let cluster = SimCluster::start(options).await.unwrap();
        kdev_sim::shop::furnish(&cluster);
        Self::around(cluster)
    }

    /// Around a cluster with anything in it.
    pub(crate) fn around(cluster: SimCluster) -> Self {
        Self {
            cluster,
            tasks: Tasks::new(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Adds a user and connects as it, in namespace shop.
    pub(crate) async fn client_with(&self, user: User, name: &str) -> Client {
        self.cluster.add_user(user);
        self.client(name).await
    }

    pub(crate) async fn client(&self, user: &str) -> Client {
        let config = self.cluster.kubeconfig(user, "shop");
        self.connect(&config).await.unwrap()
    }

    /// Connects with the text of a kubeconfig, with no proxy in the environment.
    pub(crate) async fn connect(&self, config: &str) -> Result<Client, ClientError> {
        let options = KubeOptions {
            kubeconfig: Some(self.write("config", config)),
            ..KubeOptions::default()
        };
        Client::connect_in(options, Environment::default(), &self.tasks).await
    }

    pub(crate) async fn catalog(&self, client: Client) -> Catalog {
        let catalog = Catalog::start(client, ClusterDomain::default(), &self.tasks);
        tokio::time::timeout(Duration::from_secs(30), catalog.synced())
            .await
            .unwrap();
        catalog
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

/// Waits until `done`, at most `limit`.
pub(crate) async fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !done() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
