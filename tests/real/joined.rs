//! `kdev run -- docker run` with a companion: containers whose programs know no proxy.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::installed::RELAY;
use crate::lab::{self, Container, Network, TOOLS};
use crate::program::{Done, finish, kdev_binary};

/// How long what ends may take on a busy machine.
const GONE_LIMIT: Duration = Duration::from_secs(40);

/// A folder with kdev and the program for companions, as a release has them.
pub(crate) struct Laptop(tempfile::TempDir);

impl Laptop {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(kdev_binary(), folder.path().join("kdev")).unwrap();
        let machine = if cfg!(target_arch = "x86_64") {
            "amd64"
        } else {
            "arm64"
        };
        let program = folder.path().join(format!("kdev-relay-{machine}"));
        std::fs::copy(&*RELAY, program).unwrap();
        Self(folder)
    }

    /// `kdev run FLAGS -- docker run ARGS`, captured or not at all.
    fn docker(&self, flags: &[&str], args: &[&str]) -> Command {
        let mut command = self.run_of(flags);
        command
            .args(["docker", "run", "--pull", "never"])
            .args(args);
        command
    }

    /// `kdev run FLAGS --`, captured or not at all.
    pub(crate) fn run_of(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(self.0.path().join("kdev"));
        command
            .env_remove("KUBECONFIG")
            .env("KDEV_CAPTURE", "on")
            .env("XDG_CACHE_HOME", "/dev/null/cache")
            .arg("--kubeconfig")
            .arg(lab::kubeconfig("dev"))
            .args(["run", "-n", "shop"])
            .args(flags)
            .arg("--")
            .stdin(Stdio::null());
        command
    }

    /// Runs `command` in a container of the default network to its end.
    fn run(&self, command: &[&str]) -> Done {
        finish(
            &mut self.docker(&["-q"], &[&["--rm", TOOLS], command].concat()),
            b"",
        )
    }
}

const PYTHON: &str = "import urllib.request; print(urllib.request.urlopen('http://web/').read())";

#[test]
#[ignore = "needs the lab"]
fn containers_that_know_no_proxy_see_the_cluster() {
    let laptop = Laptop::new();
    let psql = "postgres://shop:shop@pg.shop:5432/shop";
    let address = lab::field("svc/web", ".spec.clusterIP");
    let url = format!("http://{address}/");
    for (argv, answer) in [
        (&["curl", "-sS", "http://web/"][..], "web-"),
        (
            &["curl", "-sS", "http://web.shop.svc.cluster.local/"],
            "web-",
        ),
        (&["curl", "-sS", &url], "web-"),
        (
            &["psql", psql, "-Atc", "select count(*) from orders"],
            "1000",
        ),
        (&["redis-cli", "-h", "redis", "ping"], "PONG"),
        (&["python3", "-c", PYTHON], "web-"),
    ] {
        let done = laptop.run(argv);
        assert!(
            done.code == 0 && done.out.contains(answer),
            "{argv:?}: {done:?}"
        );
    }
    let variables = laptop.run(&["env"]).ok();
    assert!(!variables.to_lowercase().contains("proxy"), "{variables}");
    assert_eq!(laptop.run(&["sh", "-c", "exit 7"]).code, 7);
    // Refused as without kdev where it is not the cluster's, and reset where it is.
    let closed = laptop.run(&["curl", "-sS", "-m", "20", "http://closed.shop/"]);
    assert!(closed.code == 56 && closed.out.is_empty(), "{closed:?}");
    let nobody = laptop.run(&["curl", "-sS", "http://nobody-has-this.shop/"]);
    assert_eq!(nobody.code, 6, "{nobody:?}");
}

/// A container that says who came to its port 80.
fn server(name: &str, network: &str) -> Container {
    let container = Container::name(name);
    let script = "import http.server as h
class S(h.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'own ' + self.client_address[0].encode())
h.HTTPServer(('', 80), S).serve_forever()";
    let args = [
        "run",
        "-d",
        "--pull",
        "never",
        "--name",
        &container.0,
        "--network",
        network,
        "--network-alias",
        "redis",
        TOOLS,
        "python3",
        "-c",
        script,
    ];
    lab::docker(&args).unwrap();
    container
}

