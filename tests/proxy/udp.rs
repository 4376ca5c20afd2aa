//! SOCKS5 UDP ASSOCIATE.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use kdev::addr::Target;
use kdev::dial::MAX_FLOWS;
use kdev::dial::{Dial, DialError, DialUdp, Flow, Room};
use kdev::proxy::{Access, AllowedPeers, Config, Password, serve_datagrams};
use kdev::relay::{MEMORY_LIMIT, Names as Resolver, Policy, Relay, Settings};
use kdev::tunnel::{self, Budget, Identity, Opener, Protocol, Role, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpStream, UdpSocket};

use super::socks::greet;
use super::support::{Answer, Proxy, failures, within};

/// An app's association: its TCP connection, its socket, and where its datagrams go.
struct App {
    tcp: TcpStream,
    socket: UdpSocket,
    proxy: SocketAddr,
}

impl App {
    async fn new(proxy: &Proxy) -> Self {
        let mut tcp = proxy.connect().await;
        assert_eq!(greet(&mut tcp, &[0]).await, 0);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let proxy = associate(&mut tcp, 0).await.unwrap();
        Self { tcp, socket, proxy }
    }

    async fn send(&self, header: &[u8], payload: &[u8]) {
        let datagram = [header, payload].concat();
        self.socket.send_to(&datagram, self.proxy).await.unwrap();
    }

    /// The next answer, which comes from where the app sent to.
    async fn answer(&self, header: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; 65_536];
        let (n, from) = within(self.socket.recv_from(&mut datagram)).await.unwrap();
        assert_eq!(from, self.proxy);
        assert_eq!(&datagram[..header.len()], header);
        datagram[header.len()..n].to_vec()
    }

    /// Whether a datagram is answered by an echo.
    async fn is_heard(&self, header: &[u8]) -> bool {
        self.send(header, b"hello").await;
        let answer = self.answer(header);
        tokio::time::timeout(Duration::from_millis(300), answer)
            .await
            .is_ok()
    }
}

/// Asks for an association after the greeting; the address, or the reply's code.
async fn associate(tcp: &mut TcpStream, port: u16) -> Result<SocketAddr, u8> {
    let request = [&[5, 3, 0, 1, 0, 0, 0, 0], &port.to_be_bytes()[..]].concat();
    tcp.write_all(&request).await.unwrap();
    let mut reply = [0; 10];
    within(tcp.read_exact(&mut reply)).await.unwrap();
    assert_eq!((reply[0], reply[2], reply[3]), (5, 0, 1));
    let ip = Ipv4Addr::new(reply[4], reply[5], reply[6], reply[7]);
    let port = u16::from_be_bytes([reply[8], reply[9]]);
    match reply[1] {
        0 => Ok((ip, port).into()),
        code => Err(code),
    }
}

/// The header of a datagram to `target`.
fn to(target: &str) -> Vec<u8> {
    let (host, port) = target.rsplit_once(':').unwrap();
    let mut header = vec![0, 0, 0];
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => {
            header.push(1);
            header.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            header.push(4);
            header.extend(ip.octets());
        }
        Err(_) => {
            header.extend([3, host.len() as u8]);
            header.extend(host.as_bytes());
        }
    }
    header.extend(port.parse::<u16>().unwrap().to_be_bytes());
    header
}

/// A server that sends datagrams back.
async fn echo(proxy: &Proxy) -> SocketAddr {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    proxy.tasks.spawn(async move {
        let mut datagram = vec![0; 65_536];
        while let Ok((n, from)) = server.recv_from(&mut datagram).await {
            let _ = server.send_to(&datagram[..n], from).await;
        }
    });
    address
}

async fn echoing() -> (Proxy, Vec<u8>) {
    let proxy = Proxy::start().await;
    let server = echo(&proxy).await;
    proxy.names.set("echo.shop:7", [Answer::To(server)]);
    (proxy, to("echo.shop:7"))
}

#[tokio::test]
async fn datagrams_go_where_each_of_them_says() {
    let proxy = Proxy::start().await;
    let server = echo(&proxy).await;
    let targets = ["echo.shop:7", "10.96.0.7:7", "[fd00::7]:7"];
    for target in targets {
        proxy.names.set(target, [Answer::To(server)]);
    }
    let app = App::new(&proxy).await;
    for size in [0, 1, 1400, 9000, 60_000] {
        for target in targets {
            let (header, payload) = (to(target), vec![size as u8; size]);
            app.send(&header, &payload).await;
            assert_eq!(app.answer(&header).await, payload, "{target} {size}");
        }
    }
    assert_eq!(
        proxy.names.dials.load(Ordering::SeqCst),
        3,
        "one per destination"
    );
    let counted = proxy.stats.snapshot();
    assert_eq!(counted.datagrams_dropped, 0);
    assert!(counted.sent > 3 * 70_000 && counted.received > 3 * 70_000);
}

