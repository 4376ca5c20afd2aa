//! A namespace with a team's Services in it, a relay that an editor installed, and callers.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kdev::intercept::{Claim, Judge, Verdict, Wanted};
use kdev::k8s::portforward::{KnownForm, PortForward};
use kdev::k8s::redirect::{Redirector, through_tunnels};
use kdev::k8s::{Client, KubeOptions};
use kdev::task::Tasks;
use serde_json::{Value, json};

use crate::install::Place;
use crate::lab;

/// Two web servers, and a Service of each kind over them.
const SHOP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders}
spec:
  replicas: 2
  selector: {matchLabels: {app: orders}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: orders, tier: front}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 10
      containers:
        - name: nginx
          image: kdev-lab/server:1
          imagePullPolicy: Never
          command: [nginx, -c, /etc/nginx-lab.conf]
          ports:
            - {name: http, containerPort: 8080}
            - {name: admin, containerPort: 8081}
          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1, failureThreshold: 1}
          lifecycle: {preStop: {exec: {command: [sleep, "3"]}}}
---
apiVersion: v1
kind: Service
metadata: {name: orders, labels: {team: a}, annotations: {note: b}}
spec:
  type: NodePort
  selector: {app: orders}
  ports:
    - {name: http, port: 80, protocol: TCP, targetPort: http}
    - {name: same, port: 8080, protocol: TCP, targetPort: 8080}
    - {name: admin, port: 9090, protocol: TCP, targetPort: 8081}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec:
  type: LoadBalancer
  selector: {app: orders, tier: front}
  publishNotReadyAddresses: true
  ports:
    - {port: 80, protocol: TCP, targetPort: 8080}
"#;

/// A namespace where a team and an editor with a relay work.
pub(super) struct Stage {
    pub(super) place: Place,
    pub(super) client: Client,
    pods: PortForward,
    pub(super) tasks: Tasks,
}

impl Stage {
    /// With the Services put there on the server's side, or as `kubectl apply` does by itself.
    pub(super) async fn set_up(what: &str, door: &str, server_side: bool) -> Self {
        let place = Place::new(what);
        let file = manifest(SHOP);
        let file = file.path().to_str().unwrap();
        match server_side {
            true => {
                place
                    .site
                    .kubectl(&["apply", "--server-side", "--field-manager=team", "-f", file])
            }
            false => place.site.kubectl(&["apply", "-f", file]),
        }
        .unwrap();
        place.install(door, &[]).ok();
        place.site.await_relays(2);
        let rollout = ["rollout", "status", "deployment/orders", "--timeout=90s"];
        place.site.kubectl(&rollout).unwrap();
        let tasks = Tasks::new();
        let options = KubeOptions {
            kubeconfig: Some(place.account.kubeconfig(door)),
            ..KubeOptions::default()
        };
        let client = Client::connect(options, &tasks).await.unwrap();
        let pods = PortForward::new(client.clone(), KnownForm::default());
        Self {
            place,
            client,
            pods,
            tasks,
        }
    }

    /// As one more kdev.
    pub(super) fn redirector(&self) -> Redirector {
        let namespace = &self.place.site.0;
        let ask = through_tunnels(&self.client, &self.pods, namespace);
        Redirector::new(&self.client, namespace, ask, &self.tasks)
    }

    /// The manifest of this stage as a file.
    pub(super) fn manifest() -> tempfile::NamedTempFile {
        manifest(SHOP)
    }

    /// All objects that an intercept could have touched, without what counts changes.
    pub(super) fn objects(&self) -> Vec<Value> {
        let all = self
            .place
            .site
            .object("services,deployments,configmaps,secrets");
        let items = all["items"].as_array().unwrap().iter();
        let described = items.map(|item| {
            let mut item = item.clone();
            let metadata = item["metadata"].as_object_mut().unwrap();
            for field in ["resourceVersion", "generation"] {
                metadata.remove(field);
            }
            // Whose the relay's ports were stands there for an hour.
            if item["metadata"]["name"] == "kdev-relay" && item["kind"] == "Deployment" {
                return json!({"spec": item["spec"], "labels": item["metadata"]["labels"]});
            }
            item.as_object_mut().unwrap().remove("status");
            item
        });
        described.collect()
    }

    /// Callers of a Service, from the cluster's side.
    pub(super) fn load(&self, service: &str) -> Load {
        let address = self
            .place
            .site
            .field(&format!("service/{service}"), ".spec.clusterIP");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/redirect/load.py");
        let node = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/lab/node");
        let child = Command::new(node)
            .args(["python3", script, &address, "80"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Load(child)
    }

    /// Connections that the relay's pods took from callers so far.
    pub(super) fn inbound(&self) -> u64 {
        let pods = self.place.site.await_relays(2);
        let of = |pod: &String| {
            let ip = self
                .place
                .site
                .field(&format!("pod/{pod}"), ".status.podIP");
            let url = format!("http://{ip}:20600/metrics");
            let page = lab::script("node", &["curl", "-sS", "-m", "5", &url]).unwrap();
            let count = page.lines().find_map(|line| {
                line.strip_prefix("kdev_relay_inbound_connections_total ")?
                    .parse::<u64>()
                    .ok()
            });
            count.unwrap_or_else(|| panic!("{page}"))
        };
        pods.iter().map(of).sum()
    }

    pub(super) async fn close(self) {
        self.pods.close(std::time::Duration::from_secs(1)).await;
        self.tasks.shutdown(std::time::Duration::from_secs(1)).await;
    }
}

fn manifest(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Callers at work.
pub(super) struct Load(Child);

impl Load {
    /// Has them stop, and tells what came of it.
    pub(super) fn stop(mut self) -> Value {
        drop(self.0.stdin.take());
        let mut out = String::new();
        std::io::Read::read_to_string(self.0.stdout.as_mut().unwrap(), &mut out).unwrap();
        self.0.wait().unwrap();
        let said: Value = serde_json::from_str(&out).unwrap();
        println!("callers: {said}");
        said
    }

    /// Has them stop, and is sure that nothing failed.
    pub(super) fn sound(self) -> Value {
        let said = self.stop();
        assert_eq!(said["errors"], json!([]), "{said}");
        assert!(
            said["fresh"].as_u64() > Some(100) && said["kept"].as_u64() > Some(60),
            "{said}"
        );
        said
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// A claim that gets along with all others.
pub(super) fn wanted(service: &str, id: &str) -> Wanted {
    judged(service, id, Arc::new(|_, _| Verdict::Admitted))
}

/// A claim that gets along with nobody.
pub(super) fn alone(service: &str, id: &str) -> Wanted {
    let judge: Judge = Arc::new(|others, _| match others.first() {
        None => Verdict::Admitted,
        Some(other) => Verdict::Conflict(format!("{} has it", other.owner)),
    });
    judged(service, id, judge)
}

fn judged(service: &str, id: &str, judge: Judge) -> Wanted {
    let claim: Claim =
        serde_json::from_value(json!({"id": id, "owner": format!("owner of {id}")})).unwrap();
    Wanted {
        service: service.to_owned(),
        claim,
        judge,
        force: false,
    }
}
