//! Questions of clients, and answers of resolvers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::Message;
use kdev::dns::{
    self, Endpoint, Found, Port, Protocol, Resolvers, Service, Sockets, Source, Subject, Zone,
};
use kdev::task::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::Runtime;

use super::fuzz;

/// Every name is there, in some form.
#[derive(Clone)]
struct Everything;

impl Zone for Everything {
    fn domain(&self) -> &str {
        "cluster.local"
    }

    fn namespace(&self) -> &str {
        "shop"
    }

    fn find(&self, subject: &Subject) -> Found {
        let port = Port {
            name: "http".into(),
            protocol: Protocol::Tcp,
            number: Some(80),
        };
        let endpoint = |n| Endpoint {
            host: None,
            ips: vec![
                Ipv4Addr::new(10, 244, 0, n).into(),
                std::net::Ipv6Addr::from(u128::from(n) << 64).into(),
            ],
            ports: vec![port.clone()],
        };
        match subject {
            Subject::Namespace(_) => Found::Namespace,
            Subject::Service(name) if name.name == "alias" => {
                Found::Service(Service::Alias("www.example.com".to_owned()))
            }
            Subject::Service(name) if name.name.starts_with('h') => {
                Found::Service(Service::Headless((0..200).map(endpoint).collect()))
            }
            Subject::Service(_) => Found::Service(Service::Cluster {
                ips: vec![Ipv4Addr::new(10, 96, 0, 1).into()],
                ports: vec![port],
            }),
            Subject::Endpoint(..) => Found::Unknown,
            Subject::Address(_) => Found::Owner(vec!["web.shop.svc".to_owned()]),
        }
    }

    fn may_ask(&self, _: &str) -> bool {
        true
    }

    async fn learn(&self, _: &Subject) -> Found {
        Found::Failed("nobody knows".to_owned())
    }
}

/// A server to feed, on a runtime of its own.
struct Server {
    runtime: Runtime,
    address: SocketAddr,
    /// What the resolver puts behind the question that it repeats.
    records: Arc<Mutex<Vec<u8>>>,
}

/// What every message after the garbage asks, to see that the server lives.
const PROBE: &[u8] =
    b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03web\x04shop\x03svc\x07cluster\x05local\0\0\x01\0\x01";

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let records: Arc<Mutex<Vec<u8>>> = Arc::default();
        let said = Arc::clone(&records);
        let address = runtime.block_on(async {
            let tasks = Tasks::new();
            let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let source = Source::fixed(Resolvers {
                servers: vec![resolver.local_addr().unwrap()],
                timeout: Duration::from_secs(1),
                attempts: 1,
                rotate: false,
            });
            tasks.spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok((length, peer)) = resolver.recv_from(&mut buffer).await {
                    let mut answer = buffer[..length].to_vec();
                    let said = said.lock().unwrap().clone();
                    answer[2] |= 0x80;
                    // Counts and records are the fuzzer's; the question is repeated.
                    let (counts, records) = said.split_at(said.len().min(3));
                    for (i, count) in counts.iter().enumerate() {
                        answer[7 + 2 * i] = count % 8;
                    }
                    answer.extend(records);
                    let _ = resolver.send_to(&answer, peer).await;
                }
            });
            let sockets = Sockets::bind(None).await.unwrap();
            let address = sockets.address();
            dns::serve(sockets, Everything, source, &tasks);
            address
        });
        Self {
            runtime,
            address,
            records,
        }
    }

    /// Sends `input` and a good question by UDP; all that comes back must be well-formed.
    fn by_udp(&self, input: &[u8]) {
        let fed = async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect(self.address).await.unwrap();
            socket.send(input).await.unwrap();
            socket.send(PROBE).await.unwrap();
            let mut answer = [0; 4096];
            loop {
                let length = socket.recv(&mut answer).await.unwrap();
                assert!(length >= 12 && answer[2] & 0x80 != 0, "an answer");
                // The garbage may have had the same id, which is as good.
                if answer[..2] == PROBE[..2] {
                    break;
                }
            }
        };
        self.within(fed);
    }

    /// Sends `input` by TCP, as one message or as it is, and wants the connection to end.
    fn by_tcp(&self, input: &[u8], framed: bool) {
        let fed = async {
            let (mut read, mut write) =
                TcpStream::connect(self.address).await.unwrap().into_split();
            if framed {
                let _ = write.write_u16(input.len() as u16).await;
            }
            // The server may have had enough before the end.
            let _ = write.write_all(input).await;
            let _ = write.shutdown().await;
            let mut answers = Vec::new();
            let _ = read.read_to_end(&mut answers).await;
            if framed && answers.len() > 2 {
                let length = usize::from(u16::from_be_bytes([answers[0], answers[1]]));
                assert_eq!(length, answers.len() - 2, "one answer to one message");
            }
        };
        self.within(fed);
    }

    fn within(&self, work: impl Future<Output = ()>) {
        self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), work)
                .await
                .expect("it ends");
        });
    }
}

