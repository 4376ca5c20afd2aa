//! Where the lab is, and what a scenario does to it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use kdev::k8s::KubeOptions;
use serde_json::Value;

/// The name of the pods' image in Docker: curl, psql, redis-cli, socat, python3, busybox.
pub(crate) const TOOLS: &str = "kdev-lab/tools:1";

/// How long a container may still be there that removes itself.
const REMOVED: Duration = Duration::from_secs(10);
/// How long the shop may take to be as it was.
const SETTLE: Duration = Duration::from_secs(120);

/// The kubeconfig of the account `name`.
pub(crate) fn kubeconfig(name: &str) -> PathBuf {
    let state = std::env::var_os("KDEV_LAB_STATE").expect("cluster/lab/env sets KDEV_LAB_STATE");
    PathBuf::from(state)
        .join("kubeconfig")
        .join(format!("{name}.kubeconfig"))
}

/// Options for the account `name`.
pub(crate) fn options(name: &str) -> KubeOptions {
    KubeOptions {
        kubeconfig: Some(kubeconfig(name)),
        ..KubeOptions::default()
    }
}

/// The minor version of the lab's Kubernetes 1: 37 unless `KDEV_LAB_KUBE` says otherwise.
pub(crate) fn kube() -> u32 {
    let version = std::env::var("KDEV_LAB_KUBE").unwrap_or_else(|_| "1.37".to_owned());
    let minor = version
        .strip_prefix("1.")
        .and_then(|v| v.split('.').next()?.parse().ok());
    minor.unwrap_or_else(|| panic!("KDEV_LAB_KUBE={version} is no version such as 1.37"))
}

/// Whether the cluster is older than `minor` and so lacks what a scenario is about; says `why` it is skipped.
pub(crate) fn older_than(minor: u32, why: &str) -> bool {
    let older = kube() < minor;
    if older {
        println!("SKIPPED: old-kubernetes: {why}");
    }
    older
}

/// Whether the API server asks for the verb `create` on every port-forward: since 1.35 (feature
/// `AuthorizePodWebsocketUpgradeCreatePermission`). Before, `get` was enough for a WebSocket.
pub(crate) fn asks_for_create() -> bool {
    kube() >= 35
}

/// Whether the API server takes SPDY inside a WebSocket: since 1.31 (feature
/// `PortForwardWebsockets`).
pub(crate) fn tunnels_spdy() -> bool {
    kube() >= 31
}

/// Whether this is the full run, where scenarios wait as long as users do.
pub(crate) fn full() -> bool {
    std::env::var_os("KDEV_LAB_FULL").is_some_and(|how| !how.is_empty())
}

/// What an account that may not see who is behind a Service without a selector is told: since 1.21 that is
/// in EndpointSlices.
pub(crate) fn no_endpoints() -> &'static str {
    if kube() >= 21 {
        "not allowed to list endpointslices.discovery.k8s.io in namespace shop"
    } else {
        "not allowed to get endpoints in namespace shop"
    }
}

/// Something that is there once for all scenarios: who else wants it, in this process or another, waits
/// until this is dropped.
pub(crate) struct Only {
    /// Its lock ends with it.
    _file: std::fs::File,
}

impl Only {
    pub(crate) fn one(what: &str) -> Self {
        let state =
            std::env::var_os("KDEV_LAB_STATE").expect("cluster/lab/env sets KDEV_LAB_STATE");
        let path = PathBuf::from(state).join(format!("only-{what}"));
        let file = std::fs::File::create(path).unwrap();
        file.lock().unwrap();
        Self { _file: file }
    }
}

/// Runs a program to its end; `Err` has what it said.
fn run(command: &mut Command) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{command:?}: {e}"))?;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    if status.success() {
        Ok(text)
    } else {
        let said = String::from_utf8_lossy(&stderr);
        Err(format!("{command:?}: {status}: {text}{said}"))
    }
}

/// `kubectl` as whoever its arguments say.
pub(crate) fn run_kubectl(args: &[&str]) -> Result<String, String> {
    run(Command::new("kubectl").args(args))
}

