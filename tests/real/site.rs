//! A namespace of a scenario's own, and tunnels to the relay in it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kdev::addr::Namespaced;
use kdev::dial::PodPort;
use kdev::io::Io;
use kdev::k8s::portforward::{KnownForm, PortForward};
use kdev::k8s::{Client, KubeOptions};
use kdev::task::Tasks;
use kdev::tunnel::{
    Budget, HandshakeError, Hello, Opener, Protocol, Role, Secret, SessionId, Stream, TUNNEL_PORT,
    connect, open,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::lab;

/// The Secret that admits forward tunnels, and the one that admits reverse tunnels.
pub(crate) const SECRETS: [&str; 2] = ["kdev-relay", "kdev-relay-intercept"];
/// The relay's image in the lab: repository and tag.
pub(crate) const IMAGE: [&str; 2] = ["kdev-lab/relay", "1"];
/// How long pods may take to become ready or to go.
const SETTLE: Duration = Duration::from_secs(90);
/// What a scenario's own tunnels may hold.
const BUDGET: u32 = 64 << 20;

/// A namespace; deleted with all that is in it when this is dropped.
pub(crate) struct Site(pub(crate) String);

impl Site {
    pub(crate) fn create(what: &str) -> Self {
        let name = lab::unique(what);
        lab::kubectl(&["create", "namespace", &name]).unwrap();
        let site = Self(name);
        // The first pod fails where it comes before this.
        site.wait("its default service account", |site| {
            site.kubectl(&["get", "serviceaccount", "default"]).is_ok()
        });
        site
    }

    /// `kubectl` as the administrator in this namespace.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        lab::kubectl(&[&["-n", &self.0], args].concat())
    }

    /// The Secrets as cluster/README.md makes them.
    pub(crate) fn make_secrets(&self) {
        for name in SECRETS {
            let key = format!(
                "--from-literal=key={}{}",
                lab::unique("key"),
                "k".repeat(32)
            );
            let make = ["create", "secret", "generic", name, &key];
            self.kubectl(&make).unwrap();
        }
    }

    /// Installs the chart as the release `relay`, and waits until it is ready.
    pub(crate) fn install_chart(&self, more: &Value) {
        self.helm("install", more).unwrap();
    }

    /// Installs or upgrades the chart.
    pub(crate) fn helm(&self, verb: &str, more: &Value) -> Result<String, String> {
        let mut values = serde_json::json!({"image": {"repository": IMAGE[0], "tag": IMAGE[1]}});
        for (name, value) in more.as_object().into_iter().flatten() {
            values[name] = value.clone();
        }
        lab::script(
            "helm",
            &[verb, CHART, &self.0, "relay", &values.to_string()],
        )
    }

    /// Names of the relay's pods that are ready and not about to end.
    pub(crate) fn relays(&self) -> Vec<String> {
        let wanted = r#"{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
        let path = format!("jsonpath={wanted}");
        let label = "app.kubernetes.io/name=kdev-relay";
        let list = self.kubectl(&["get", "pods", "-l", label, "-o", &path]);
        let list = list.unwrap();
        let ready = list.lines().filter_map(|line| line.strip_suffix("  True"));
        ready.map(str::to_owned).collect()
    }

    /// Waits until `count` relay pods are ready, and gives their names.
    pub(crate) fn await_relays(&self, count: usize) -> Vec<String> {
        self.wait("its relay pods", |site| site.relays().len() == count);
        self.relays()
    }

    pub(crate) fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + SETTLE;
        while !done(self) {
            if Instant::now() > end {
                let pods = self.kubectl(&["get", "pods", "-o", "wide"]);
                let events = self.kubectl(&["get", "events"]);
                panic!("waited for {what}: {pods:?} {events:?}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A field of an object here, by its JSON path.
    pub(crate) fn field(&self, object: &str, path: &str) -> String {
        let path = format!("jsonpath={{{path}}}");
        self.kubectl(&["get", object, "-o", &path]).unwrap()
    }

    /// An object here.
    pub(crate) fn object(&self, object: &str) -> Value {
        let text = self.kubectl(&["get", object, "-o", "json"]).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// A key, as the administrator reads it.
    pub(crate) fn key(&self, secret: &str) -> Vec<u8> {
        let text = self.field(&format!("secret/{secret}"), ".data.key");
        STANDARD.decode(text).unwrap()
    }

    /// A service account with a kubeconfig, which may do nothing yet.
    pub(crate) fn account(&self, what: &str) -> Account {
        let name = lab::unique(what);
        self.kubectl(&["create", "serviceaccount", &name]).unwrap();
        lab::script("accounts", &[&self.0, &name]).unwrap();
        Account(name)
    }
}

/// The chart's folder.
pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/chart");

impl Drop for Site {
    fn drop(&mut self) {
        // Pods would take their grace; nobody here waits for them any more.
        let pods = ["delete", "pods", "--all", "--force", "--grace-period=0"];
        let all: [&[&str]; 2] = [&pods, &["delete", "namespace", &self.0, "--wait=false"]];
        for args in all {
            if let Err(error) = self.kubectl(args) {
                eprintln!("cannot clean up {}: {error}", self.0);
            }
        }
    }
}

/// A service account of a [`Site`]; its kubeconfigs are removed when this is dropped.
pub(crate) struct Account(pub(crate) String);

impl Account {
    pub(crate) fn kubeconfig(&self, door: &str) -> PathBuf {
        lab::kubeconfig(&self.0, door)
    }

    /// Whether Kubernetes lets it.
    pub(crate) fn may(&self, args: &[&str]) -> bool {
        let file = self.kubeconfig("api");
        let flags = ["--kubeconfig", file.to_str().unwrap(), "auth", "can-i"];
        // Says no by its exit code as well.
        let said = lab::run_kubectl(&[&flags[..], args].concat());
        let said = said.unwrap_or_else(|no| no);
        assert!(said.contains("yes") || said.contains("no"), "{said}");
        said.trim() == "yes"
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        for door in ["api", "front"] {
            let _ = std::fs::remove_file(self.kubeconfig(door));
        }
    }
}

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
    let hello = Hello::new(Role::Forward, SessionId::random());
    let (io, _) = connect(io, &hello, &Secret::new(key).unwrap()).await?;
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
