//! Tunnels to a relay from the scenario's own process.

use std::time::{Duration, Instant};

use kdev::k8s::portforward::{KnownForm, PortForward};
use kdev::k8s::relay::{self, Carrier};
use kdev::k8s::{Catalog, Client, KubeOptions};
use kdev::task::Tasks;
use kdev::tunnel::pool::Pool;

use crate::installed::Relay;
use crate::lab;

/// Tunnels to a relay.
pub(super) struct Tunnels {
    pub(super) pool: Pool,
    pods: PortForward,
    tasks: Tasks,
}

impl Tunnels {
    /// Tunnels to both replicas.
    pub(super) async fn open(relay: &Relay, carrier: Option<Carrier>) -> Self {
        let tasks = Tasks::new();
        let options = KubeOptions {
            namespace: Some(relay.site.0.clone()),
            ..lab::options("admin")
        };
        let client = Client::connect(options, &tasks).await.unwrap();
        let catalog = Catalog::start(client.clone(), Default::default(), &tasks);
        let pods = PortForward::new(client.clone(), KnownForm::default());
        let pool = relay::start(&client, &catalog, &pods, carrier, &tasks);
        pool.ready(Duration::from_secs(20)).await.unwrap();
        let tunnels = Self { pool, pods, tasks };
        let end = Instant::now() + Duration::from_secs(20);
        while tunnels.pool.status().connected() < 2 {
            assert!(Instant::now() < end, "{:?}", tunnels.pool.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tunnels
    }

    pub(super) async fn close(self) {
        self.pool.close(Duration::from_secs(2)).await;
        self.pods.close(Duration::from_secs(1)).await;
        self.tasks.shutdown(Duration::ZERO).await;
    }
}