/// Dials through a relay.
#[derive(Clone)]
struct Relayed(Opener);

impl Dial for Relayed {
    type Io = tunnel::Stream;

    async fn dial(&self, target: &Target) -> Result<tunnel::Stream, DialError> {
        self.0.open(target, Protocol::Tcp).await
    }
}

impl DialUdp for Relayed {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        let stream = self.0.open(target, Protocol::Udp).await?;
        Ok(Flow::capsules(stream, Room::new(1 << 20)))
    }
}

/// A relay that may reach this machine, unlike one in a cluster, and a proxy in front of it.
async fn through_a_relay(folder: &tempfile::TempDir) -> Proxy {
    std::fs::create_dir(folder.path().join("forward")).unwrap();
    std::fs::write(folder.path().join("forward/key"), [1; 32]).unwrap();
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    let settings = Settings {
        tunnel: (local, 0).into(),
        pod_tunnel: None,
        http: None,
        inbound: (local, 20_000, 0),
        secrets: folder.path().to_owned(),
        policy: Policy {
            allow: vec!["127.0.0.1".parse().unwrap()],
            deny: Vec::new(),
        },
        memory: MEMORY_LIMIT,
    };
    let relay = Relay::start(&settings, Resolver::system().unwrap()).unwrap();
    let socket = TcpStream::connect(relay.address().unwrap()).await.unwrap();
    let running = relay.run(std::future::pending());
    let opening = async {
        let secret = Secret::new([1; 32]).unwrap();
        let identity = Identity::random();
        let (io, _) = tunnel::connect(socket, Role::Forward, &identity, &secret)
            .await
            .unwrap();
        let share = Budget::new(64 << 20).share().unwrap();
        tunnel::open(io, share).await.unwrap()
    };
    let tasks = kdev::task::Tasks::new();
    tasks.spawn(async move {
        running.await;
    });
    let (opener, driver) = within(opening).await;
    let config = Config::new(Access::SameUser { password: None });
    let proxy = Proxy::dialling(Relayed(opener), config).await;
    proxy.tasks.spawn(async move {
        let _tasks = tasks;
        driver.run().await;
    });
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_go_through_the_relay_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = through_a_relay(&folder).await;
    let header = to(&echo(&proxy).await.to_string());
    let app = App::new(&proxy).await;
    for size in [0, 1, 1400, 9000, 60_000] {
        let payload = vec![size as u8; size];
        app.send(&header, &payload).await;
        assert_eq!(app.answer(&header).await, payload, "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_works_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = through_a_relay(&folder).await;
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let header = to(&server.local_addr().unwrap().to_string());
    proxy.tasks.spawn(async move {
        let mut question = [0; 512];
        while let Ok((n, from)) = server.recv_from(&mut question).await {
            let mut answer = Message::from_vec(&question[..n]).unwrap().into_response();
            let name = answer.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(name, 5, RData::A(A::new(10, 96, 0, 7))));
            let _ = server.send_to(&answer.to_vec().unwrap(), from).await;
        }
    });
    let mut question = Message::query();
    question.add_query(Query::query("web.shop.".parse().unwrap(), RecordType::A));
    let app = App::new(&proxy).await;
    app.send(&header, &question.to_vec().unwrap()).await;
    let answer = Message::from_vec(&app.answer(&header).await).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    assert_eq!(answer.answers[0].data, RData::A(A::new(10, 96, 0, 7)));
}

#[tokio::test]
async fn nobody_uses_an_association_but_who_asked_for_it() {
    let (proxy, header) = echoing().await;
    let (mine, other) = (App::new(&proxy).await, App::new(&proxy).await);
    assert!(mine.is_heard(&header).await);
    assert!(other.is_heard(&header).await);
    let before = proxy.stats.snapshot().datagrams_dropped;
    // From the other app, from another address of this machine, from another port.
    let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let beside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let datagram = [&header[..], b"stolen"].concat();
    for socket in [&other.socket, &elsewhere, &beside] {
        socket.send_to(&datagram, mine.proxy).await.unwrap();
    }
    assert!(
        mine.is_heard(&header).await,
        "and gets its own answer alone"
    );
    assert_eq!(proxy.stats.snapshot().datagrams_dropped, before + 3);
    for socket in [&elsewhere, &beside] {
        let nothing = socket.try_recv(&mut [0; 64]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[tokio::test]
async fn a_port_that_was_named_is_the_only_one() {
    let (proxy, header) = echoing().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut tcp = proxy.connect().await;
    greet(&mut tcp, &[0]).await;
    let address = associate(&mut tcp, port).await.unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let datagram = [&header[..], b"stolen"].concat();
    other.send_to(&datagram, address).await.unwrap();
    let app = App {
        tcp,
        socket,
        proxy: address,
    };
    assert!(app.is_heard(&header).await);
    assert_eq!(proxy.stats.snapshot().datagrams_dropped, 1);
}

#[tokio::test]
async fn malformed_datagrams_and_fragments_are_dropped_and_the_rest_goes_on() {
    let (proxy, header) = echoing().await;
    let app = App::new(&proxy).await;
    let mut fragment = header.clone();
    fragment[2] = 1;
    let bad: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0, 0, 0],
        vec![0, 1, 0, 1, 10, 0, 0, 1, 0, 7],
        vec![0, 0, 0, 2, 10, 0, 0, 1, 0, 7],
        vec![0, 0, 0, 1, 10, 0, 0, 1, 0],
        vec![0, 0, 0, 1, 10, 0, 0, 1, 0, 0],
        vec![0, 0, 0, 3, 200, b'a', 0, 7],
        vec![0, 0, 0, 3, 3, b'a', b' ', b'b', 0, 7],
        vec![0, 0, 0, 3, 2, 0xff, 0xfe, 0, 7],
        vec![0, 0, 0, 3, 0, 0, 7],
        vec![0, 0, 0, 4, 0, 0, 0, 7],
        fragment,
    ];
    for datagram in &bad {
        app.send(datagram, b"").await;
    }
    assert!(app.is_heard(&header).await);
    let dropped = proxy.stats.snapshot().datagrams_dropped;
    assert_eq!(dropped, bad.len() as u64);
    assert_eq!(proxy.names.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_association_ends_with_its_connection() {
    let (proxy, header) = echoing().await;
    let app = App::new(&proxy).await;
    assert!(app.is_heard(&header).await);
    let App {
        tcp,
        socket,
        proxy: address,
    } = app;
    drop(tcp);
    proxy.quiet().await;
    // The port is closed, which the system tells who sends there.
    socket.connect(address).await.unwrap();
    within(async {
        while socket.send(&header).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_associations_at_once() {
    let (proxy, header) = echoing().await;
    let mut app = App::new(&proxy).await;
    assert!(app.is_heard(&header).await);
    proxy.tasks.drain();
    assert_eq!(within(app.tcp.read(&mut [0; 8])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn containers_need_their_password_or_their_address() {
    let allowed = AllowedPeers::new();
    let access = Access::Peers {
        allowed: allowed.clone(),
        password: Password::new("secret"),
    };
    let proxy = Proxy::with(Config::new(access)).await;
    let server = echo(&proxy).await;
    proxy.names.set("echo.shop:7", [Answer::To(server)]);
    for (said, code) in [(&b"wrong!"[..], 0xff), (b"secret", 0)] {
        let mut tcp = proxy.connect().await;
        assert_eq!(greet(&mut tcp, &[2]).await, 2);
        let login = [&[1, 1, b'u', said.len() as u8][..], said].concat();
        tcp.write_all(&login).await.unwrap();
        let mut status = [0; 2];
        within(tcp.read_exact(&mut status)).await.unwrap();
        assert_eq!(status, [1, code]);
        if code == 0 {
            let address = associate(&mut tcp, 0).await.unwrap();
            let app = App {
                tcp,
                socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
                proxy: address,
            };
            assert!(app.is_heard(&to("echo.shop:7")).await);
        }
    }
    allowed.insert("127.0.0.1".parse().unwrap());
    let app = App::new(&proxy).await;
    assert!(app.is_heard(&to("echo.shop:7")).await);
}

/// Dials into pipes whose far ends the test holds.
#[derive(Clone, Default)]
struct Pipes(Arc<Mutex<Vec<DuplexStream>>>);

impl Dial for Pipes {
    type Io = DuplexStream;

    async fn dial(&self, _: &Target) -> Result<DuplexStream, DialError> {
        let (near, far) = tokio::io::duplex(1 << 10);
        self.0.lock().unwrap().push(far);
        Ok(near)
    }
}

impl DialUdp for Pipes {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        let near = self.dial(target).await?;
        Ok(Flow::capsules(near, Room::new(1 << 10)))
    }
}

#[tokio::test]
async fn a_flood_of_destinations_keeps_no_more_flows_than_there_may_be() {
    let pipes = Pipes::default();
    let config = Config::new(Access::SameUser { password: None });
    let proxy = Proxy::dialling(pipes.clone(), config).await;
    let app = App::new(&proxy).await;
    let wanted = 2 * MAX_FLOWS;
    let dialled = || pipes.0.lock().unwrap().len();
    for i in 0..wanted {
        // One after the other, so that none is lost on the way.
        app.send(&to(&format!("10.0.{}.{}:7", i / 256, i % 256)), b"x")
            .await;
        within(async {
            while dialled() <= i {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let ended = async {
        let ends = std::mem::take(&mut *pipes.0.lock().unwrap());
        let mut alive = Vec::new();
        for mut end in ends {
            // The capsule, and then an end where the flow is over.
            let mut all = Vec::new();
            let reading = end.read_to_end(&mut all);
            if tokio::time::timeout(Duration::from_millis(1), reading)
                .await
                .is_err()
            {
                alive.push(end);
            }
        }
        alive.len()
    };
    assert_eq!(ended.await, MAX_FLOWS);
}

#[tokio::test]
async fn what_waits_for_a_dial_is_bounded() {
    let proxy = Proxy::start().await;
    proxy.names.set("slow.shop:7", [Answer::Never]);
    let server = echo(&proxy).await;
    proxy.names.set("echo.shop:7", [Answer::To(server)]);
    let app = App::new(&proxy).await;
    for _ in 0..100 {
        app.send(&to("slow.shop:7"), b"x").await;
        assert!(app.is_heard(&to("echo.shop:7")).await, "the others go on");
    }
    assert_eq!(proxy.stats.snapshot().datagrams_dropped, 100 - 64);
}

#[tokio::test]
async fn a_destination_that_fails_is_not_dialled_for_each_datagram() {
    let proxy = Proxy::start().await;
    let (error, ..) = failures().remove(1);
    proxy.names.set("gone.shop:7", [Answer::Fail(error)]);
    let server = echo(&proxy).await;
    proxy.names.set("echo.shop:7", [Answer::To(server)]);
    let app = App::new(&proxy).await;
    for _ in 0..20 {
        app.send(&to("gone.shop:7"), b"x").await;
    }
    assert!(app.is_heard(&to("echo.shop:7")).await);
    let dials = proxy.names.dials.load(Ordering::SeqCst);
    // One more on a machine so slow that the pause passed meanwhile.
    assert!((2..=4).contains(&dials), "{dials}");
    assert!(proxy.stats.snapshot().dial_failures >= 1);
}

#[tokio::test]
async fn each_sender_to_a_forwarded_port_has_a_flow_of_its_own() {
    let proxy = Proxy::start().await;
    let server = echo(&proxy).await;
    proxy.names.set("echo.shop:7", [Answer::To(server)]);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap();
    let target: Target = "echo.shop:7".parse().unwrap();
    let (dial, stats) = (proxy.names.clone(), proxy.stats.clone());
    let tasks = proxy.tasks.child();
    proxy
        .tasks
        .spawn(serve_datagrams(socket, target, dial, stats, tasks.clone()));
    let ask = async |app: &UdpSocket, payload: &[u8]| {
        app.send_to(payload, port).await.unwrap();
        let mut answer = vec![0; 65_536];
        let (n, from) = within(app.recv_from(&mut answer)).await.unwrap();
        assert_eq!(from, port);
        assert_eq!(&answer[..n], payload);
    };
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    }
    for size in [0, 1, 1400, 60_000] {
        for (at, app) in apps.iter().enumerate() {
            ask(app, &vec![at as u8; size]).await;
        }
    }
    let dials = || proxy.names.dials.load(Ordering::SeqCst);
    assert_eq!(dials(), 3, "one per sender");
    // More senders than there may be flows: the quietest has to go, and comes back as a new one.
    let mut more = Vec::new();
    for _ in 0..MAX_FLOWS {
        let app = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        ask(&app, b"hello").await;
        more.push(app);
    }
    ask(&apps[0], b"again").await;
    assert_eq!(dials(), 3 + MAX_FLOWS + 1);
    tasks.kill();
}
