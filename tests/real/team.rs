//! A namespace with a team's Services in it, and a relay that an editor installed.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::callers::{Load, Manner, PLAIN};
use crate::install::Place;
use crate::lab;

/// Web servers, and a Service of each kind over them.
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
      securityContext: {runAsNonRoot: true, runAsUser: 33, seccompProfile: {type: RuntimeDefault}}
      terminationGracePeriodSeconds: 10
      containers:
        - name: nginx
          image: kdev-lab/server:1
          imagePullPolicy: Never
          command: [nginx, -c, /etc/nginx-lab.conf]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
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
pub(crate) struct Team {
    pub(crate) place: Place,
}

impl Team {
    /// With the Services put there on the server's side, or as `kubectl apply` does by itself.
    pub(crate) fn set_up(what: &str, server_side: bool) -> Self {
        let place = Place::new(what);
        let file = manifest();
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
        place.install(&[]).ok();
        place.site.await_relays(2);
        let rollout = ["rollout", "status", "deployment/orders", "--timeout=90s"];
        place.site.kubectl(&rollout).unwrap();
        Self { place }
    }

    /// All objects that an intercept could have touched, without what counts changes.
    pub(crate) fn objects(&self) -> Vec<Value> {
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
            if item["metadata"]["name"] == "kdev-relay-ports" {
                return json!({"labels": item["metadata"]["labels"]});
            }
            // Who watches over its pods writes down when it did.
            if item["metadata"]["name"] == "kdev-relay" && item["kind"] == "Deployment" {
                return json!({"spec": item["spec"], "labels": item["metadata"]["labels"]});
            }
            // Who counts pods writes down when it did.
            if let Some(fields) = item["metadata"]["managedFields"].as_array_mut() {
                fields.retain(|entry| entry["manager"] != "kube-controller-manager");
            }
            item.as_object_mut().unwrap().remove("status");
            item
        });
        described.collect()
    }

    /// Has so many pods behind `orders`, and waits until they are ready.
    pub(crate) fn scale(&self, pods: usize) {
        let scale = ["scale", "deployment/orders", &format!("--replicas={pods}")];
        self.place.site.kubectl(&scale).unwrap();
        let rollout = ["rollout", "status", "deployment/orders", "--timeout=90s"];
        self.place.site.kubectl(&rollout).unwrap();
    }

    /// Where a Service is in the cluster.
    pub(crate) fn address(&self, service: &str) -> String {
        self.place
            .site
            .field(&format!("service/{service}"), ".spec.clusterIP")
    }

    /// Callers of a Service with nothing special about them.
    pub(crate) fn load(&self, service: &str) -> Load {
        self.load_of(service, &PLAIN)
    }

    pub(crate) fn load_of(&self, service: &str, manners: &[Manner]) -> Load {
        Load::start(&self.address(service), 80, manners)
    }

    /// Requests and other connections that the relay's pods took from callers so far.
    pub(crate) fn inbound(&self) -> u64 {
        let of = |ip: &String| {
            let url = format!("http://{ip}:20600/metrics");
            let page = lab::script("node", &["curl", "-sS", "-m", "5", &url]).unwrap();
            let count = |kind: &str| {
                let name = format!("kdev_relay_{kind}_total ");
                let count = page.lines().find_map(|line| line.strip_prefix(&name));
                count
                    .unwrap_or_else(|| panic!("{page}"))
                    .parse::<u64>()
                    .unwrap()
            };
            count("requests") + count("inbound_connections")
        };
        self.place.site.relay_addresses().iter().map(of).sum()
    }
}

/// The team's manifest as a file.
pub(crate) fn manifest() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(SHOP.as_bytes()).unwrap();
    file
}