/// `kubectl` as the administrator.
pub(crate) fn kubectl(args: &[&str]) -> Result<String, String> {
    let admin = kubeconfig("admin");
    run_kubectl(&[&["--kubeconfig", admin.to_str().unwrap()], args].concat())
}

/// `kubectl` as the administrator, with an object to read.
pub(crate) fn apply(object: &str) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, object.as_bytes()).unwrap();
    kubectl(&["apply", "-f", file.path().to_str().unwrap()]).unwrap();
}

/// A script of some lines.
pub(crate) fn shell(script: &str) -> Result<String, String> {
    run(Command::new("sh").args(["-c", script]))
}

/// `docker`, with the engine that `DOCKER_HOST` names.
pub(crate) fn docker(args: &[&str]) -> Result<String, String> {
    run(Command::new("docker").args(args))
}

/// Waits until no container is left that all of these filters mean; each removes itself soon.
pub(crate) fn await_no_container(filters: &[&str]) {
    let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
    let all: Vec<&str> = ["ps", "--all", "--quiet"]
        .into_iter()
        .chain(filters)
        .collect();
    let begun = Instant::now();
    while docker(&all).unwrap() != "" {
        assert!(begun.elapsed() < REMOVED, "it is not removed");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A script of `cluster/lab`.
pub(crate) fn script(name: &str, args: &[&str]) -> Result<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/lab");
    run(Command::new(PathBuf::from(path).join(name)).args(args))
}

/// `cluster/lab/ctl`: stops, kills, starts a component.
pub(crate) fn ctl(verb: &str, component: &str) {
    script("ctl", &[verb, component]).unwrap();
}

/// Names of the pods with a label (`KEY=VALUE`) that are ready and not about to end.
pub(crate) fn ready(namespace: &str, label: &str) -> Result<Vec<String>, String> {
    let wanted = r#"jsonpath={range .items[*]}{.metadata.name} {.metadata.deletionTimestamp} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let list = kubectl(&["-n", namespace, "get", "pods", "-l", label, "-o", wanted])?;
    let pods = list.lines().filter_map(|line| line.strip_suffix("  True"));
    Ok(pods.map(str::to_owned).collect())
}

/// Those of shop's `app`.
pub(crate) fn ready_pods(app: &str) -> Vec<String> {
    ready("shop", &format!("app={app}")).unwrap()
}

/// A field of an object in `shop`, by its JSON path.
pub(crate) fn field(object: &str, path: &str) -> String {
    let path = format!("jsonpath={{{path}}}");
    kubectl(&["-n", "shop", "get", object, "-o", &path]).unwrap()
}

/// The address of one pod of shop's `app`, with its name.
pub(crate) fn pod_address(app: &str) -> (String, String) {
    let name = ready_pods(app).into_iter().next().expect("a ready pod");
    let ip = field(&format!("pod/{name}"), ".status.podIP");
    (name, ip)
}

/// Waits until the shop is as `cluster/lab/shop` left it: all pods ready, and no other about to
/// end. After a restart of the kubelet, for example, none is ready until it was probed again.
pub(crate) fn settle() {
    let end = Instant::now() + SETTLE;
    let all = |app| {
        let label = format!("app={app}");
        kubectl(&["-n", "shop", "get", "pods", "-l", &label, "-o", "name"]).unwrap()
    };
    for (app, replicas) in [
        ("web", 4),
        ("pg", 1),
        ("redis", 1),
        ("peer", 1),
        ("named", 3),
    ] {
        while ready_pods(app).len() != replicas || all(app).lines().count() != replicas {
            assert!(Instant::now() < end, "{app} did not settle: {}", all(app));
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// A component that is away, or may be: it is brought back by the verb `again` when this is
/// dropped, so that a scenario that fails leaves a lab that works.
pub(crate) struct Fault {
    pub(crate) component: &'static str,
    pub(crate) again: &'static str,
}

impl Drop for Fault {
    fn drop(&mut self) {
        // There already is fine too; what else fails shows in the next scenario.
        if let Err(error) = script("ctl", &[self.again, self.component]) {
            eprintln!("cannot {} {}: {error}", self.again, self.component);
        }
    }
}

/// A container, by its name; removed when this is dropped.
pub(crate) struct Container(pub(crate) String);

impl Container {
    /// A name that nothing else has.
    pub(crate) fn name(what: &str) -> Self {
        Self(unique(what))
    }

    /// Starts `command` in a container of the default network.
    pub(crate) fn start(what: &str, command: &[&str]) -> Self {
        let container = Self::name(what);
        let flags = [
            "run",
            "-d",
            "--pull",
            "never",
            "--name",
            &container.0,
            TOOLS,
        ];
        docker(&[&flags, command].concat()).unwrap();
        container
    }

    /// Its address in the default network.
    pub(crate) fn address(&self) -> String {
        let format = "{{.NetworkSettings.IPAddress}}";
        let address = docker(&["inspect", "--format", format, &self.0]).unwrap();
        address.trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(&["rm", "-f", &self.0]);
    }
}

/// A Docker network; removed when this is dropped.
pub(crate) struct Network(pub(crate) String);

impl Network {
    pub(crate) fn create() -> Self {
        let name = unique("net");
        docker(&["network", "create", &name]).unwrap();
        Self(name)
    }

    /// Its bridge.
    pub(crate) fn interface(&self) -> String {
        let id = docker(&["network", "inspect", "--format", "{{.Id}}", &self.0]).unwrap();
        format!("br-{}", &id[..12])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = docker(&["network", "rm", &self.0]);
    }
}

/// An object outside of all namespaces; deleted when this is dropped.
pub(crate) struct Global(String);

impl Global {
    pub(crate) fn apply(object: &Value) -> Self {
        apply(&object.to_string());
        let text = |field: &str| object.pointer(field).and_then(Value::as_str).unwrap();
        let kind = text("/kind").to_lowercase();
        Self(format!("{kind}/{}", text("/metadata/name")))
    }
}

impl Drop for Global {
    fn drop(&mut self) {
        if let Err(error) = kubectl(&["delete", "--ignore-not-found", &self.0]) {
            eprintln!("cannot clean up {}: {error}", self.0);
        }
    }
}

/// Packets that the node drops, as a firewall or a network policy would, until this is dropped.
pub(crate) struct Blocked(Vec<String>);

impl Blocked {
    /// What comes from one of `addresses` and is as `rest` says, in iptables' words.
    pub(crate) fn from(addresses: &[String], rest: &str) -> Self {
        let rules = addresses
            .iter()
            .map(|address| format!("FORWARD -s {address} -p tcp {rest} -j DROP"));
        let blocked = Self(rules.collect());
        blocked.change("-I").unwrap();
        blocked
    }

    fn change(&self, verb: &str) -> Result<(), String> {
        self.0.iter().try_for_each(|rule| {
            let rule: Vec<&str> = rule.split(' ').collect();
            script("node", &[&["iptables", "-w", verb], &rule[..]].concat()).map(drop)
        })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Err(error) = self.change("-D") {
            eprintln!("packets stay blocked: {error}");
        }
    }
}

/// A firewall of the laptop that lets nothing in from an interface, until this is dropped. In a table of
/// its own, before the filters of others.
pub(crate) struct Firewall(String);

impl Firewall {
    /// `verdict` is what becomes of the connections: `drop` or `reject`.
    pub(crate) fn on(interface: &str, verdict: &str) -> Self {
        // A name that `cluster/lab/leftovers` finds.
        let table = format!("kdev-lab-{}", unique("firewall"));
        let chain = "type filter hook input priority filter - 10;";
        let rule = format!("iifname {interface} meta l4proto tcp ct state new {verdict}");
        let script = format!("nft 'table inet {table} {{ chain input {{ {chain} {rule}; }}; }}'");
        shell(&script).unwrap();
        Self(table)
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        if let Err(error) = shell(&format!("nft delete table inet {}", self.0)) {
            eprintln!("the firewall stays: {error}");
        }
    }
}

/// A name that nothing else has.
pub(crate) fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("kdev-real-{what}-{}-{count}", std::process::id())
}
