//! A relay in a namespace of its own, and kdev's way to it.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kdev::k8s::portforward::{KnownForm, PortForward};
use kdev::k8s::relay::{self, Carrier};
use kdev::k8s::{Catalog, Client, KubeOptions};
use kdev::task::Tasks;
use kdev::tunnel::pool::Pool;

use crate::{lab, program};

/// How long the relay's pods may take to be ready.
const START: Duration = Duration::from_secs(90);

/// Tells the relays of this process apart.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// An installed relay. Its namespace goes when this is dropped.
pub(crate) struct Relay {
    pub(crate) namespace: String,
}

impl Relay {
    /// Two replicas that also take tunnels on the pod's own address, ready.
    pub(crate) fn install(name: &str) -> Self {
        let image = image();
        // The last one of this name may still be on its way out.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("relay-{name}-{}-{number}", std::process::id());
        let relay = Self { namespace };
        let namespace = &relay.namespace;
        lab::kubectl(&["create", "namespace", namespace]).unwrap();
        lab::apply(&manifest(namespace, &image));
        relay.until_ready(2);
        relay
    }

    /// Names of its pods that are ready and not about to end.
    pub(crate) fn pods(&self) -> Vec<String> {
        let wanted = r#"{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
        let list = lab::kubectl(&[
            "-n",
            &self.namespace,
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=kdev-relay",
            "-o",
            &format!("jsonpath={wanted}"),
        ]);
        let list = list.unwrap_or_default();
        let ready = list.lines().filter_map(|line| line.strip_suffix("  True"));
        ready.map(str::to_owned).collect()
    }

    pub(crate) fn until_ready(&self, replicas: usize) {
        let end = Instant::now() + START;
        while self.pods().len() != replicas {
            assert!(Instant::now() < end, "{}", self.explain());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn explain(&self) -> String {
        let args = ["-n", &self.namespace, "describe", "pods"];
        lab::kubectl(&args).unwrap_or_else(|error| error)
    }
}

impl Relay {
    /// `kdev` as the administrator through `door`, by this relay alone.
    pub(crate) fn kdev(&self, door: &str) -> Command {
        let mut command = program::kdev("admin", door);
        command
            .args(["-n", &self.namespace])
            .env("KDEV_VIA", "relay");
        command
    }

    /// The same, over `carrier` alone.
    pub(crate) fn kdev_over(&self, door: &str, carrier: Carrier) -> Command {
        let mut command = self.kdev(door);
        command.env("KDEV_CARRIER", carrier.id());
        command
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = lab::kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// Tunnels to a relay from this process.
pub(crate) struct Tunnels {
    pub(crate) pool: Pool,
    pods: PortForward,
    tasks: Tasks,
}

impl Tunnels {
    /// Tunnels to both replicas.
    pub(crate) async fn open(relay: &Relay, door: &str, carrier: Option<Carrier>) -> Self {
        let tasks = Tasks::new();
        let options = KubeOptions {
            namespace: Some(relay.namespace.clone()),
            ..lab::options("admin", door)
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

    pub(crate) async fn close(self) {
        self.pool.close(Duration::from_secs(2)).await;
        self.pods.close(Duration::from_secs(1)).await;
        self.tasks.shutdown(Duration::ZERO).await;
    }
}

/// The relay of this checkout as an image of the lab, named by what it is: others may have theirs.
fn image() -> String {
    let program = lab::script("relay", &[]).unwrap();
    let program = std::path::Path::new(program.trim());
    let image = format!(
        "kdev-lab/{}:1",
        program.file_name().unwrap().to_str().unwrap()
    );
    let root = tempfile::tempdir().unwrap();
    std::fs::copy(program, root.path().join("kdev-relay")).unwrap();
    let folder = root.path().to_str().unwrap();
    lab::script("image", &[&image, folder, "/kdev-relay"]).unwrap();
    image
}

/// What `kdev install` makes of an image.
fn manifest(namespace: &str, image: &str) -> String {
    let key = |byte: u8| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode([byte; 32])
    };
    format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{namespace: {namespace}, name: kdev-relay}}
data: {{key: {forward}}}
---
apiVersion: v1
kind: Secret
metadata: {{namespace: {namespace}, name: kdev-relay-intercept}}
data: {{key: {intercept}}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  namespace: {namespace}
  name: kdev-relay
  labels: {{app.kubernetes.io/name: kdev-relay, app.kubernetes.io/managed-by: kdev}}
spec:
  replicas: 2
  selector:
    matchLabels: {{app.kubernetes.io/name: kdev-relay}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: kdev-relay, app.kubernetes.io/managed-by: kdev}}
    spec:
      automountServiceAccountToken: false
      securityContext: {{runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532}}
      containers:
      - name: relay
        image: docker.io/{image}
        imagePullPolicy: Never
        env:
        - {{name: KDEV_POD_TUNNEL, value: "0.0.0.0:7001"}}
        ports:
        - {{name: pod-tunnel, containerPort: 7001}}
        resources:
          requests: {{cpu: 10m, memory: 16Mi}}
          limits: {{memory: 128Mi}}
        readinessProbe:
          httpGet: {{path: /readyz, port: 20600}}
          periodSeconds: 1
          failureThreshold: 2
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {{drop: [ALL]}}
        volumeMounts:
        - {{name: forward, mountPath: /var/run/secrets/kdev/forward, readOnly: true}}
        - {{name: intercept, mountPath: /var/run/secrets/kdev/intercept, readOnly: true}}
      volumes:
      - name: forward
        secret: {{secretName: kdev-relay}}
      - name: intercept
        secret: {{secretName: kdev-relay-intercept}}
"#,
        forward = key(1),
        intercept = key(2),
    )
}
