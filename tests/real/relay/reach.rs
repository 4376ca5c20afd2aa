//! What a relay reaches and port-forward does not: Services without pods of their own, what
//! listens for pods alone, datagrams, the cluster's DNS.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::UdpSocket;

use super::bridge::Bridge;
use crate::app::{Failure, LIMIT, Way};
use crate::installed::Relay;
use crate::lab;
use crate::program::{Running, finish};

/// How long a new Service may take to be served.
const START: Duration = Duration::from_secs(60);
/// Datagrams are sent again after that, as their programs do.
const RESEND: Duration = Duration::from_secs(2);

/// A relay, and beside it a pod with what `probe.py` serves.
struct Probe {
    relay: Relay,
    /// The pod's address.
    ip: String,
}

impl Probe {
    fn install(name: &str) -> Self {
        lab::settle();
        let relay = super::install(name);
        let namespace = &relay.site.0;
        let script = serde_json::to_string(include_str!("probe.py")).unwrap();
        lab::apply(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{namespace: {namespace}, name: probe, labels: {{app: probe}}}}
spec:
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, runAsUser: 33, seccompProfile: {{type: RuntimeDefault}}}}
  terminationGracePeriodSeconds: 1
  containers:
  - name: probe
    image: kdev-lab/server:1
    imagePullPolicy: Never
    command: [python3, -c, {script}]
    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
    readinessProbe: {{tcpSocket: {{port: 8081}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: probe}}
spec:
  selector: {{app: probe}}
  ports:
  - {{name: echo, port: 7, targetPort: 7000, protocol: UDP}}
  - {{name: dns, port: 53, targetPort: 5300, protocol: UDP}}
  - {{name: dns-tcp, port: 53, targetPort: 5300}}
  - {{name: private, port: 80, targetPort: 8081}}
---
apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: peers}}
spec:
  clusterIP: None
  selector: {{app: probe}}
  ports: [{{port: 8081}}]
---
apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: noselector}}
spec: {{ports: [{{port: 80, targetPort: 8081}}]}}
"#
        ));
        relay.site.wait("the probe", |site| {
            let ready = r#".status.conditions[?(@.type=="Ready")].status"#;
            site.field("pod/probe", ready) == "True"
        });
        let ip = relay.site.field("pod/probe", ".status.podIP");
        // As somebody else would write it: an address, and nothing of a pod.
        lab::apply(&format!(
            r#"
apiVersion: v1
kind: Endpoints
metadata: {{namespace: {namespace}, name: noselector}}
subsets: [{{addresses: [{{ip: {ip}}}], ports: [{{port: 8081}}]}}]
"#
        ));
        Self { relay, ip }
    }

    fn cluster_ip(&self, service: &str) -> String {
        let service = format!("service/{service}");
        self.relay.site.field(&service, ".spec.clusterIP")
    }

    fn connect(&self, more: &[&str]) -> Running {
        Running::start(self.relay.kdev().args(["connect", "--json"]).args(more))
    }
}

