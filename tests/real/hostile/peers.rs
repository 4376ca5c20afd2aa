//! Who does not become a tunnel.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use kdev::io::Io;
use kdev::tunnel::{HandshakeError, Identity, Role, Secret, TUNNEL_PORT, connect};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Stage;
use crate::lab;

/// Longer than the relay waits for a handshake.
const CUT_OFF: Duration = Duration::from_secs(15);

/// All that a peer says until the relay ends the connection.
async fn answers(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // A reset is an end as well.
    let _ = timeout(CUT_OFF, stream.read_to_end(&mut said))
        .await
        .expect("an end");
    String::from_utf8(said).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn only_the_pods_own_loopback_reaches_the_tunnel_port() {
    let stage = Stage::set_up("peers");
    // Another pod: refused on the tunnel port, unlike on one that is for other pods.
    let (peer, _) = lab::pod_address("peer");
    let knock = |port: u16| {
        let target = format!("{}:{port}", stage.relay.ip);
        let dial = format!("socat -u OPEN:/dev/null TCP:{target},connect-timeout=3");
        lab::kubectl(&["-n", "shop", "exec", &peer, "--", "sh", "-c", &dial])
    };
    knock(20_600).unwrap();
    let refused = knock(TUNNEL_PORT).unwrap_err();
    assert!(refused.contains("Connection refused"), "{refused}");

    // Somebody whose packets get there all the same has another address, and is cut off unheard.
    let foreign = "kdev_relay_handshakes_refused_total{reason=\"foreign\"}";
    assert_eq!(stage.relay.metric(foreign), 0.0);
    let socket = stage.relay.sockets(1).remove(0);
    socket.bind((stage.relay.ip, 0).into()).unwrap();
    let loopback = ([127, 0, 0, 1], TUNNEL_PORT).into();
    let mut forged = socket.connect(loopback).await.unwrap();
    assert_eq!(forged.local_addr().unwrap().ip(), stage.relay.ip);
    let _ = forged.write_all(b"KDEV-TUNNEL 2\r\n\r\n").await;
    assert_eq!(answers(&mut forged).await, "");
    assert_eq!(stage.relay.metric(foreign), 1.0);

    neighbour(&stage).await;
    assert_eq!(stage.relay.metric(foreign), 2.0);
    stage.unharmed();
}

/// As above, from a network of its own beside the pod's: its kernel is told to send what is for
/// 127.0.0.1 to the pod, and the pod's to take it (CVE-2020-8558 was a node that did).
async fn neighbour(stage: &Stage) {
    let net = Neighbour::create(stage);
    let socket = net.socket();
    let loopback = ([127, 0, 0, 1], TUNNEL_PORT).into();
    let dialled = timeout(CUT_OFF, socket.connect(loopback)).await;
    let mut stream = dialled.expect("an answer").expect("a connection");
    assert_eq!(stream.local_addr().unwrap().ip(), net.ip);
    let _ = stream.write_all(b"KDEV-TUNNEL 2\r\n\r\n").await;
    assert_eq!(answers(&mut stream).await, "");
}

struct Neighbour {
    name: String,
    ip: std::net::IpAddr,
}

impl Neighbour {
    fn create(stage: &Stage) -> Self {
        let name = format!("kdevn{}", std::process::id());
        // Free: the lab gives out addresses from the low end.
        let ip = "10.244.0.250".parse().unwrap();
        let this = Self { name, ip };
        let (name, pod) = (&this.name, stage.relay.ip);
        let route = "net.ipv4.conf.all.route_localnet=1";
        let script = format!(
            "set -e
             ip netns add {name}
             ip link add {name} type veth peer name eth0 netns {name}
             ip link set {name} master lab0 up
             ip -n {name} address add {ip}/24 dev eth0
             ip -n {name} link set eth0 up
             ip netns exec {name} sysctl -qw {route} net.ipv4.conf.eth0.route_localnet=1
             ip -n {name} route add 127.0.0.1/32 via {pod} src {ip}"
        );
        lab::shell(&script).unwrap();
        stage.relay.inside(|| {
            lab::shell(&format!(
                "sysctl -qw {route} net.ipv4.conf.eth0.route_localnet=1"
            ))
            .unwrap();
        });
        this
    }

    fn socket(&self) -> tokio::net::TcpSocket {
        let network = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        let make = || {
            nix::sched::setns(&network, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            tokio::net::TcpSocket::new_v4().unwrap()
        };
        std::thread::scope(|scope| scope.spawn(make).join().unwrap())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let name = &self.name;
        let _ = lab::shell(&format!(
            "ip netns del {name}; ip link del {name} 2>/dev/null"
        ));
    }
}

/// Remembers what was written.
struct Recorded<T>(T, Arc<Mutex<Vec<u8>>>);

impl<T: Io> AsyncRead for Recorded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: Io> AsyncWrite for Recorded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.0).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = result {
            self.1.lock().unwrap().extend(&buf[..n]);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<T: Io> Io for Recorded<T> {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_wrong_or_replayed_proof_is_refused() {
    let stage = Stage::set_up("proofs");
    let dial = || async { stage.relay.dial(TUNNEL_PORT).await.unwrap() };
    let secret = |key: &[u8]| Secret::new(key).unwrap();

    // What an honest kdev says, all of it.
    let said = Arc::new(Mutex::new(Vec::new()));
    let recorded = Recorded(dial().await, said.clone());
    connect(
        recorded,
        Role::Forward,
        &Identity::random(),
        &secret(&stage.keys[0]),
    )
    .await
    .unwrap();
    let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
    let (first, proof) = said.split_once("\r\n\r\n").unwrap();
    let first = format!("{first}\r\n\r\n");
    assert!(proof.ends_with("\r\n\r\n"), "{said}");

    let wrong = proof.replace(|c: char| c.is_ascii_digit(), "a");
    assert_ne!(wrong, proof);
    let reverse = first.replace("forward", "reverse");
    for (what, first, proof) in [
        ("replayed", &*first, proof),
        ("wrong", &first, &wrong),
        ("of another role", &reverse, proof),
    ] {
        let mut stream = dial().await;
        stream.write_all(first.as_bytes()).await.unwrap();
        stream.write_all(proof.as_bytes()).await.unwrap();
        let answer = answers(&mut stream).await;
        let (challenge, refusal) = answer.split_once("\r\n\r\n").unwrap();
        assert!(challenge.contains("challenge"), "{what}: {answer}");
        assert!(refusal.contains("refused"), "{what}: {answer}");
        assert!(
            refusal.contains("another secret than the relay's"),
            "{what}: {answer}"
        );
        assert!(!answer.contains("welcome"), "{what}: {answer}");
    }
    // An honest kdev with another secret does not even say its proof.
    for (role, key) in [
        (Role::Forward, &[7; 32][..]),
        (Role::Forward, &stage.keys[1]),
        (Role::Reverse, &stage.keys[0]),
    ] {
        let error = connect(dial().await, role, &Identity::random(), &secret(key))
            .await
            .unwrap_err();
        assert!(matches!(error, HandshakeError::Impostor), "{error:?}");
    }
    let refused = "kdev_relay_handshakes_refused_total{reason=\"proof\"}";
    assert_eq!(stage.relay.metric(refused), 3.0);
    stage.unharmed();
}
