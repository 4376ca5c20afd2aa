//! A current kubectl against the simulation. Where there is none, that is said and nothing else.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kdev_sim::SimCluster;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::{shop, within};

/// kubectl with a kubeconfig and a home of its own.
struct Kubectl {
    home: PathBuf,
}

impl Kubectl {
    /// `None` when it is not installed.
    fn for_user(cluster: &SimCluster, user: &str, name: &str) -> Option<Self> {
        let installed = std::process::Command::new("kubectl")
            .args(["version", "--client"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !installed.is_ok_and(|status| status.success()) {
            println!("SKIPPED: kubectl-against-simulation: kubectl not installed");
            return None;
        }
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&home).unwrap();
        cluster
            .write_kubeconfig(&home.join("config"), user, "shop")
            .unwrap();
        Some(Self { home })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(words)
            .env("KUBECONFIG", self.home.join("config"))
            .env("HOME", &self.home)
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Output and errors of a run, and whether it succeeded.
    async fn run(&self, words: &[&str]) -> (bool, String) {
        let output = within(self.command(words).output()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

#[tokio::test]
async fn it_gets_what_is_there() {
    let cluster = shop().await;
    let Some(kubectl) = Kubectl::for_user(&cluster, "admin", "kubectl-get") else {
        return;
    };
    let (ok, text) = kubectl.run(&["get", "pods,svc", "-n", "shop"]).await;
    assert!(ok, "{text}");
    for name in ["pod/web-1", "pod/redis-0", "service/web", "service/legacy"] {
        assert!(text.contains(name), "{text}");
    }
    let (ok, text) = kubectl
        .run(&["get", "endpointslices", "-A", "-o", "json"])
        .await;
    assert!(ok, "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 7);
    let (ok, text) = kubectl.run(&["get", "pod", "nobody"]).await;
    assert!(!ok);
    assert!(text.contains("pods \"nobody\" not found"), "{text}");
    let (ok, text) = kubectl
        .run(&[
            "wait",
            "--for=condition=Ready",
            "pod/web-1",
            "--timeout=10s",
        ])
        .await;
    assert!(ok && text.contains("condition met"), "{text}");
}

#[tokio::test]
async fn it_is_told_what_it_may_do() {
    let cluster = shop().await;
    let Some(kubectl) = Kubectl::for_user(&cluster, "viewer", "kubectl-can-i") else {
        return;
    };
    let (ok, text) = kubectl.run(&["auth", "can-i", "get", "pods"]).await;
    assert!(ok && text.starts_with("yes"), "{text}");
    let (ok, text) = kubectl
        .run(&["auth", "can-i", "create", "pods/portforward"])
        .await;
    assert!(!ok && text.starts_with("no"), "{text}");
    let (ok, text) = kubectl.run(&["auth", "can-i", "--list"]).await;
    assert!(ok && text.contains("endpointslices"), "{text}");
    let (ok, text) = kubectl.run(&["port-forward", "pod/web-1", ":8080"]).await;
    assert!(
        !ok && text.contains("cannot create resource \"pods/portforward\""),
        "{text}"
    );
}

#[tokio::test]
async fn it_may_come_with_a_certificate() {
    let cluster = shop().await;
    let Some(kubectl) = Kubectl::for_user(&cluster, "viewer", "kubectl-certificate") else {
        return;
    };
    let config = cluster
        .kubeconfig_with_certificate("viewer", "shop")
        .unwrap();
    std::fs::write(kubectl.home.join("config"), config).unwrap();
    let (ok, text) = kubectl.run(&["get", "pods", "--watch=false"]).await;
    assert!(ok && text.contains("web-1"), "{text}");
    let (ok, text) = kubectl.run(&["get", "namespaces"]).await;
    assert!(
        !ok && text.contains("User \"viewer\" cannot list"),
        "{text}"
    );
}

#[tokio::test]
async fn it_forwards_ports_over_websockets_and_without() {
    let cluster = shop().await;
    let Some(kubectl) = Kubectl::for_user(&cluster, "dev", "kubectl-forward") else {
        return;
    };
    for (websockets, form) in [
        ("true", kdev_sim::Form::Tunnel),
        ("false", kdev_sim::Form::Spdy),
    ] {
        let mut forward = kubectl
            .command(&["port-forward", "--address=127.0.0.1", "svc/web", ":80"])
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
        let line = within(lines.next_line()).await.unwrap().expect("a line");
        let port: u16 = line.split([':', ' ']).nth(3).unwrap().parse().unwrap();
        for _ in 0..2 {
            assert!(fetch(port).await.contains("hello from web-"));
        }
        forward.kill().await.unwrap();
        assert_eq!(
            cluster.counts().upgrades.get(&form),
            Some(&1),
            "{websockets}"
        );
    }
}

async fn fetch(port: u16) -> String {
    within(async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    })
    .await
}