/// Waits until the cluster sends connections for `target` on: its Services are newer than the
/// rules of its nodes for a moment.
async fn until_served(way: Way, target: &str) {
    let end = Instant::now() + START;
    loop {
        match greeting(way, target).await {
            Ok(said) if said.starts_with("only pods") => return,
            last => assert!(Instant::now() < end, "{target}: {last:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What the probe says to a caller.
async fn greeting(way: Way, target: &str) -> Result<String, Failure> {
    let mut stream = way.open(target).await?;
    let mut text = String::new();
    match tokio::time::timeout(LIMIT, stream.read_to_string(&mut text)).await {
        Ok(read) => read.map(|_| text).map_err(Failure::from),
        Err(_) => Err(Failure::Timeout),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_relay_reaches_what_pods_reach() {
    let probe = Probe::install("reach");
    let targets = [
        "noselector:80".to_owned(),
        format!("{}:80", probe.cluster_ip("noselector")),
        "probe:80".to_owned(),
        "peers:8081".to_owned(),
        format!("{}:8081", probe.ip),
        format!(
            "{}.{}.pod:8081",
            probe.ip.replace('.', "-"),
            probe.relay.site.0
        ),
    ];
    let connect = probe.connect(&[]);
    let [socks5, http, _] = connect.ways();
    for target in &targets {
        until_served(socks5, target).await;
        for way in [socks5, http] {
            let said = greeting(way, target).await;
            let said = said.unwrap_or_else(|e| panic!("{way:?} {target}: {e}"));
            assert!(
                said.starts_with("only pods, 10."),
                "{way:?} {target}: {said}"
            );
        }
        let done = finish(probe.relay.kdev().args(["resolve", "--json", target]), b"");
        let found = done.json();
        assert_eq!(found["via"], "relay", "{target}: {found}");
    }
    connect.stop();
    // The same without one: there is no way, and that is said.
    let mut direct = probe.relay.kdev();
    direct.env("KDEV_VIA", "direct");
    let direct = Running::start(direct.args(["connect", "--json"]));
    let [socks5, http, _] = direct.ways();
    match http.open("noselector:80").await {
        Err(Failure::Status(502, said)) => {
            assert!(
                said.contains("are not pods") && said.contains("--via direct"),
                "{said}"
            );
        }
        other => panic!("{other:?}"),
    }
    let refused = greeting(socks5, "probe:80").await;
    assert!(
        !refused
            .as_ref()
            .is_ok_and(|said| said.contains("only pods")),
        "{refused:?}"
    );
    direct.stop();
}

/// Sends `payload` to an echo until it comes back.
async fn echoed(bridge: &Bridge, payload: &[u8]) {
    let app = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    app.connect(bridge.address).await.unwrap();
    let mut back = vec![0; 65_536];
    for _ in 0..5 {
        app.send(payload).await.unwrap();
        if let Ok(n) = tokio::time::timeout(RESEND, app.recv(&mut back)).await {
            assert_eq!(&back[..n.unwrap()], payload);
            return;
        }
    }
    panic!("{} bytes to {} are lost", payload.len(), bridge.address);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn datagrams_reach_services_and_pods() {
    let probe = Probe::install("udp");
    let targets = [
        "probe:7".to_owned(),
        format!("{}:7", probe.cluster_ip("probe")),
        "peers:7000".to_owned(),
        format!("{}:7000", probe.ip),
    ];
    let connect = probe.connect(&[]);
    for target in &targets {
        for size in [0, 1, 1200, 1400, 8000, 60_000] {
            // Each from a socket of its own, so each through an association of its own.
            let bridge = Bridge::open("127.0.0.1:0", connect.proxy(), target).await;
            echoed(&bridge, &vec![size as u8; size]).await;
        }
    }
    connect.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn forwarded_ports_lead_to_pods_and_carry_datagrams() {
    let probe = Probe::install("forward");
    let mut forward = probe.relay.kdev();
    let words = [
        "svc/probe",
        ":53/udp",
        "pod/probe",
        ":8081",
        "probe:dns/udp=0",
    ];
    let forward = Running::start(forward.args(["forward", "--json"]).args(words));
    for at in [0, 2] {
        let answer = dig(forward.port(at), &["any.name.example"]);
        assert_eq!(answer, "10.20.30.40", "{at}");
    }
    // A pod by its name: what listens on its own address is for the relay alone.
    let mut caller = String::new();
    let mut stream = tokio::net::TcpStream::connect(forward.port(1))
        .await
        .unwrap();
    stream.read_to_string(&mut caller).await.unwrap();
    assert!(!caller.is_empty());
    let mut direct = probe.relay.kdev();
    let args = ["forward", "--json", "--via", "direct", "pod/probe", ":5300"];
    let direct = Running::start(direct.args(args));
    let answer = dig(direct.port(0), &["+tcp", "any.name.example"]);
    assert_eq!(answer, "10.20.30.40");
    let mut refused = probe.relay.kdev();
    refused.args(["forward", "--via", "direct", "probe:53/udp=0"]);
    let refused = finish(&mut refused, b"").failed();
    let why = "port-forward carries TCP alone";
    assert!(refused.contains(why), "{refused}");
    forward.stop();
    direct.stop();
}

/// What `dig` prints of the answer.
fn dig(server: SocketAddr, args: &[&str]) -> String {
    let (address, port) = (format!("@{}", server.ip()), server.port().to_string());
    let fixed = [&*address, "-p", &*port, "+short", "+time=5", "+tries=2"];
    let mut dig = Command::new("dig");
    let done = finish(dig.args(fixed).args(args), b"");
    // A datagram may be lost, and is, while kube-proxy has not yet heard of the Service; dig says
    // so in a remark and asks again.
    let out = done.ok();
    let answers: Vec<&str> = out.lines().filter(|l| !l.starts_with(';')).collect();
    answers.join("\n").trim().to_owned()
}

/// Has the relay's pods ask the probe for names, as those of a company's cluster ask its own servers.
fn ask_the_probe(probe: &Probe) {
    let site = &probe.relay.site;
    let server = probe.cluster_ip("probe");
    let dns = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": [server]}});
    let patch = json!({"spec": {"template": {"spec": dns}}}).to_string();
    let patch = ["patch", "deployment", "kdev-relay", "-p", &patch];
    site.kubectl(&patch).unwrap();
    let rollout = [
        "rollout",
        "status",
        "deployment/kdev-relay",
        "--timeout=90s",
    ];
    site.kubectl(&rollout).unwrap();
    site.await_relays(2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn dns_servers_in_pods_and_the_clusters_own_are_asked() {
    let probe = Probe::install("dns");
    ask_the_probe(&probe);
    let host = "db.corp.example";
    let connect = probe.connect(&["--resolve-in-cluster", "corp.example"]);
    let bridge = Bridge::open("127.0.0.1:0", connect.proxy(), "probe:53").await;
    assert_eq!(dig(bridge.address, &["any.name.example"]), "10.20.30.40");
    let forward = Running::start(probe.relay.kdev().args(["forward", "--json", "probe:53=0"]));
    let by_tcp = dig(forward.port(0), &["+tcp", "any.name.example"]);
    assert_eq!(by_tcp, "10.20.30.40");
    forward.stop();
    // A name of the domain, by both, from the server that the cluster asks; then what it leads to, by
    // name and by the address that was answered.
    for by in ["+notcp", "+tcp"] {
        assert_eq!(dig(connect.dns(), &[by, host]), probe.ip, "{by}");
        let unknown = dig(connect.dns(), &[by, "unknown.corp.example"]);
        assert_eq!(unknown, "", "{by}");
    }
    let [socks5, http, _] = connect.ways();
    for target in [format!("{host}:8081"), format!("{}:8081", probe.ip)] {
        for way in [socks5, http] {
            let said = greeting(way, &target).await.unwrap();
            assert!(said.starts_with("only pods"), "{target}: {said}");
        }
    }
    connect.stop();
}

/// What `iperf3` measured, in its own JSON.
fn iperf3(server: SocketAddr, args: &[&str]) -> Value {
    let (address, port) = (server.ip().to_string(), server.port().to_string());
    let mut iperf3 = Command::new("iperf3");
    iperf3.args(["-c", &address, "-p", &port, "-t", "3", "-J"]);
    let done = finish(iperf3.args(args), b"");
    let measured: Value = serde_json::from_str(&done.out).unwrap_or_default();
    assert_eq!(done.code, 0, "{args:?}: {measured} {}", done.err);
    measured
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn iperf3_measures_connections_and_datagrams() {
    lab::settle();
    let relay = super::install("iperf3");
    // The Service has the port for connections alone.
    let (_, ip) = lab::pod_address("iperf3");
    let target = format!("{ip}:5201");
    let forwarded = format!("{target}=0");
    let forward = Running::start(relay.kdev().args(["forward", "--json", &forwarded]));
    let connect = Running::start(relay.kdev().args(["connect", "--json"]));
    let server = forward.port(0);
    for direction in [&[][..], &["-R"]] {
        let measured = iperf3(server, direction);
        let rate = measured["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .unwrap();
        println!("tcp {direction:?}: {:.0} Mbit/s", rate / 1e6);
        assert!(rate > 10e6, "{direction:?}: {rate}");
    }
    // Datagrams go to the number of the port that its connection for control goes to.
    for direction in [&[][..], &["-R"]] {
        let bridge = Bridge::open(&server.to_string(), connect.proxy(), &target).await;
        let udp = [&["-u", "-b", "20M", "-l", "1200"], direction].concat();
        let measured = iperf3(bridge.address, &udp);
        bridge.close().await;
        let sum = &measured["end"]["sum"];
        let (packets, lost) = (&sum["packets"], sum["lost_percent"].as_f64().unwrap());
        println!("udp {direction:?}: {packets} datagrams, {lost:.2} % lost");
        assert!(packets.as_f64().unwrap() > 1000.0, "{sum}");
        assert!(lost < 20.0, "{direction:?}: {sum}");
    }
    forward.stop();
    connect.stop();
}

/// Sends datagrams to the probe's echo as any program does, by a socket that is connected and by one
/// that is not, and prints what comes back and from where. As everywhere, some may be lost.
const BY_ITSELF: &str = r#"
import socket
to = socket.getaddrinfo("probe", 7, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
for connected in (True, False):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.settimeout(2)
    if connected:
        udp.connect(to)
    for _ in range(5):
        udp.send(b"connected") if connected else udp.sendto(b"not", to)
        try:
            text, at = udp.recvfrom(100)
            print(text.decode(), at == to); break
        except TimeoutError:
            pass
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_command_sends_datagrams_with_sockets_of_its_own() {
    let probe = Probe::install("caught");
    let mut run = probe.relay.kdev();
    run.env("KDEV_CAPTURE", "on");
    run.args(["run", "--", "python3", "-c", BY_ITSELF]);
    assert_eq!(finish(&mut run, b"").ok(), "connected True\nnot True\n");
}

/// Sends a datagram to the probe's echo through the SOCKS proxy that the variables name, with its
/// password, and prints what comes back.
const IN_A_CONTAINER: &str = r#"
import os, socket, struct, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["KDEV_SOCKS_PROXY"])
tcp = socket.create_connection((proxy.hostname, proxy.port))
tcp.sendall(b"\x05\x01\x02"); assert tcp.recv(2) == b"\x05\x02"
user, password = proxy.username.encode(), proxy.password.encode()
tcp.sendall(b"\x01%c%b%c%b" % (len(user), user, len(password), password)); assert tcp.recv(2) == b"\x01\x00"
tcp.sendall(b"\x05\x03\x00\x01" + bytes(6)); reply = tcp.recv(10, socket.MSG_WAITALL); assert reply[1] == 0, reply
relay = (socket.inet_ntoa(reply[4:8]), struct.unpack("!H", reply[8:])[0])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.settimeout(2)
for _ in range(5):
    udp.sendto(b"\x00\x00\x00\x03\x05probe\x00\x07" + b"from a container", relay)
    try:
        print(udp.recv(100)[12:].decode()); break
    except TimeoutError:
        pass
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_container_sends_datagrams_too() {
    let probe = Probe::install("container");
    let mut run = probe.relay.kdev();
    run.args(["run", "--", "docker", "run", "--rm", "--pull", "never"]);
    run.args([lab::TOOLS, "python3", "-c", IN_A_CONTAINER]);
    assert_eq!(finish(&mut run, b"").ok().trim(), "from a container");
}

const CAUGHT: &str = r#"
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.settimeout(2)
for _ in range(5):
    udp.sendto(b"from a caught container", ("probe", 7))
    try:
        print(udp.recv(100).decode()); break
    except TimeoutError:
        pass
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn datagrams_of_a_container_need_no_proxy() {
    let probe = Probe::install("caught");
    let (_folder, program) = crate::joined::release();
    let mut run = Command::new(program);
    run.env("KDEV_CAPTURE", "on").env_remove("KUBECONFIG");
    run.arg("--kubeconfig").arg(lab::kubeconfig("admin"));
    run.args([
        "run",
        "-n",
        &probe.relay.site.0,
        "--",
        "docker",
        "run",
        "--rm",
        "--pull",
        "never",
    ]);
    run.args([lab::TOOLS, "python3", "-c", CAUGHT]);
    let said = finish(&mut run, b"").ok();
    assert_eq!(said.trim(), "from a caught container");
}