#[test]
#[ignore = "needs the lab"]
fn the_users_network_is_as_without_kdev() {
    let laptop = Laptop::new();
    let network = Network::create();
    let neighbour = server("neighbour", &network.0);
    let name = Container::name("joined");
    let url = format!("http://{}/", neighbour.0);
    let script = format!(
        "hostname; curl -sS --retry 9 --retry-all-errors {url}; echo; curl -sS http://redis/; echo; \
         curl -sS http://web.shop/; exec python3 -m http.server 8080"
    );
    let published = "127.0.0.1:18099:8080";
    let args = [
        "--rm",
        "--name",
        &name.0,
        "--hostname",
        "box",
        "--network",
        &network.0,
        "-p",
        published,
        TOOLS,
        "sh",
        "-c",
        &script,
    ];
    let mut kdev = laptop.docker(&["-q"], &args);
    let mut kdev = kdev.stdout(Stdio::piped()).spawn().unwrap();
    // From this machine by the published port, and from its neighbour by its name.
    let ask = |command: &mut Command| {
        let until = Instant::now() + GONE_LIMIT;
        loop {
            let done = finish(command, b"");
            if done.code == 0 {
                return done.out;
            }
            assert!(Instant::now() < until, "{command:?}: {done:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let from_here = ask(Command::new("curl").args(["-sS", "-m", "3", "http://127.0.0.1:18099/"]));
    assert!(from_here.contains("Directory listing"), "{from_here}");
    let by_name = format!("http://{}:8080/", name.0);
    let from_there = ask(Command::new("docker").args([
        "exec",
        &neighbour.0,
        "curl",
        "-sS",
        "-m",
        "3",
        &by_name,
    ]));
    assert!(from_there.contains("Directory listing"), "{from_there}");
    lab::docker(&["rm", "-f", &name.0]).unwrap();
    kdev.wait().unwrap();
    let mut out = String::new();
    std::io::Read::read_to_string(&mut kdev.stdout.take().unwrap(), &mut out).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    let subnet = lab::docker(&[
        "network",
        "inspect",
        "--format",
        "{{(index .IPAM.Config 0).Subnet}}",
        &network.0,
    ]);
    let prefix = subnet
        .unwrap()
        .split('.')
        .take(2)
        .collect::<Vec<_>>()
        .join(".");
    assert_eq!(lines[0], "box", "{out}");
    // Its own address, and the network's `redis` before the cluster's.
    for line in &lines[1..3] {
        assert!(line.starts_with(&format!("own {prefix}.")), "{out}");
    }
    assert!(lines[3].starts_with("web-"), "{out}");
}

#[test]
#[ignore = "needs the lab"]
fn what_is_not_the_clusters_goes_past_kdev() {
    let laptop = Laptop::new();
    let other = Network::create();
    let format = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway = lab::docker(&["network", "inspect", "--format", format, &other.0]).unwrap();
    // This machine at another network's address: neither the cluster's nor the container's neighbour.
    let listener = std::net::TcpListener::bind((gateway.trim(), 0)).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let caller = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, peer) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\npast").unwrap();
        peer.ip().to_string()
    });
    assert_eq!(laptop.run(&["curl", "-sS", "-m", "20", &url]).ok(), "past");
    let caller = caller.join().unwrap();
    assert!(caller.starts_with("172."), "{caller}");
    // This machine's loopback only where that was asked for.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // What is unread when it is closed makes that a reset.
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhome").unwrap();
        }
    });
    let url = format!("http://host.kdev.internal:{port}/");
    let args = ["--rm", TOOLS, "curl", "-sS", "-m", "20", "--http0.9", &url];
    let refused = finish(&mut laptop.docker(&["-q"], &args), b"");
    assert_ne!(refused.code, 0, "{refused:?}");
    let done = finish(&mut laptop.docker(&["-q", "--host-loopback"], &args), b"");
    assert_eq!(done.ok(), "home");
}

