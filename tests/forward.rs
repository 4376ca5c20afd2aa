//! `kdev forward` in all the forms that users write, against the simulated cluster.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use kdev_sim::{Options, Pod, Rule, Service, SimCluster, User, shop};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

/// Longer than any of these commands takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    cluster: SimCluster,
    folder: tempfile::TempDir,
}

/// A `kdev forward` that listens.
struct Running {
    child: Child,
    ports: Vec<Value>,
}

impl Running {
    fn local(&self, at: usize) -> SocketAddr {
        self.ports[at]["local"].as_str().unwrap().parse().unwrap()
    }

    fn target(&self, at: usize) -> &str {
        self.ports[at]["target"].as_str().unwrap()
    }

    /// The first line on its stderr.
    async fn said(&mut self) -> String {
        let mut line = String::new();
        let mut said: BufReader<ChildStderr> = BufReader::new(self.child.stderr.take().unwrap());
        let read = tokio::time::timeout(PATIENCE, said.read_line(&mut line)).await;
        read.expect("it says nothing").unwrap();
        line
    }
}

impl Stage {
    async fn set_up() -> Self {
        let cluster = SimCluster::start(Options::default()).await.unwrap();
        shop::furnish(&cluster);
        // A Deployment over the pods of `web` as they are, and a StatefulSet over that of redis.
        for (resource, kind, name, selector) in [
            (
                "statefulsets",
                "StatefulSet",
                "store",
                json!({"matchLabels": {"app": "redis"}}),
            ),
            (
                "statefulsets",
                "StatefulSet",
                "front",
                json!({"matchExpressions": [
                    {"key": "app", "operator": "In", "values": ["web", "other"]},
                    {"key": "retired", "operator": "DoesNotExist"},
                ]}),
            ),
            (
                "statefulsets",
                "StatefulSet",
                "empty",
                json!({"matchLabels": {"app": "nobody"}}),
            ),
        ] {
            cluster.put_object(
                resource,
                json!({
                    "apiVersion": "apps/v1", "kind": kind,
                    "metadata": {"name": name, "namespace": "shop"},
                    "spec": {"replicas": 0, "selector": selector, "template": {}},
                }),
            );
        }
        let folder = tempfile::tempdir().unwrap();
        // Who may not watch, and asks for what is dialled.
        let narrow = User::new("narrow").rules([
            Rule::new(&["get"], &["pods", "services", "statefulsets"]).namespace("shop"),
            Rule::new(&["list"], &["pods"]).namespace("shop"),
            Rule::new(&["create"], &["pods/portforward"]).namespace("shop"),
        ]);
        cluster.add_user(narrow);
        let blind = User::new("blind").rules([
            Rule::new(&["get"], &["services"]).namespace("shop"),
            Rule::new(&["create"], &["pods/portforward"]).namespace("shop"),
        ]);
        cluster.add_user(blind);
        // Each may see all, and forward with these verbs.
        let sees = Rule::new(
            &["get", "list", "watch"],
            &["pods", "services", "endpointslices"],
        );
        let verbs: [(&str, &[&str]); 3] = [
            ("looks", &[]),
            ("creates", &["create"]),
            ("both", &["get", "create"]),
        ];
        for (name, verbs) in verbs {
            let forwards = Rule::new(verbs, &["pods/portforward"]).namespace("shop");
            let rules = [sees.clone().namespace("shop"), forwards];
            cluster.add_user(User::new(name).rules(rules));
        }
        for user in ["dev", "narrow", "blind", "looks", "creates", "both"] {
            let path = folder.path().join(user);
            cluster.write_kubeconfig(&path, user, "shop").unwrap();
        }
        Self { cluster, folder }
    }

