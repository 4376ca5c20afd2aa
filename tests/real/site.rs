//! A namespace of a scenario's own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::lab;

/// The Secret that admits forward tunnels, and the one that admits reverse tunnels.
pub(crate) const SECRETS: [&str; 2] = ["kdev-relay", "kdev-relay-intercept"];
/// The relay's image in the lab: repository and tag.
pub(crate) const IMAGE: [&str; 2] = ["kdev-lab/relay", "1"];
/// How long pods may take to become ready or to go.
const SETTLE: Duration = Duration::from_secs(90);

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

    /// Puts objects there as the administrator.
    pub(crate) fn apply(&self, objects: &str) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, objects.as_bytes()).unwrap();
        let file = file.path().to_str().unwrap();
        self.kubectl(&["apply", "-f", file]).unwrap();
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
        self.try_relays().unwrap()
    }

    /// The same while the API server may be away.
    pub(crate) fn try_relays(&self) -> Result<Vec<String>, String> {
        lab::ready(&self.0, "app.kubernetes.io/name=kdev-relay")
    }

    /// Waits until `count` relay pods are ready, and gives their names.
    pub(crate) fn await_relays(&self, count: usize) -> Vec<String> {
        self.await_relays_that(|relays| relays.len() == count)
    }

    /// Waits until the relay pods that are ready are as wanted, and gives their names.
    pub(crate) fn await_relays_that(&self, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        self.wait("its relay pods", |site| {
            found = site.relays();
            wanted(&found)
        });
        found
    }

    /// The addresses of its two relay pods, once they are ready.
    pub(crate) fn relay_addresses(&self) -> Vec<String> {
        let pods = self.await_relays(2);
        let address = |pod: &String| self.field(&format!("pod/{pod}"), ".status.podIP");
        pods.iter().map(address).collect()
    }

    pub(crate) fn wait(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
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
        let get = ["get", object, "-o", "json", "--show-managed-fields"];
        let text = self.kubectl(&get).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// A key, as the administrator reads it.
    pub(crate) fn key(&self, secret: &str) -> Vec<u8> {
        let text = self.field(&format!("secret/{secret}"), ".data.key");
        STANDARD.decode(text).unwrap()
    }

    /// Gives `rules` to a subject of a RoleBinding in this namespace.
    pub(crate) fn allow(&self, name: &str, rules: &Value, subject: &Value) {
        let group = "rbac.authorization.k8s.io";
        let api = format!("{group}/v1");
        let metadata = serde_json::json!({"name": name, "namespace": self.0});
        let both = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": rules},
            {
                "apiVersion": api,
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [subject],
            },
        ]});
        self.apply(&both.to_string());
    }

    /// An account of this namespace as a subject.
    pub(crate) fn subject(&self, account: &Account) -> Value {
        serde_json::json!({"kind": "ServiceAccount", "namespace": self.0, "name": account.0})
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

/// A service account of a [`Site`]; its kubeconfig is removed when this is dropped.
pub(crate) struct Account(pub(crate) String);

impl Account {
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        lab::kubeconfig(&self.0)
    }

    /// Whether Kubernetes lets it.
    pub(crate) fn may(&self, args: &[&str]) -> bool {
        let file = self.kubeconfig();
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
        let _ = std::fs::remove_file(self.kubeconfig());
    }
}
