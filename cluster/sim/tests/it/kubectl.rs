//! Every kubectl there is against the simulation: the one in the path, and those in the lab's cache: of the
//! lab's own Kubernetes, and of Debian releases, by `cluster/lab/kubectls`. Where there is none, that is
//! said and nothing else.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kdev_sim::SimCluster;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::{shop, within};

/// kubectl with a kubeconfig and a home of its own.
#[derive(Debug)]
struct Kubectl {
    program: PathBuf,
    /// Its minor version.
    minor: u32,
    home: PathBuf,
}

/// First minor version with port-forward over WebSockets, on by default from 1.31 on.
const WEBSOCKETS: u32 = 30;

/// The programs to test.
fn programs() -> Vec<PathBuf> {
    let cache = std::env::var_os("KDEV_LAB_CACHE").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let root = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, |dir| Some(dir.into()));
    let cache = cache.or_else(|| Some(root?.join("kdev-lab")));
    let fetched = cache.as_ref();
    let fetched = fetched.and_then(|cache| cache.join("kubectl").read_dir().ok());
    let fetched = fetched.into_iter().flatten().flatten();
    let mut fetched: Vec<PathBuf> = fetched.map(|dir| dir.path().join("kubectl")).collect();
    fetched.sort();
    let own = cache.map(|cache| cache.join("bin/kubectl"));
    let in_path = PathBuf::from("kubectl");
    std::iter::once(in_path).chain(own).chain(fetched).collect()
}

/// The minor version of a program; `None` when it does not run.
fn minor(program: &Path) -> Option<u32> {
    let output = std::process::Command::new(program)
        .args(["version", "--client", "-o", "json"])
        .stderr(Stdio::null())
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    let version: Value = serde_json::from_slice(&output.stdout).ok()?;
    let minor = version["clientVersion"]["minor"].as_str()?;
    minor.trim_end_matches('+').parse().ok()
}

impl Kubectl {
    /// One for each program that is installed; `name` is the test's.
    fn all(cluster: &SimCluster, user: &str, name: &str) -> Vec<Self> {
        let programs = programs().into_iter();
        let all: Vec<Self> = programs
            .filter_map(|program| Some((minor(&program)?, program)))
            .enumerate()
            .map(|(number, (minor, program))| {
                let home = format!("{name}-{number}");
                let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(home);
                std::fs::create_dir_all(&home).unwrap();
                cluster
                    .write_kubeconfig(&home.join("config"), user, "shop")
                    .unwrap();
                println!("{}: 1.{minor}", program.display());
                Self {
                    program,
                    minor,
                    home,
                }
            })
            .collect();
        if all.is_empty() {
            println!("SKIPPED: kubectl-against-simulation: kubectl not installed");
        }
        all
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
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
    for kubectl in Kubectl::all(&cluster, "admin", "kubectl-get") {
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
        let ready = ["wait", "--for=condition=Ready", "pod/web-1"];
        let (ok, text) = kubectl
            .run(&[&ready[..], &["--timeout=10s"]].concat())
            .await;
        assert!(ok && text.contains("condition met"), "{text}");
    }
}

#[tokio::test]
async fn it_is_told_what_it_may_do() {
    let cluster = shop().await;
    for kubectl in Kubectl::all(&cluster, "viewer", "kubectl-can-i") {
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
}

#[tokio::test]
async fn it_may_come_with_a_certificate() {
    let cluster = shop().await;
    for kubectl in Kubectl::all(&cluster, "viewer", "kubectl-certificate") {
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
}

#[tokio::test]
async fn it_forwards_ports_over_websockets_and_without() {
    let cluster = shop().await;
    let mut used = std::collections::BTreeMap::new();
    for kubectl in Kubectl::all(&cluster, "dev", "kubectl-forward") {
        for websockets in [true, false] {
            let form = if websockets && kubectl.minor >= WEBSOCKETS {
                kdev_sim::Form::Tunnel
            } else {
                kdev_sim::Form::Spdy
            };
            let mut forward = kubectl
                .command(&["port-forward", "--address=127.0.0.1", "svc/web", ":80"])
                .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string())
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
            *used.entry(form).or_default() += 1;
            assert_eq!(cluster.counts().upgrades, used, "{kubectl:?}");
        }
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