/// What is there of a container and of the companion that the kdev with that process id made.
fn containers(name: &str, pid: u32) -> String {
    let all = lab::docker(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).unwrap();
    let companion = format!("kdev-{pid}-");
    let its = |line: &&str| line.starts_with(name) || line.starts_with(&companion);
    all.lines().filter(its).collect::<Vec<_>>().join("\n")
}

fn until_gone(name: &str, pid: u32, when: &str) {
    let until = Instant::now() + GONE_LIMIT;
    loop {
        let left = containers(name, pid);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "{when}: {left}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_kill_leaves_no_container() {
    let laptop = Laptop::new();
    // From before anything is made to after the container has begun, which may be later on a busy
    // machine; so the last time is when it has seen the cluster.
    let delays = [0, 60, 240, 540, 960, 1500].map(Duration::from_millis);
    for (round, delay) in delays.into_iter().map(Some).chain([None]).enumerate() {
        let name = Container::name("killed");
        let script = "trap exit TERM; curl -sS --retry 9 http://web/; sleep 300 & wait";
        let args = ["--rm", "--name", &name.0, TOOLS, "sh", "-c", script];
        let mut command = laptop.docker(&["-q"], &args);
        let mut kdev = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        match delay {
            Some(delay) => std::thread::sleep(delay),
            None => {
                let mut first = [0; 4];
                let out = kdev.stdout.as_mut().unwrap();
                std::io::Read::read_exact(out, &mut first).unwrap();
                assert_eq!(&first, b"web-");
            }
        }
        kdev.kill().unwrap();
        kdev.wait().unwrap();
        until_gone(&name.0, kdev.id(), &format!("round {round}"));
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_detached_container_keeps_its_network_and_the_way_is_made_anew() {
    let laptop = Laptop::new();
    let name = Container::name("stays");
    let script = "while :; do curl -sS -m 3 http://web/ || echo none; sleep 0.3; done";
    let args = ["-d", "--name", &name.0, TOOLS, "sh", "-c", script];
    let mut command = laptop.docker(&["-q"], &args);
    let mut kdev = command.stdout(Stdio::null()).spawn().unwrap();
    let last = |count: usize| {
        let log = lab::docker(&["logs", "--tail", &count.to_string(), &name.0]);
        log.unwrap_or_default()
    };
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let limit = Instant::now() + GONE_LIMIT;
        while !is_so() {
            assert!(Instant::now() < limit, "{what}: {}", last(5));
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let answers = || {
        let some = last(3);
        some.lines().count() == 3 && some.lines().all(|line| line.starts_with("web-"))
    };
    until("no answers", &answers);
    // The engine's process that carries the way.
    let parent = kdev.id().to_string();
    let killed = Command::new("pkill")
        .args(["-KILL", "-P", &parent, "-f", "start -a -i"])
        .status();
    assert!(killed.unwrap().success());
    let exec = ["-P", &parent, "-f", "kdev-companion companion"];
    let another = || {
        Command::new("pgrep")
            .args(exec)
            .output()
            .unwrap()
            .status
            .success()
    };
    until("no other way", &another);
    // What comes from now on comes by that one.
    let lines = || lab::docker(&["logs", &name.0]).unwrap().lines().count();
    let before = lines();
    until("no answers any more", &|| lines() > before + 3 && answers());
    // Without kdev it goes on, and has its own network still.
    let end = Command::new("kill").args(["-INT", &parent]).status();
    assert!(end.unwrap().success());
    kdev.wait().unwrap();
    until("answers without kdev", &|| last(1).starts_with("none"));
    let format = "{{.State.Running}}";
    assert_eq!(
        lab::docker(&["inspect", "--format", format, &name.0])
            .unwrap()
            .trim(),
        "true"
    );
    lab::docker(&["rm", "-f", &name.0]).unwrap();
    until_gone(&name.0, kdev.id(), "after its end");
}

/// The folder of a release, for other scenarios.
pub(crate) fn release() -> (tempfile::TempDir, PathBuf) {
    let Laptop(folder) = Laptop::new();
    let program = folder.path().join("kdev");
    (folder, program)
}
