//! The laptop, the objects, and the programs that ask.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{self, Only};
use crate::program::{Done, Running, finish, kdev};

/// Where kdev listens, and a resolver of a laptop: the C library knows port 53 only.
pub(crate) const KDEV: &str = "127.0.0.77";
const LAPTOP: &str = "127.0.0.78";
/// How long objects of a scenario may take to be there, and gone.
const SETTLE: Duration = Duration::from_secs(60);

/// A headless Service with host names, and aliases.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: kdev-dns, namespace: shop}
spec: {clusterIP: None, selector: {app: kdev-dns}, ports: [{name: sleep, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: kdev-dns, namespace: shop}
spec:
  serviceName: kdev-dns
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: kdev-dns}}
  template:
    metadata: {labels: {app: kdev-dns}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      containers:
        - {name: sleep, image: "kdev-lab/server:1", imagePullPolicy: Never, command: [busybox, sleep, "1000000"]}
---
apiVersion: v1
kind: Service
metadata: {name: kdev-dns-alias, namespace: shop}
spec: {type: ExternalName, externalName: wiki.corp.example}
"#;

/// The objects in the cluster; removed when this is dropped.
pub(crate) struct Objects {
    file: tempfile::NamedTempFile,
    _only: Only,
}

impl Objects {
    pub(crate) fn create() -> Self {
        let (file, only) = (
            tempfile::NamedTempFile::new().unwrap(),
            Only::one("dns-objects"),
        );
        std::fs::write(file.path(), OBJECTS).unwrap();
        let objects = Self { file, _only: only };
        lab::kubectl(&["apply", "-f", objects.path()]).unwrap();
        let begun = Instant::now();
        while lab::ready_pods("kdev-dns").len() != 2 {
            assert!(begun.elapsed() < SETTLE, "the pods are not ready");
            std::thread::sleep(Duration::from_millis(200));
        }
        objects
    }

    fn path(&self) -> &str {
        self.file.path().to_str().unwrap()
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        if let Err(error) =
            lab::kubectl(&["delete", "--wait", "--ignore-not-found", "-f", self.path()])
        {
            eprintln!("{error}");
        }
        let begun = Instant::now();
        while !lab::kubectl(&[
            "-n",
            "shop",
            "get",
            "pods",
            "-l",
            "app=kdev-dns",
            "-o",
            "name",
        ])
        .is_ok_and(|pods| pods.trim().is_empty())
            && begun.elapsed() < SETTLE
        {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The resolver of the laptop, with names that only it has; ends when dropped.
pub(crate) struct Laptop {
    dnsmasq: Child,
    folder: tempfile::TempDir,
    _only: Only,
}

impl Laptop {
    pub(crate) fn start() -> Self {
        let only = Only::one("dns-addresses");
        let long = "x".repeat(250);
        let text = vec![format!("\"{long}\""); 12].join(",");
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--no-resolv",
            ])
            .args([
                "--no-hosts",
                "--bind-interfaces",
                "--user=root",
                "--log-facility=-",
                "--log-queries",
            ])
            .arg(format!("--listen-address={LAPTOP}"))
            .args([
                "--local=/corp.example/",
                "--local=/arpa/",
                "--local=/cluster.local/",
                "--local=/svc/",
            ])
            .arg("--host-record=wiki.corp.example,192.0.2.7,2001:db8::7")
            .arg(format!("--txt-record=long.corp.example,{text}"))
            .stdin(Stdio::null());
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let dnsmasq = dnsmasq.stderr(log).spawn().unwrap();
        let laptop = Self {
            dnsmasq,
            folder,
            _only: only,
        };
        let begun = Instant::now();
        while dig(LAPTOP, &["+short", "wiki.corp.example"]).out != "192.0.2.7\n" {
            assert!(
                begun.elapsed() < SETTLE,
                "the laptop's resolver does not answer"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        laptop
    }

    /// What it was asked and said, among other things.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub(crate) fn resolv_conf(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `kdev connect` on a laptop that has this resolver.
    pub(crate) fn connect(&self, account: &str) -> Running {
        let conf = self.resolv_conf("laptop.conf", &format!("nameserver {LAPTOP}\n"));
        let mut command = kdev(account);
        command.args(["connect", "--json", "--dns-listen", &format!("{KDEV}:53")]);
        Running::start(&mut with_resolv_conf(&conf, &command))
    }
}

impl Drop for Laptop {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.dnsmasq.kill();
        let _ = self.dnsmasq.wait();
    }
}

/// A command that sees `conf` as `/etc/resolv.conf`, alone.
pub(crate) fn with_resolv_conf(conf: &Path, command: &Command) -> Command {
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private", "sh", "-euc"]);
    inside.arg(r#"mount --bind "$0" /etc/resolv.conf; exec "$@""#);
    inside
        .arg(conf)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    inside
}

pub(crate) fn dig(server: &str, args: &[&str]) -> Done {
    let at = format!("@{server}");
    finish(
        Command::new("dig")
            .args([&at, "+time=5", "+tries=2"])
            .args(args),
        b"",
    )
}

/// The lines of `dig +short`, sorted.
pub(crate) fn short(server: &str, args: &[&str]) -> Vec<String> {
    let out = dig(server, &[&["+short"], args].concat()).ok();
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

pub(crate) fn getent(conf: &Path, args: &[&str]) -> Done {
    finish(
        &mut with_resolv_conf(conf, Command::new("getent").args(args)),
        b"",
    )
}

pub(crate) fn addresses(of: &Done) -> Vec<String> {
    let first = of
        .out
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let mut first: Vec<String> = first.map(str::to_owned).collect();
    first.sort();
    first.dedup();
    first
}

/// The address that the pods have as their resolver.
pub(crate) fn own_server() -> String {
    let pod = lab::ready_pods("peer").remove(0);
    let conf = lab::kubectl(&[
        "-n",
        "shop",
        "exec",
        &pod,
        "--",
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ])
    .unwrap();
    let server = conf
        .lines()
        .find_map(|line| line.strip_prefix("nameserver "));
    server.expect("pods have a resolver").trim().to_owned()
}

/// Looks again until it is as it should be, or too late: the cluster's own DNS is a second behind.
pub(crate) fn until<T>(look: impl Fn() -> T, good: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let found = look();
        if good(&found) || begun.elapsed() > Duration::from_secs(10) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
