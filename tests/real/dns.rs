//! The DNS server of `connect`, asked by `dig` and by the C library, beside the cluster's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab;
use crate::program::{Done, Running, finish, kdev};

/// Where kdev listens, and a resolver of a laptop: the C library knows port 53 only.
const KDEV: &str = "127.0.0.77";
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
struct Objects(tempfile::NamedTempFile);

impl Objects {
    fn create() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), OBJECTS).unwrap();
        let objects = Self(file);
        lab::kubectl(&["apply", "-f", objects.path()]).unwrap();
        let begun = Instant::now();
        while lab::ready_pods("kdev-dns").len() != 2 {
            assert!(begun.elapsed() < SETTLE, "the pods are not ready");
            std::thread::sleep(Duration::from_millis(200));
        }
        objects
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
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
struct Laptop {
    dnsmasq: Child,
    folder: tempfile::TempDir,
}

impl Laptop {
    fn start() -> Self {
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
        let laptop = Self { dnsmasq, folder };
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
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn resolv_conf(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `kdev connect` on a laptop that has this resolver.
    fn connect(&self, account: &str, door: &str) -> Running {
        let conf = self.resolv_conf("laptop.conf", &format!("nameserver {LAPTOP}\n"));
        let mut command = kdev(account, door);
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
fn with_resolv_conf(conf: &Path, command: &Command) -> Command {
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

fn dig(server: &str, args: &[&str]) -> Done {
    let at = format!("@{server}");
    finish(
        Command::new("dig")
            .args([&at, "+time=5", "+tries=2"])
            .args(args),
        b"",
    )
}

/// The lines of `dig +short`, sorted.
fn short(server: &str, args: &[&str]) -> Vec<String> {
    let out = dig(server, &[&["+short"], args].concat()).ok();
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn getent(conf: &Path, args: &[&str]) -> Done {
    finish(
        &mut with_resolv_conf(conf, Command::new("getent").args(args)),
        b"",
    )
}

fn addresses(of: &Done) -> Vec<String> {
    let first = of
        .out
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let mut first: Vec<String> = first.map(str::to_owned).collect();
    first.sort();
    first.dedup();
    first
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn dig_gets_what_the_clusters_own_dns_says() {
    let _objects = Objects::create();
    let laptop = Laptop::start();
    let own = own_server();
    let set =
        ["kdev-dns-0", "kdev-dns-1"].map(|pod| lab::field(&format!("pod/{pod}"), ".status.podIP"));
    for door in lab::doors() {
        let connect = laptop.connect("dev", &door);
        let services = lab::kubectl(&["-n", "shop", "get", "services", "-o", "name"]).unwrap();
        let mut compared = 0;
        for service in services
            .lines()
            .filter_map(|line| line.strip_prefix("service/"))
        {
            let name = format!("{service}.shop.svc.cluster.local");
            // Written from Endpoints, which lack what a user without them cannot see either.
            if ["manual", "external", "kdev-dns-alias"].contains(&service) {
                continue;
            }
            let expected = until(
                || short(&own, &[&name]),
                |found| service == "nobody" || !found.is_empty(),
            );
            assert_eq!(
                until(|| short(KDEV, &[&name]), |found| *found == expected),
                expected,
                "{door} {name}"
            );
            assert_eq!(short(KDEV, &["AAAA", &name]), [""; 0], "{door} {name}");
            compared += 1;
        }
        assert!(compared >= 10, "{compared}");
        for (host, ip) in ["kdev-dns-0", "kdev-dns-1"].iter().zip(&set) {
            let name = format!("{host}.kdev-dns.shop.svc.cluster.local");
            let expected = until(|| short(&own, &[&name]), |found| !found.is_empty());
            assert_eq!(expected, [ip.as_str()], "the cluster's own");
            assert_eq!(short(KDEV, &[&name]), expected, "{door} {name}");
            assert_eq!(short(KDEV, &["-x", ip]), [format!("{name}.")], "{door}");
        }
        let cluster_ip = lab::field("service/web", ".spec.clusterIP");
        assert_eq!(
            short(KDEV, &["-x", &cluster_ip]),
            ["web.shop.svc.cluster.local."],
            "{door}"
        );
        assert_eq!(
            short(
                KDEV,
                &["SRV", "_sleep._tcp.kdev-dns.shop.svc.cluster.local"]
            ),
            ["0", "1"].map(|n| format!("0 50 8080 kdev-dns-{n}.kdev-dns.shop.svc.cluster.local.")),
            "{door}"
        );
        assert_eq!(
            short(KDEV, &["TXT", "dns-version.cluster.local"]),
            ["\"1.1.0\""]
        );
        for (name, status) in [
            ("nope.shop.svc.cluster.local", "NXDOMAIN"),
            ("shop.svc.cluster.local", "NOERROR"),
            ("cluster.local", "NOERROR"),
        ] {
            for server in [&["+notcp"][..], &["+tcp"], &["+noedns"]] {
                let said = dig(KDEV, &[server, &[name]].concat()).ok();
                assert!(
                    said.contains(&format!("status: {status}")),
                    "{door} {name}: {said}"
                );
                assert!(said.contains("SOA"), "{door} {name}: {said}");
            }
        }
        connect.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn everything_else_comes_from_the_laptops_resolver() {
    let _objects = Objects::create();
    let laptop = Laptop::start();
    for door in lab::doors() {
        let connect = laptop.connect("dev", &door);
        assert_eq!(short(KDEV, &["wiki.corp.example"]), ["192.0.2.7"], "{door}");
        assert_eq!(
            short(KDEV, &["AAAA", "wiki.corp.example"]),
            ["2001:db8::7"],
            "{door}"
        );
        assert_eq!(
            short(KDEV, &["+tcp", "wiki.corp.example"]),
            ["192.0.2.7"],
            "{door}"
        );
        assert_eq!(
            short(KDEV, &["-x", "192.0.2.7"]),
            ["wiki.corp.example."],
            "{door}"
        );
        // Longer than a datagram: dig is told, and comes again by TCP.
        let long = dig(KDEV, &["+bufsize=1232", "TXT", "long.corp.example"]).ok();
        assert!(
            long.contains("TCP") && long.matches("xxx").count() > 12 * 80,
            "{door}: {long}"
        );
        let said = dig(KDEV, &["nope.corp.example"]).ok();
        assert!(said.contains("status: NXDOMAIN"), "{door}: {said}");
        assert_eq!(
            short(KDEV, &["kdev-dns-alias.shop.svc.cluster.local"]),
            ["192.0.2.7", "wiki.corp.example."],
            "{door}"
        );
        connect.stop();
    }
    for asked in laptop.log().lines().filter(|line| line.contains("query[")) {
        for private in ["cluster.local", "kdev-dns", "shop"] {
            assert!(
                !asked.contains(private),
                "the laptop's resolver heard: {asked}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn the_c_library_finds_names_on_a_laptop_and_with_a_pods_search_list() {
    let laptop = Laptop::start();
    let plain = laptop.resolv_conf("plain.conf", &format!("nameserver {KDEV}\n"));
    let pod = laptop.resolv_conf(
        "pod.conf",
        &format!("nameserver {KDEV}\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"),
    );
    let cluster_ip = lab::field("service/web", ".spec.clusterIP");
    let pods: Vec<String> = {
        let ips = lab::ready_pods("web").into_iter();
        let mut ips: Vec<String> = ips
            .map(|pod| lab::field(&format!("pod/{pod}"), ".status.podIP"))
            .collect();
        ips.sort();
        ips
    };
    for door in lab::doors() {
        let connect = laptop.connect("dev", &door);
        for conf in [&plain, &pod] {
            for name in [
                "web",
                "web.shop",
                "web.shop.svc",
                "web.shop.svc.cluster.local",
                "web.shop.svc.cluster.local.",
            ] {
                for database in ["hosts", "ahosts", "ahostsv4"] {
                    let found = getent(conf, &[database, name]);
                    assert_eq!(
                        addresses(&found),
                        [cluster_ip.as_str()],
                        "{door} {conf:?} {database} {name}: {found:?}"
                    );
                }
                // Nobody there has IPv6, and that is known at once.
                let found = getent(conf, &["ahostsv6", name]);
                assert!(!found.out.contains("2001:"), "{door} {name}: {found:?}");
            }
            let found = getent(conf, &["ahosts", "web-headless.shop.svc.cluster.local"]);
            assert_eq!(addresses(&found), pods, "{door}: {found:?}");
            let found = getent(conf, &["ahosts", "wiki.corp.example"]);
            assert_eq!(
                addresses(&found),
                ["192.0.2.7", "2001:db8::7"],
                "{door}: {found:?}"
            );
            let found = getent(conf, &["hosts", &cluster_ip]);
            assert!(
                found.out.contains("web.shop.svc.cluster.local"),
                "{door}: {found:?}"
            );
            for name in ["nope.shop.svc.cluster.local", "nope.corp.example"] {
                // 2: not found (getent(1)).
                assert_eq!(getent(conf, &["hosts", name]).code, 2, "{door} {name}");
            }
        }
        connect.stop();
    }
}

/// The address that the pods have as their resolver.
fn own_server() -> String {
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
fn until<T>(look: impl Fn() -> T, good: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let found = look();
        if good(&found) || begun.elapsed() > Duration::from_secs(10) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
