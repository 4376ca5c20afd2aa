//! What kdev can have tried from inside of the cluster: by the relay's pods, and at a pod itself.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::addr::{Namespaced, Target};
use crate::dial::{Answer, DialError, DialRelay as _, PodPort};
use crate::k8s::portforward::PortForward;
use crate::k8s::{Client, relay};
use crate::tunnel::pool::Pool;

/// How long a tunnel to a replica may take.
const TUNNEL_LIMIT: Duration = Duration::from_secs(10);
/// How long saying goodbye on it may take.
const GOODBYE: Duration = Duration::from_millis(200);
/// How long a pod may take to refuse a port that nobody listens on: its kubelet dials it on the spot.
const REFUSAL: Duration = Duration::from_secs(1);

/// Something that is waited for.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What kdev can have tried from inside of the cluster.
pub trait Ways: Send + Sync {
    /// A way to the replica of the relay with this name.
    fn to<'a>(&'a self, replica: &'a str) -> Doing<'a, Result<Arc<dyn Replica>, DialError>>;

    /// Whether somebody listens on a port of a pod, as the pod itself has it: no policy and no mesh
    /// stands in between.
    fn listens<'a>(
        &'a self,
        pod: &'a str,
        uid: &'a str,
        port: u16,
    ) -> Doing<'a, Result<(), DialError>>;
}

/// A replica of the relay, which dials what it is told to.
pub trait Replica: Send + Sync {
    /// Connects, and lets go again.
    fn dial<'a>(&'a self, target: &'a Target) -> Doing<'a, Result<(), DialError>>;

    /// Says goodbye.
    fn close(&self) -> Doing<'_, ()>;
}

/// Through a tunnel of its own to each of the relay's pods in `namespace`, and by port-forward to
/// other pods.
#[must_use]
pub fn through_tunnels(client: &Client, pods: &PortForward, namespace: &str) -> Arc<dyn Ways> {
    Arc::new(Tunnels {
        client: client.clone(),
        pods: pods.clone(),
        namespace: namespace.to_owned(),
    })
}

struct Tunnels {
    client: Client,
    pods: PortForward,
    namespace: String,
}

impl Ways for Tunnels {
    fn to<'a>(&'a self, replica: &'a str) -> Doing<'a, Result<Arc<dyn Replica>, DialError>> {
        Box::pin(async move {
            let (client, pods) = (&self.client, &self.pods);
            let pool = relay::to_one(client, pods, &self.namespace, replica, TUNNEL_LIMIT).await?;
            Ok(Arc::new(pool) as Arc<dyn Replica>)
        })
    }

    fn listens<'a>(
        &'a self,
        pod: &'a str,
        uid: &'a str,
        port: u16,
    ) -> Doing<'a, Result<(), DialError>> {
        let at = PodPort {
            pod: Namespaced::new(&self.namespace, pod),
            uid: uid.to_owned(),
            port,
        };
        Box::pin(async move { self.pods.listens(&at, REFUSAL).await })
    }
}

impl Replica for Pool {
    fn dial<'a>(&'a self, target: &'a Target) -> Doing<'a, Result<(), DialError>> {
        Box::pin(async move { self.dial_relay(target, Answer::Awaited).await.map(drop) })
    }

    fn close(&self) -> Doing<'_, ()> {
        Box::pin(Self::close(self, GOODBYE))
    }
}
