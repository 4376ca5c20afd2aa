// Tests end with their runtime, so nothing has to wait for these tasks.
#![allow(clippy::disallowed_methods)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::names::Conf;
use super::*;
use crate::addr::Target;
use crate::dial::{DialError, Flow, NAMESERVERS, Room};
use crate::rule::control::{Ask, Tell};
use crate::rule::{AppProtocol, Claim, Conditions};
use crate::tunnel::control::{Reader, write};
use crate::tunnel::{
    Budget, HandshakeError, Identity, Opener, Protocol, Role, Secret, SessionId, connect, datagram,
    open, serve as listen,
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FORWARD: [u8; 32] = [1; 32];
const INTERCEPT: [u8; 32] = [2; 32];

/// A DNS server that knows one name, `kdev-PORT.test`, which is this machine.
async fn dns(port: u16) -> SocketAddr {
    let socket = UdpSocket::bind((LOCAL, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        loop {
            let (n, from) = socket.recv_from(&mut query).await.unwrap();
            let question = &query[12..n];
            let name = format!("\u{a}kdev-{port}\u{4}test\0");
            let known = question.starts_with(name.as_bytes());
            let (kind, end) = (question[name.len() + 1], name.len() + 4);
            let mut answer = query[..2].to_vec();
            // Response, recursion available; no such name unless it is ours.
            answer.extend([
                0x81,
                if known { 0x80 } else { 0x83 },
                0,
                1,
                0,
                0,
                0,
                0,
                0,
                0,
            ]);
            answer.extend(&question[..end.min(question.len())]);
            if known && kind == 1 {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1]);
            } else if !known {
                // The question as it came, whatever its length.
                answer.truncate(12);
                let length = question.iter().position(|b| *b == 0).unwrap_or(0) + 5;
                answer.extend(&question[..length]);
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

fn names(dns: SocketAddr) -> Names {
    let mut conf = Conf::parse("search test.\noptions ndots:5\n", "");
    conf.servers.push(dns);
    Names::new(conf)
}

/// Secrets as a pod has them mounted.
fn secrets(folder: &Path) {
    for (role, key) in [("forward", FORWARD), ("intercept", INTERCEPT)] {
        std::fs::create_dir(folder.join(role)).unwrap();
        std::fs::write(folder.join(role).join("key"), key).unwrap();
    }
}

/// A free port with seven free ones after it, most likely.
async fn range() -> u16 {
    loop {
        let taken = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let first = taken.local_addr().unwrap().port();
        if (10_000..60_000).contains(&first) {
            return first;
        }
    }
}

struct Stage {
    address: SocketAddr,
    http: SocketAddr,
    first: u16,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// A relay that may reach this machine, unlike one in a cluster.
    async fn set_up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        secrets(folder.path());
        let first = range().await;
        let names = names(dns(first).await);
        // An address from which nothing else here connects, or its port might be taken meanwhile.
        let free = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), 0))
            .await
            .unwrap();
        let http = free.local_addr().unwrap();
        drop(free);
        let settings = Settings {
            tunnel: (LOCAL, 0).into(),
            pod_tunnel: None,
            http: Some(http),
            inbound: (Ipv4Addr::new(127, 0, 0, 2).into(), first, 4),
            secrets: folder.path().to_owned(),
            policy: Policy {
                allow: vec!["127.0.0.1".parse().unwrap()],
                deny: Vec::new(),
            },
            memory: MEMORY_LIMIT,
        };
        let relay = Relay::start(&settings, names).unwrap();
        let address = relay.address().unwrap();
        tokio::spawn(relay.run(std::future::pending()));
        Self {
            address,
            http,
            first,
            _folder: folder,
        }
    }

    async fn forward(&self) -> Opener {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let secret = Secret::new(FORWARD).unwrap();
        let identity = Identity::random();
        let connected = connect(socket, Role::Forward, &identity, &secret);
        let (io, _) = connected.await.unwrap();
        let share = Budget::new(64 << 20).share().unwrap();
        let (opener, driver) = open(io, share).await.unwrap();
        tokio::spawn(driver.run());
        opener
    }

    /// A kdev that answers every caller with `name` and the caller's address, once it has `port`.
    async fn attach(&self, identity: &Identity, port: u16, name: &'static str) -> Tell {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let session = identity.session();
        let secret = Secret::new(INTERCEPT).unwrap();
        let connected = connect(socket, Role::Reverse, identity, &secret);
        let (io, _) = connected.await.unwrap();
        let share = Budget::new(64 << 20).share().unwrap();
        let mut listener = listen(io, share).await.unwrap();
        let (told, tell) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let control = listener.next().await.unwrap();
            assert_eq!(control.protocol, Protocol::Control);
            let stream = control.accept().unwrap();
            tokio::spawn(async move {
                let (from, mut to) = tokio::io::split(stream);
                let mut tells = Reader::new(from);
                let claim = Box::new(claim(session));
                let ask = Ask::Attach {
                    port,
                    claim,
                    over: None,
                    log: false,
                };
                write(&mut to, &ask).await.unwrap();
                told.send(tells.next().await.unwrap().unwrap()).unwrap();
                // Until the relay ends it.
                while let Ok(Some(_)) = tells.next::<Tell>().await {}
            });
            while let Some(incoming) = listener.next().await {
                tokio::spawn(async move {
                    let peer = incoming.caller.peer.unwrap().ip();
                    let mut stream = incoming.accept().unwrap();
                    let text = format!("{name} for {peer}");
                    let _ = stream.write_all(text.as_bytes()).await;
                    let _ = stream.shutdown().await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                });
            }
        });
        tell.await.unwrap()
    }

    /// The page of metrics.
    async fn metrics(&self) -> String {
        let mut socket = TcpStream::connect(self.http).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        socket.write_all(request).await.unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).await.unwrap();
        page
    }

    /// What a caller of `port` is answered.
    async fn call(&self, port: u16) -> String {
        // A reset may come before the connection was looked at.
        let Ok(mut caller) = TcpStream::connect(("127.0.0.2", port)).await else {
            return String::new();
        };
        let mut answer = String::new();
        let _ = caller.read_to_string(&mut answer).await;
        answer
    }
}

