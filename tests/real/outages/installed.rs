//! A relay that kdev installed, in a namespace of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hyper::Request;
use kdev::k8s::Client;
use kdev::task::Tasks;

use crate::lab;
use crate::program::{Running, finish, kdev, kdev_with};

/// How long pods may take to start, or a component to be back.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The relay's program, as `cluster/lab/relay` builds it.
fn relay_binary() -> std::ffi::OsString {
    std::env::var_os("KDEV_RELAY_BINARY").expect("cluster/lab/test sets KDEV_RELAY_BINARY")
}

/// An installed relay; its namespace goes when this is dropped.
pub(super) struct Installed {
    namespace: String,
}

impl Installed {
    pub(super) fn new(namespace: &str) -> Self {
        let _ = lab::kubectl(&["delete", "namespace", namespace]);
        lab::kubectl(&["create", "namespace", namespace]).unwrap();
        let relay = Self {
            namespace: namespace.to_owned(),
        };
        let mut command = relay.kdev();
        command.args(["install", "--base-image", "kdev-lab/busybox:1"]);
        command.arg("--relay-binary").arg(relay_binary());
        finish(&mut command, b"").ok();
        relay
    }

    /// Rolls all its pods, to another build of the relay.
    pub(super) async fn upgrade(&self) {
        let mut binary = std::fs::read(relay_binary()).unwrap();
        // What stands behind a program's last section is nobody's.
        binary.extend(std::process::id().to_string().bytes());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), binary).unwrap();
        let mut command = self.kdev();
        command.args(["upgrade", "--relay-binary"]).arg(file.path());
        let rolling = tokio::task::spawn_blocking(move || finish(&mut command, b"").ok());
        println!("{}", rolling.await.unwrap());
    }

    fn kdev(&self) -> Command {
        let mut command = kdev("admin", "api");
        command.args(["-n", &self.namespace]);
        command
    }

    /// `kdev connect` with a kubeconfig, by this relay and no other way.
    pub(super) fn connect_with(&self, kubeconfig: &Path) -> Command {
        let mut command = kdev_with(kubeconfig);
        command.args(["-n", &self.namespace, "connect", "--json", "--via", "relay"]);
        command
    }

    /// Ready pods, and no others that are about to end.
    fn pods(&self) -> Result<Vec<String>, String> {
        let wanted = r#"{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
        let path = format!("jsonpath={wanted}");
        let list = lab::kubectl(&[
            "-n",
            &self.namespace,
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=kdev-relay",
            "-o",
            &path,
        ]);
        let list = list?;
        let ready = list.lines().filter_map(|line| line.strip_suffix("  True"));
        Ok(ready.map(str::to_owned).collect())
    }

    /// Ends one pod at once, as a node does that fails.
    pub(super) fn kill_a_pod(&self) {
        let pod = self.pods().unwrap().remove(0);
        let now = ["delete", "pod", &pod, "--grace-period=0", "--force"];
        lab::kubectl(&[&["-n", &self.namespace][..], &now].concat()).unwrap();
    }

    /// When somebody who comes anew can open a port-forward to the relay through every door.
    pub(super) async fn back(&self) -> Instant {
        for door in lab::doors() {
            self.wait_for_port_forward(&door).await;
        }
        Instant::now()
    }

    async fn wait_for_port_forward(&self, door: &str) {
        let end = Instant::now() + START_LIMIT;
        let mut pod = None;
        loop {
            if pod.is_none() {
                pod = self.pods().ok().and_then(|pods| pods.into_iter().next());
            }
            if let Some(pod) = &pod
                && self.port_forward(door, pod).await
            {
                return;
            }
            assert!(Instant::now() < end, "{door} is not back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn port_forward(&self, door: &str, pod: &str) -> bool {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{pod}/portforward",
            self.namespace
        );
        let asked = tokio::time::timeout(Duration::from_secs(1), async {
            let tasks = Tasks::new();
            let client = Client::connect(lab::options("admin", door), &tasks).await;
            let upgrade = Request::post(path)
                .header("Connection", "Upgrade")
                .header("Upgrade", "SPDY/3.1")
                .header("X-Stream-Protocol-Version", "portforward.k8s.io")
                .body(())
                .unwrap();
            match client {
                Ok(client) => client.upgrade(upgrade).await.is_ok(),
                Err(_) => false,
            }
        });
        asked.await.unwrap_or(false)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(error) = lab::kubectl(&["delete", "namespace", &self.namespace, "--wait=false"])
        {
            eprintln!("{error}");
        }
    }
}

/// `kdev connect` through `door`, by the relay.
pub(super) fn connect(relay: &Installed, door: &str) -> Running {
    Running::start(&mut relay.connect_with(&lab::kubeconfig("admin", door)))
}
