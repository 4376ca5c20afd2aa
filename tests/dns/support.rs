//! A simulated cluster with the DNS server before it, a resolver behind it, and a client.

use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use kdev::addr::ClusterDomain;
use kdev::dns::{self, Resolvers, Sockets, Source};
use kdev::k8s::kubeconfig::Environment;
use kdev::k8s::{Catalog, Client, KubeOptions};
use kdev::task::Tasks;
use kdev_sim::{Options, SimCluster};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Stage {
    pub(crate) cluster: SimCluster,
    pub(crate) dns: SocketAddr,
    pub(crate) resolver: Resolver,
    _tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// Serves what `furnish` puts into a cluster, to `user` in namespace `shop`.
    pub(crate) async fn set_up(user: &str, furnish: impl FnOnce(&SimCluster)) -> Self {
        let cluster = SimCluster::start(Options::default()).await.unwrap();
        furnish(&cluster);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        cluster.write_kubeconfig(&path, user, "shop").unwrap();
        let options = KubeOptions {
            kubeconfig: Some(path),
            ..KubeOptions::default()
        };
        let tasks = Tasks::new();
        let client = Client::connect_in(options, Environment::default(), &tasks);
        let catalog = Catalog::start(client.await.unwrap(), ClusterDomain::default(), &tasks);
        tokio::time::timeout(PATIENCE, catalog.synced())
            .await
            .unwrap();
        let resolver = Resolver::start(&tasks, public).await;
        let sockets = Sockets::bind(None).await.unwrap();
        let dns = sockets.address();
        dns::serve(sockets, catalog, source(&[resolver.address]), &tasks);
        Self {
            cluster,
            dns,
            resolver,
            _tasks: tasks,
            _folder: folder,
        }
    }

    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        ask(self.dns, name, kind).await
    }

    /// The answer as text, for comparisons: see [`told`].
    pub(crate) async fn told(&self, name: &str, kind: RecordType) -> String {
        told(&self.ask(name, kind).await)
    }

    /// A field of an object as the API shows it.
    pub(crate) fn field(&self, kind: &str, name: &str, pointer: &str) -> String {
        let object = self.cluster.object(kind, "shop", name).unwrap();
        object
            .pointer(pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// Resolvers as `resolv.conf` could name them, but for the ports.
pub(crate) fn source(servers: &[SocketAddr]) -> Source {
    Source::fixed(Resolvers {
        servers: servers.to_vec(),
        timeout: Duration::from_secs(1),
        attempts: 2,
        rotate: false,
    })
}

/// `NOERROR aa: A 10.96.0.7`: code, whether it is authoritative, answers in order of their text
/// without owner and TTL, `+` the additional ones with their owners, `SOA` where it has one.
pub(crate) fn told(message: &Message) -> String {
    let mut answers: Vec<String> = message
        .answers
        .iter()
        .map(|r| format!("{} {}", r.record_type(), r.data))
        .collect();
    answers.sort();
    let mut more: Vec<String> = message
        .additionals
        .iter()
        .map(|r| format!("+ {} {} {}", r.name, r.record_type(), r.data))
        .collect();
    more.sort();
    answers.extend(more);
    if message
        .authorities
        .iter()
        .any(|r| r.record_type() == RecordType::SOA)
    {
        answers.push("SOA".to_owned());
    }
    let code = match message.metadata.response_code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        other => panic!("{other}"),
    };
    let aa = if message.metadata.authoritative {
        " aa"
    } else {
        ""
    };
    if answers.is_empty() {
        format!("{code}{aa}")
    } else {
        format!("{code}{aa}: {}", answers.join(", "))
    }
}

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    // Labels as they are: that of an IPv6 address may begin with a dash.
    let labels = name.split('.').filter(|label| !label.is_empty());
    let name = Name::from_labels(labels.map(str::as_bytes)).unwrap();
    message.add_query(Query::query(name, kind));
    message
}

/// Asks by UDP as dig does.
pub(crate) async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let mut message = question(name, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    let answer = exchange(server, &message.to_vec().unwrap()).await;
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert!(
        answer.queries[0].name().eq_case(message.queries[0].name()),
        "case is kept"
    );
    answer
}