/// All that arrives, for one session.
fn claim(session: SessionId) -> Claim {
    Claim {
        id: session.to_string(),
        owner: "ann".to_owned(),
        session,
        conditions: Conditions::everything(),
        since: 1,
        mirror: false,
        fallback: false,
        strict: false,
        protocol: AppProtocol::Tcp,
    }
}

async fn echo_server() -> SocketAddr {
    let server = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = server.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn kdev_reaches_addresses_and_names_of_the_pod() {
    let stage = Stage::set_up().await;
    let (opener, server) = (stage.forward().await, echo_server().await);
    let (name, port) = (stage.first, server.port());
    for host in [
        "127.0.0.1".to_owned(),
        format!("kdev-{name}"),
        format!("kdev-{name}.test"),
    ] {
        let target: Target = format!("{host}:{port}").parse().unwrap();
        let mut stream = opener.open(&target, Protocol::Tcp).await.unwrap();
        stream.write_all(b"through the relay").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "through the relay", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_or_may_not_be_reached_has_its_cause() {
    let stage = Stage::set_up().await;
    let opener = stage.forward().await;
    let open = |target: &str| {
        let (opener, target) = (opener.clone(), target.parse::<Target>().unwrap());
        async move {
            let mut stream = opener.open(&target, Protocol::Tcp).await.unwrap();
            stream.opened().await.unwrap_err()
        }
    };
    let error = open("127.0.0.1:1").await;
    assert!(matches!(error, DialError::Refused { .. }), "{error}");
    let error = open("nowhere.test:80").await;
    assert!(matches!(error, DialError::NotFound { .. }), "{error}");
    for hidden in [
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "[64:ff9b::a9fe:a9fe]:80",
    ] {
        let error = open(hidden).await;
        assert!(matches!(error, DialError::Forbidden { .. }), "{error}");
        assert!(error.to_string().contains("metadata"), "{error}");
    }
    // Not among what this relay is limited to.
    let error = open("127.0.0.3:80").await;
    assert!(matches!(error, DialError::Forbidden { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_go_out_and_come_back() {
    let stage = Stage::set_up().await;
    let opener = stage.forward().await;
    let server = UdpSocket::bind((LOCAL, 0)).await.unwrap();
    let target: Target = server.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        let mut datagram = vec![0; 65_536];
        loop {
            let (n, from) = server.recv_from(&mut datagram).await.unwrap();
            server.send_to(&datagram[..n], from).await.unwrap();
        }
    });
    let mut stream = opener.open(&target, Protocol::Udp).await.unwrap();
    stream.opened().await.unwrap();
    let (mut wire, mut read) = (BytesMut::new(), BytesMut::new());
    for size in [0, 1, 512, 1400, 9000, 60_000] {
        let payload = vec![7; size];
        datagram::encode(&payload, &mut wire);
        stream.write_all(&wire.split()).await.unwrap();
        let back = loop {
            match datagram::decode(&mut read).unwrap() {
                Some(back) => break back,
                None => assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0),
            }
        };
        assert_eq!(back.len(), size);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_nameservers_are_reached_whatever_the_policy_says() {
    let stage = Stage::set_up().await;
    let opener = stage.forward().await;
    let target: Target = format!("{NAMESERVERS}:53").parse().unwrap();
    let stream = opener.open(&target, Protocol::Udp).await.unwrap();
    let (mut to, mut from) = Flow::capsules(stream, Room::new(1 << 16)).split();
    let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(format!("\u{a}kdev-{}\u{4}test\0", stage.first).bytes());
    question.extend([0, 1, 0, 1]);
    to.send(&question).await.unwrap();
    let mut answer = BytesMut::new();
    assert!(from.receive(&mut answer).await.unwrap());
    assert_eq!(answer[..2], [7, 7]);
    assert!(answer.ends_with(&[127, 0, 0, 1]), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_secret_takes_no_listener() {
    let stage = Stage::set_up().await;
    let socket = TcpStream::connect(stage.address).await.unwrap();
    let secret = Secret::new(FORWARD).unwrap();
    let refused = connect(socket, Role::Reverse, &Identity::random(), &secret).await;
    assert!(
        matches!(refused, Err(HandshakeError::Impostor)),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_reach_the_session_that_attached_and_the_pods_otherwise() {
    let stage = Stage::set_up().await;
    // The original pods of the first port: what `kdev-<block>` leads to, port L.
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = pods.accept().await.unwrap();
            let _ = socket.write_all(b"the original").await;
        }
    });
    assert_eq!(stage.call(stage.first).await, "the original");

    let (me, other) = (Identity::random(), Identity::random());
    let port = stage.first;
    let attached = Tell::Attached {
        port,
        id: me.session().to_string(),
    };
    assert_eq!(stage.attach(&me, port, "mine").await, attached);
    assert_eq!(stage.call(port).await, "mine for 127.0.0.1");
    // Another session is refused; the same one, reconnected, is not.
    let told = stage.attach(&other, port, "other").await;
    assert!(
        matches!(told, Tell::Refused { port: p, .. } if p == port),
        "{told:?}"
    );
    assert_eq!(stage.attach(&me, port, "mine").await, attached);
    assert_eq!(stage.call(port).await, "mine for 127.0.0.1");
    let told = stage.attach(&other, 1, "other").await;
    assert!(matches!(told, Tell::Refused { port: 1, .. }), "{told:?}");
    // Nobody has the second port, and it has no pods.
    assert_eq!(stage.call(port + 1).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_cut_off_and_metrics_tell() {
    let stage = Stage::set_up().await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(TcpStream::connect(stage.address).await.unwrap());
    }
    // Beside them a tunnel opens, and the oldest of them are gone.
    let opener = stage.forward().await;
    assert_eq!(idle[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
    let mut garbage = TcpStream::connect(stage.address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut told = String::new();
    let _ = garbage.read_to_string(&mut told).await;
    assert!(told.contains("tunnel port"), "{told}");
    // The relay counts the tunnel a moment after kdev has its answer.
    let counting = async {
        while !stage
            .metrics()
            .await
            .contains("kdev_relay_tunnels{role=\"forward\"} 1")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(10), counting).await;
    assert!(counted.is_ok(), "{}", stage.metrics().await);
    drop(opener);
}

#[tokio::test(start_paused = true)]
async fn a_relay_without_connections_ends_when_callers_no_longer_come() {
    let settings = Settings {
        tunnel: (LOCAL, 0).into(),
        pod_tunnel: None,
        http: Some((LOCAL, 0).into()),
        inbound: (Ipv4Addr::new(127, 0, 0, 2).into(), range().await, BLOCK),
        secrets: "/nonexistent".into(),
        policy: Policy::default(),
        memory: MEMORY_LIMIT,
    };
    let relay = Relay::start(&settings, names((LOCAL, 9).into())).unwrap();
    let begun = tokio::time::Instant::now();
    relay.run(async {}).await;
    let took = begun.elapsed();
    assert!(
        took >= KEEP_ACCEPTING && took < KEEP_ACCEPTING + DRAIN,
        "{took:?}"
    );
}
