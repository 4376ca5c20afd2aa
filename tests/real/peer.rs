//! Tunnels to a relay that a scenario holds itself, stream by stream.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kdev::addr::Namespaced;
use kdev::dial::PodPort;
use kdev::io::Io;
use kdev::k8s::portforward::{KnownForm, PortForward};
use kdev::k8s::{Client, KubeOptions};
use kdev::task::Tasks;
use kdev::tunnel::{
    Budget, HandshakeError, Identity, Opener, Protocol, Role, Secret, Stream, TUNNEL_PORT, connect,
    open,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::lab;
use crate::site::{SECRETS, Site};

/// What a scenario's own tunnels may hold.
const BUDGET: u32 = 64 << 20;

/// What an account does with the relay, over port-forward like kdev.
pub(crate) struct Peer {
    client: Client,
    forward: PortForward,
    namespace: String,
    tasks: Tasks,
}

impl Peer {
    pub(crate) async fn connect(kubeconfig: PathBuf, namespace: &str) -> Self {
        let tasks = Tasks::new();
        let options = KubeOptions {
            kubeconfig: Some(kubeconfig),
            ..KubeOptions::default()
        };
        let client = Client::connect(options, &tasks).await.unwrap();
        let forward = PortForward::new(client.clone(), KnownForm::default());
        Self {
            client,
            forward,
            namespace: namespace.to_owned(),
            tasks,
        }
    }

    /// The key that a Secret holds; `Err` has the status.
    pub(crate) async fn key(&self, secret: &str) -> Result<Vec<u8>, Option<u16>> {
        let path = format!("/api/v1/namespaces/{}/secrets/{secret}", self.namespace);
        let object = self.client.get::<Value>(&path).await;
        let object = object.map_err(|error| error.code())?;
        Ok(STANDARD
            .decode(object["data"]["key"].as_str().unwrap())
            .unwrap())
    }

    /// A stream to the tunnel port of a pod.
    pub(crate) async fn dial(&self, pod: &str) -> impl Io + use<> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", self.namespace);
        let object: Value = self.client.get(&path).await.unwrap();
        let port = PodPort {
            pod: Namespaced::new(&self.namespace, pod),
            uid: object["metadata"]["uid"].as_str().unwrap().to_owned(),
            port: TUNNEL_PORT,
        };
        self.forward.open(&port, "the relay").await.unwrap()
    }

    pub(crate) async fn close(self) {
        self.forward.close(Duration::from_secs(1)).await;
        self.tasks.shutdown(Duration::from_secs(1)).await;
    }
}

/// A forward tunnel over `io`; it ends with its last [`Opener`].
pub(crate) async fn tunnel<T: Io + 'static>(io: T, key: &[u8]) -> Result<Opener, HandshakeError> {
    let (io, _) = connect(
        io,
        Role::Forward,
        &Identity::random(),
        &Secret::new(key).unwrap(),
    )
    .await?;
    let share = Budget::new(BUDGET).share().unwrap();
    let (opener, driver) = open(io, share).await?;
    // It ends by itself, with the test at the latest.
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(driver.run());
    Ok(opener)
}

/// Opens a stream to `target` and waits until it is.
pub(crate) async fn dial(opener: &Opener, target: &str) -> Result<Stream, kdev::dial::DialError> {
    let target = target.parse().unwrap();
    let mut stream = opener.open(&target, Protocol::Tcp).await?;
    stream.opened().await?;
    Ok(stream)
}

/// The body of `/` there.
pub(crate) async fn get(opener: &Opener, target: &str) -> String {
    let mut stream = dial(opener, target).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.trim().to_owned())
        .unwrap()
}

/// A tunnel to each of the site's `replicas` relay pods, and a Service through it, by whoever the
/// kubeconfig is of.
pub(crate) async fn works(site: &Site, kubeconfig: PathBuf, replicas: usize) {
    let peer = Peer::connect(kubeconfig, &site.0).await;
    let key = peer.key(SECRETS[0]).await.unwrap();
    for pod in site.await_relays(replicas) {
        let opener = tunnel(peer.dial(&pod).await, &key).await.unwrap();
        let answered = get(&opener, "web.shop:80").await;
        assert!(lab::ready_pods("web").contains(&answered), "{answered}");
    }
    peer.close().await;
}
