//! Two Services over the same pods, one of which is intercepted, and the relay that does it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::Running;

/// Where all of it is.
pub(crate) const NAMESPACE: &str = "bench-intercept";

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders}
spec:
  replicas: 2
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      containers:
        - name: nginx
          image: kdev-lab/server:1
          imagePullPolicy: Never
          command: [nginx, -c, /etc/nginx-lab.conf]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
          volumeMounts: [{name: files, mountPath: /srv/files, readOnly: true}]
      volumes:
        - {name: files, hostPath: {path: "@FILES@", type: Directory}}
---
apiVersion: v1
kind: Service
metadata: {name: orders}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: without}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: 8080}]
"#;

/// Gone when dropped.
pub(crate) struct Stage {
    kubeconfig: PathBuf,
    /// The Service that is intercepted, and the one that is not.
    pub(crate) orders: SocketAddr,
    pub(crate) without: SocketAddr,
}

impl Stage {
    pub(crate) fn set_up(kubeconfig: &Path) -> Self {
        let mut stage = Self {
            kubeconfig: kubeconfig.to_owned(),
            orders: ([0; 4], 0).into(),
            without: ([0; 4], 0).into(),
        };
        stage.kubectl(&["create", "namespace", NAMESPACE]);
        // Its pods read a folder of the node.
        let privileged = "pod-security.kubernetes.io/enforce=privileged";
        stage.kubectl(&["label", "namespace", NAMESPACE, privileged]);
        let files = "jsonpath={.spec.hostPath.path}";
        let files = stage.kubectl(&["get", "persistentvolume/kdev-lab-files", "-o", files]);
        let mut manifest = tempfile::NamedTempFile::new().unwrap();
        let text = MANIFEST.replace("@FILES@", &files);
        manifest.write_all(text.as_bytes()).unwrap();
        let manifest = manifest.path().to_str().unwrap();
        stage.kubectl(&["-n", NAMESPACE, "apply", "-f", manifest]);
        let binary = std::env::var("KDEV_RELAY_BINARY")
            .expect("KDEV_RELAY_BINARY: a static relay, as cluster/lab/relay builds it");
        let install = ["install", "--base-image", "kdev-lab/busybox:1"];
        let installed = stage
            .kdev()
            .args(install)
            .args(["--relay-binary", &binary])
            .stdout(Stdio::null())
            .status();
        assert!(installed.unwrap().success(), "kdev install failed");
        let rollout = ["rollout", "status", "deployment/orders", "--timeout=90s"];
        stage.kubectl(&[&["-n", NAMESPACE][..], &rollout].concat());
        stage.orders = stage.address("orders");
        stage.without = stage.address("without");
        stage
    }

    fn address(&self, service: &str) -> SocketAddr {
        let ip = "jsonpath={.spec.clusterIP}";
        let ip = self.kubectl(&["-n", NAMESPACE, "get", "service", service, "-o", ip]);
        (ip.parse::<std::net::IpAddr>().unwrap(), 80).into()
    }

    /// Intercepts requests with `condition` for `app`, until what it returns is stopped.
    pub(crate) async fn intercept(
        &self,
        kubeconfig: &Path,
        app: SocketAddr,
        condition: &str,
    ) -> Running {
        let mut command = Running::kdev(kubeconfig);
        command.args(["-n", NAMESPACE, "intercept", "orders", "--quiet", "--json"]);
        command.args(["--to", &app.port().to_string(), "--header", condition]);
        Running::start(command, |line| {
            let said: serde_json::Value = serde_json::from_str(line).ok()?;
            (said["event"] == "live").then_some(app)
        })
        .await
    }

    /// The relay's port that the intercepted Service leads to.
    pub(crate) fn landing(&self) -> u16 {
        let output = self.kdev().args(["list", "--json"]).output().unwrap();
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let port = all[0]["ports"][0]["relay_port"].as_u64();
        port.and_then(|p| p.try_into().ok())
            .unwrap_or_else(|| panic!("no port of the relay in {all}"))
    }

    /// CPU seconds of all processes of this relay so far: pods are processes of this machine.
    pub(crate) fn relay_cpu(&self) -> f64 {
        let uids = "jsonpath={.items[*].metadata.uid}";
        let select = "app.kubernetes.io/name=kdev-relay";
        let uids = self.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", select, "-o", uids]);
        let uids: Vec<String> = uids
            .split_whitespace()
            // The kubelet's systemd driver writes them with `_`.
            .flat_map(|uid| [uid.to_owned(), uid.replace('-', "_")])
            .collect();
        let mut ticks = 0;
        let mut processes = 0;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |file| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            let (comm, cgroup) = (read("comm"), read("cgroup"));
            if comm.trim() != "kdev-relay" || !uids.iter().any(|uid| cgroup.contains(uid)) {
                continue;
            }
            let stat = read("stat");
            // The name in parentheses may hold anything; utime and stime are the 12th and 13th after.
            let after = stat.rsplit(')').next().unwrap_or_default();
            let fields = after.split_whitespace().skip(11).take(2);
            ticks += fields.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
            processes += 1;
        }
        assert!(processes >= 2, "two replicas, found {processes} processes");
        // USER_HZ, which Linux shows to every program as 100.
        ticks as f64 / 100.0
    }

    fn kdev(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kdev"));
        command.args(["--kubeconfig".as_ref(), self.kubeconfig.as_os_str()]);
        command.args(["-n", NAMESPACE]);
        command
    }

    fn kubectl(&self, words: &[&str]) -> String {
        let output = Command::new("kubectl")
            .args(["--kubeconfig".as_ref(), self.kubeconfig.as_os_str()])
            .args(words)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        // A namespace that is left from a broken run is as good; what is missing shows later.
        if !output.status.success() {
            eprintln!("kubectl {} failed", words.join(" "));
        }
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kubectl(&["delete", "namespace", NAMESPACE]);
    }
}