#[test]
fn questions() {
    let server = Server::start();
    let seeds: &[&[u8]] = &[
        PROBE,
        b"\0\x01\x01\x00\0\x01\0\0\0\0\0\x01\x05heads\x04shop\x03svc\x07cluster\x05local\0\0\x21\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\x0c\0\x0a\0\x08abcdefgh",
        b"\0\x02\x01\x20\0\x01\0\0\0\0\0\0\x05_http\x04_tcp\x05heads\x04shop\x03svc\x07cluster\x05local\0\0\x21\0\x01",
        b"\0\x03\x01\x00\0\x01\0\0\0\0\0\0\x017\x010\x0296\x0210\x07in-addr\x04arpa\0\0\x0c\0\x01",
        b"\0\x04\x01\x00\0\x01\0\0\0\0\0\0\x08fd00--12\x04shop\x03pod\x07cluster\x05local\0\0\x1c\0\x01",
        b"\0\x05\x01\x00\0\x01\0\0\0\0\0\0\x03web\x04shop\0\0\xff\0\x01",
        b"\0\x06\x01\x00\0\x01\0\0\0\0\0\x01\x05alias\x04shop\x03svc\x07cluster\x05local\0\0\x01\0\x01\0\0\x29\x02\0\0\x01\0\0\0\0",
        b"\0\x07\x28\x00\0\x01\0\x01\0\0\0\0\x07cluster\x05local\0\0\x06\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\0\0\x01",
        b"\0\x08\x01\x00\0\x01\0\0\0\0\0\0\x0bdns-version\x07cluster\x05local\0\0\x10\0\x01",
    ];
    fuzz("dns questions", seeds, |input, random| {
        match random.below(4) {
            0 => server.by_tcp(input, true),
            1 => server.by_tcp(input, false),
            _ => server.by_udp(input),
        }
    });
}

#[test]
fn answers() {
    let server = Server::start();
    let question = b"\0\x06\x01\x00\0\x01\0\0\0\0\0\0\x05alias\x04shop\x03svc\x07cluster\x05local\0\0\x01\0\x01";
    let seeds: &[&[u8]] = &[
        b"\x01\0\0\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\0\0\x01",
        b"\x02\0\0\xc0\x0c\0\x05\0\x01\0\0\0\x05\0\x02\xc0\x10\xc0\x10\0\x01\0\x01\0\0\0\x05\0\x04\x0a\0\0\x01",
        b"\0\x01\0\xc0\x10\0\x06\0\x01\0\0\0\x05\0\x18\xc0\x0c\xc0\x0c\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05",
        b"\x01\0\x01\xc0\x0c\0\x10\0\x01\0\0\0\x05\0\x03\x02hi\0\0\x29\x04\xd0\0\0\0\0\0\0",
        b"",
    ];
    fuzz("dns answers", seeds, |input, _| {
        *server.records.lock().unwrap() = input.to_vec();
        let asked = async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect(server.address).await.unwrap();
            socket.send(question).await.unwrap();
            let mut answer = [0; 4096];
            let length = socket.recv(&mut answer).await.unwrap();
            // Whatever the resolver said, the server's own answer is sound.
            let message = Message::from_vec(&answer[..length]).unwrap();
            assert_eq!(message.metadata.id, 6);
            assert!(!message.answers.is_empty(), "the alias");
        };
        server.within(asked);
    });
}