/// As [`ask`], and again each second: what a socket has no room for is lost.
pub(crate) async fn ask_in_a_flood(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let mut answers = FuturesUnordered::new();
    let waiting = async {
        loop {
            answers.push(ask(server, name, kind));
            let second = tokio::time::sleep(Duration::from_secs(1));
            if let Ok(Some(answer)) =
                tokio::time::timeout_at(second.deadline(), answers.next()).await
            {
                return answer;
            }
        }
    };
    waiting.await
}

/// Sends bytes by UDP and gives the bytes that come back.
pub(crate) async fn exchange(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(request).await.unwrap();
    let mut answer = vec![0; 65_535];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer))
        .await
        .expect("no answer")
        .unwrap();
    answer.truncate(length);
    answer
}

/// A connection to the server.
pub(crate) struct Tcp(pub(crate) TcpStream);

impl Tcp {
    pub(crate) async fn connect(server: SocketAddr) -> Self {
        Self(TcpStream::connect(server).await.unwrap())
    }

    pub(crate) async fn ask(&mut self, message: &Message) -> Message {
        self.send(&message.to_vec().unwrap()).await;
        Message::from_vec(&self.receive().await).unwrap()
    }

    pub(crate) async fn send(&mut self, request: &[u8]) {
        self.0.write_u16(request.len() as u16).await.unwrap();
        self.0.write_all(request).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Vec<u8> {
        let receiving = async {
            let length = self.0.read_u16().await.unwrap();
            let mut answer = vec![0; length.into()];
            self.0.read_exact(&mut answer).await.unwrap();
            answer
        };
        tokio::time::timeout(PATIENCE, receiving)
            .await
            .expect("no answer")
    }
}

/// What a resolver says to a question that came by TCP or not; nothing is silence.
type Says = Arc<dyn Fn(&Message, bool) -> Option<Vec<u8>> + Send + Sync>;

/// A resolver of the laptop that remembers what it was asked.
pub(crate) struct Resolver {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Resolver {
    pub(crate) async fn start(
        tasks: &Tasks,
        says: impl Fn(&Message, bool) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let says: Says = Arc::new(says);
        let answer = {
            let asked = Arc::clone(&asked);
            Arc::new(move |bytes: &[u8], tcp: bool| {
                let message = Message::from_vec(bytes).unwrap();
                let (name, kind) = (message.queries[0].name(), message.queries[0].query_type());
                let by = if tcp { "tcp" } else { "udp" };
                asked
                    .lock()
                    .unwrap()
                    .push(format!("{} {kind} {by}", name.to_ascii()));
                says(&message, tcp)
            })
        };
        let by_udp = Arc::clone(&answer);
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
                if let Some(answer) = by_udp(&buffer[..length], false) {
                    udp.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        tasks.spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                let mut tcp = Tcp(stream);
                let request = tcp.receive().await;
                if let Some(answer) = answer(&request, true) {
                    tcp.send(&answer).await;
                }
            }
        });
        Self { address, asked }
    }

    /// What it was asked, in order: `www.example.com. A udp`. Whether it leads back to the server,
    /// which is asked too, is left out.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.retain(|name| !name.starts_with("loop.kdev-"));
        asked
    }
}

/// The public DNS: one name, with an IPv4 address.
pub(crate) fn public(message: &Message, _: bool) -> Option<Vec<u8>> {
    let query = &message.queries[0];
    let known = query.name().to_lowercase() == Name::from_str("www.example.com.").unwrap();
    let mut answer = reply(message);
    if !known {
        answer.metadata.response_code = ResponseCode::NXDomain;
    } else if query.query_type() == RecordType::A {
        let address = RData::A("192.0.2.53".parse().unwrap());
        answer.answers = vec![Record::from_rdata(query.name().clone(), 300, address)];
    }
    Some(answer.to_vec().unwrap())
}

/// An answer without records.
pub(crate) fn reply(message: &Message) -> Message {
    let mut answer = Message::response(message.metadata.id, message.metadata.op_code);
    answer.metadata.recursion_available = true;
    answer.queries.clone_from(&message.queries);
    answer
}