    fn kdev(&self, user: &str, args: &[&str]) -> Command {
        let folder: &Path = self.folder.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kdev"));
        command
            .arg("forward")
            .args(args)
            .env("KUBECONFIG", folder.join(user))
            .env("XDG_RUNTIME_DIR", folder)
            .env("XDG_CACHE_HOME", folder)
            .env("XDG_CONFIG_HOME", folder)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Starts it and waits until its ports are there.
    async fn forward(&self, user: &str, words: &str) -> Running {
        let mut args: Vec<&str> = words.split(' ').collect();
        args.push("--json");
        let mut child = self.kdev(user, &args).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let read = tokio::time::timeout(PATIENCE, out.read_line(&mut line)).await;
        read.expect("it hangs").unwrap();
        if line.is_empty() {
            let output = child.wait_with_output().await.unwrap();
            panic!("{words}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let said: Value = serde_json::from_str(&line).unwrap();
        let ports = said["ports"].as_array().unwrap().clone();
        Running { child, ports }
    }

    /// What it says instead of starting, with its exit code.
    async fn refused(&self, user: &str, words: &str) -> (Option<i32>, String) {
        let args: Vec<&str> = words.split(' ').collect();
        let output = self.kdev(user, &args).output();
        let output: Output = tokio::time::timeout(PATIENCE, output)
            .await
            .unwrap_or_else(|_| panic!("{words} hangs"))
            .unwrap();
        // What is to be done has a line of its own.
        let said = String::from_utf8_lossy(&output.stderr).replace("\n  fix: ", "; ");
        (output.status.code(), said)
    }
}

/// What answers an HTTP request: the pod that it went to says its name.
async fn web(local: SocketAddr) -> String {
    let mut answer = String::new();
    let asking = async {
        let mut stream = TcpStream::connect(local).await?;
        let request = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        stream.read_to_string(&mut answer).await
    };
    // A reset is no answer. It may come before anything was asked.
    let _ = tokio::time::timeout(PATIENCE, asking).await.unwrap();
    answer
}

async fn redis(local: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(local).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.is_ok() && &answer == b"+PONG\r\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_leads_to_its_pods() {
    let stage = Stage::set_up().await;
    for user in ["dev", "narrow"] {
        for (words, target) in [
            ("svc/redis :6379", "redis:6379"),
            ("redis=0", "redis:6379"),
            ("redis.shop :redis", "redis.shop:6379"),
            ("pod/redis-0 :6379", "pod/redis-0:6379"),
            ("pod/redis-0.shop :redis", "pod/redis-0.shop:6379"),
            ("redis-0=0", "redis-0:6379"),
            ("redis-0 :6379", "redis-0:6379"),
            ("statefulset/store :6379", "statefulset/store:6379"),
            ("sts/store=0", "statefulset/store:6379"),
        ] {
            let running = stage.forward(user, words).await;
            assert_eq!(running.target(0), target, "{user}: {words}");
            assert!(redis(running.local(0)).await, "{user}: {words}");
        }
    }
    let running = stage
        .forward("dev", "svc/web :80 :http sts/front :8080")
        .await;
    let targets: Vec<&str> = (0..3).map(|at| running.target(at)).collect();
    assert_eq!(targets, ["web:80", "web:80", "statefulset/front:8080"]);
    for at in 0..3 {
        let answer = web(running.local(at)).await;
        assert!(answer.contains("hello from web-"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workloads_connections_go_to_pods_that_are_ready_then() {
    let stage = Stage::set_up().await;
    for user in ["dev", "narrow"] {
        let running = stage.forward(user, "sts/front :http").await;
        let local = running.local(0);
        let only = |name: &'static str| async move {
            let begun = Instant::now();
            loop {
                let mut answers = Vec::new();
                for _ in 0..4 {
                    answers.push(web(local).await);
                }
                if answers
                    .iter()
                    .all(|a| a.contains(&format!("hello from {name}")))
                {
                    return;
                }
                assert!(begun.elapsed() < PATIENCE, "{user}, {name}: {answers:?}");
            }
        };
        stage.cluster.set_ready("shop", "web-1", false);
        stage.cluster.set_label("shop", "web-3", ("retired", "yes"));
        only("web-2").await;
        stage.cluster.set_ready("shop", "web-1", true);
        stage.cluster.set_ready("shop", "web-2", false);
        only("web-1").await;
        stage.cluster.set_ready("shop", "web-2", true);
        stage.cluster.set_label("shop", "web-3", ("retired", "no"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_nowhere_says_why() {
    let stage = Stage::set_up().await;
    let outside = Service::new("shop", "outside").external_name("example.org");
    stage.cluster.add_service(outside);
    for (user, words, code, says) in [
        (
            "dev",
            "orders",
            1,
            "several ports; say which: orders:PORT, of 80 (http), 9090 (admin)",
        ),
        (
            "dev",
            "svc/orders nosuch",
            1,
            "no port named \"nosuch\", only 80 (http), 9090 (admin)",
        ),
        (
            "dev",
            "outside",
            1,
            "is an alias (ExternalName), which has no port of its own",
        ),
        ("dev", "svc/redis-0", 1, "is not the name of a Service"),
        ("dev", "nosuch", 1, "is not the name of a Service or a pod"),
        ("dev", "nosuch 80", 1, "neither a Service nor a pod"),
        ("dev", "pod/redis-1 80", 1, "did you mean redis-0?"),
        (
            "dev",
            "pod/redis-0 web",
            1,
            "no port named \"web\", only 6379 (redis)",
        ),
        (
            "dev",
            "sts/nosuch 80",
            1,
            "StatefulSet nosuch in namespace shop was not found",
        ),
        ("dev", "sts/empty", 1, "declares no TCP port; say which"),
        ("dev", "echo:7/udp", 1, "and not UDP"),
        ("dev", "web:5300/udp", 1, "port-forward carries TCP alone"),
        ("dev", "web:", 2, "no port from 1 to 65535"),
        (
            "dev",
            "--address 0.0.0.0 svc/web 8080",
            2,
            "`kdev forward SERVICE:PORT=0.0.0.0:PORT`",
        ),
        ("dev", "8080:80", 2, "comes first"),
        ("blind", "pod/redis-0 6379", 1, "not allowed to get pods"),
        (
            "blind",
            "sts/store 6379",
            1,
            "not allowed to get statefulsets.apps",
        ),
    ] {
        let (exit, said) = stage.refused(user, words).await;
        assert_eq!(exit, Some(code), "{words}: {said}");
        assert!(said.contains(says), "{words}: {said}");
    }
    // Pods may come.
    let mut running = stage.forward("dev", "sts/empty :80").await;
    let said = running.said().await;
    assert!(
        said.contains("StatefulSet empty in namespace shop has no ready pod"),
        "{said}"
    );
    let pod = Pod::new("shop", "late").label("app", "nobody").port("", 80);
    let late = |mut io: kdev_sim::SimStream| async move {
        let _ = io.write_all(b"here").await;
    };
    stage.cluster.add_pod(pod.serve(80, late));
    let begun = Instant::now();
    while web(running.local(0)).await != "here" {
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_a_service_does_not_declare_is_said_at_the_start() {
    let stage = Stage::set_up().await;
    for (words, says) in [
        (
            "redis.shop:6380=0",
            "declares no port 6380, only 6379 (redis)",
        ),
        (
            "orders:81=0",
            "declares no port 81, only 80 (http), 9090 (admin)",
        ),
    ] {
        let said = stage.forward("dev", words).await.said().await;
        assert!(said.contains(says), "{words}: {said}");
    }
    // The pods' own port leads there too.
    let mut running = stage.forward("dev", "web:8080=0").await;
    assert!(web(running.local(0)).await.contains("hello from web-"));
    running.child.start_kill().unwrap();
    let output = running.child.wait_with_output().await.unwrap();
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_whose_connections_will_be_refused_is_said_at_the_start() {
    let stage = Stage::set_up().await;
    for who in ["looks", "creates", "both"] {
        let mut running = stage.forward(who, "web:8080=0").await;
        if who == "looks" {
            let said = running.said().await;
            let which = "not allowed to get and create pods/portforward in namespace shop";
            assert!(said.contains(which), "{said}");
        }
        running.child.start_kill().unwrap();
        let output = running.child.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.is_empty(), "{who}: {said}");
    }
}
