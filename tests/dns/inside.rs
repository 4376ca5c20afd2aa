//! Domains that are the cluster's by the user's word: only its DNS is asked about them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType::{self, A, AAAA};
use hickory_proto::rr::{RData, Record};
use kdev::addr::{Namespaced, Target};
use kdev::dial::{Answer, Answered, DialError, DialRelay, Flow, NAMESERVERS, Room, Routes, join};
use kdev::dns::{self, Found, Inside, Sockets, Subject, Zone};
use kdev::io::BoxIo;
use kdev::task::Tasks;
use tokio::net::{TcpStream, UdpSocket};

use super::support::{Resolver, Tcp, ask, public, question, reply, source, told};

/// A relay beside whose pod a nameserver stands.
#[derive(Clone)]
struct Relay {
    nameserver: SocketAddr,
    tasks: Tasks,
    gone: Arc<AtomicBool>,
}

impl DialRelay for Relay {
    type Io = BoxIo;

    fn usable(&self) -> bool {
        !self.gone.load(Ordering::Relaxed)
    }

    fn hopeless(&self) -> Option<DialError> {
        (!self.usable()).then(|| DialError::Cluster {
            reason: "no relay was found".to_owned(),
            fix: String::new(),
        })
    }

    async fn dial_relay(&self, target: &Target, _: Answer) -> Result<BoxIo, DialError> {
        assert_eq!(target.to_string(), format!("{NAMESERVERS}:53"));
        Ok(Box::new(TcpStream::connect(self.nameserver).await.unwrap()))
    }

    async fn dial_relay_udp(&self, target: &Target) -> Result<BoxIo, DialError> {
        assert_eq!(target.to_string(), format!("{NAMESERVERS}:53"));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.nameserver).await.unwrap();
        let (near, far) = tokio::io::duplex(1 << 10);
        self.tasks.spawn(async move {
            let room = Room::new(1 << 20);
            let far = Flow::capsules(far, room.clone());
            join(far, Flow::socket(socket), Duration::from_secs(10), &room).await;
        });
        Ok(Box::new(near))
    }
}

/// A cluster with an alias of a name of the domain.
#[derive(Clone)]
struct Aliased;

impl Zone for Aliased {
    fn domain(&self) -> &str {
        "cluster.local"
    }

    fn namespace(&self) -> &str {
        "shop"
    }

    fn find(&self, subject: &Subject) -> Found {
        match subject {
            Subject::Service(name) if *name == Namespaced::new("shop", "db") => {
                Found::Service(dns::Service::Alias("db.corp.example".to_owned()))
            }
            _ => Found::Absent,
        }
    }

    fn may_ask(&self, _: &str) -> bool {
        false
    }

    async fn learn(&self, _: &Subject) -> Found {
        Found::Absent
    }
}

/// The cluster's own DNS, which knows every name.
fn corporate(message: &Message, _: bool) -> Option<Vec<u8>> {
    let query = &message.queries[0];
    let mut answer = reply(message);
    if query.query_type() == A {
        let address = RData::A("10.20.0.5".parse().unwrap());
        answer.answers = vec![Record::from_rdata(query.name().clone(), 30, address)];
    }
    Some(answer.to_vec().unwrap())
}

struct Stage {
    server: SocketAddr,
    /// The cluster's nameserver.
    inside: Resolver,
    /// The laptop's.
    outside: Resolver,
    answered: Answered,
    gone: Arc<AtomicBool>,
    _tasks: Tasks,
}

impl Stage {
    async fn set_up(
        says: impl Fn(&Message, bool) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let tasks = Tasks::new();
        let inside = Resolver::start(&tasks, says).await;
        let outside = Resolver::start(&tasks, public).await;
        let routes = Routes::parse(
            &[],
            &["www.corp.example".to_owned()],
            &["corp.example".to_owned(), "10.in-addr.arpa".to_owned()],
        );
        let (gone, answered) = (Arc::new(AtomicBool::new(false)), Answered::default());
        let relay = Relay {
            nameserver: inside.address,
            tasks: tasks.clone(),
            gone: gone.clone(),
        };
        let sockets = Sockets::bind(None).await.unwrap();
        let server = sockets.address();
        let way = Inside::new(routes.unwrap(), Some(relay), answered.clone());
        dns::serve_inside(sockets, Aliased, source(&[outside.address]), way, &tasks);
        Self {
            server,
            inside,
            outside,
            answered,
            gone,
            _tasks: tasks,
        }
    }

    async fn told(&self, name: &str, kind: RecordType) -> String {
        told(&ask(self.server, name, kind).await)
    }
}

#[tokio::test]
async fn names_of_the_domain_go_into_the_cluster_and_nowhere_else() {
    let stage = Stage::set_up(corporate).await;
    let address = "10.20.0.5".parse().unwrap();
    assert!(!stage.answered.has(address));
    for name in ["corp.example", "db.corp.example", "A.b.Corp.Example"] {
        assert_eq!(stage.told(name, A).await, "NOERROR: A 10.20.0.5", "{name}");
        assert_eq!(stage.told(name, AAAA).await, "NOERROR", "{name}");
    }
    assert!(stage.answered.has(address));
    let pointer = stage.told("5.0.20.10.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(pointer, "NOERROR");
    assert_eq!(stage.inside.asked().len(), 7);
    assert_eq!(stage.outside.asked(), [""; 0]);
    // What the user leaves out, and what only looks like it.
    for name in ["www.corp.example", "xcorp.example", "www.example.com"] {
        stage.told(name, A).await;
    }
    assert_eq!(stage.inside.asked().len(), 7);
    assert_eq!(stage.outside.asked().len(), 3);
    assert!(!stage.answered.has("192.0.2.53".parse().unwrap()));
}

#[tokio::test]
async fn a_question_by_connection_goes_by_connection() {
    let stage = Stage::set_up(corporate).await;
    let mut tcp = Tcp::connect(stage.server).await;
    for _ in 0..2 {
        let answer = tcp.ask(&question("db.corp.example", A)).await;
        assert_eq!(told(&answer), "NOERROR: A 10.20.0.5");
    }
    assert_eq!(stage.inside.asked(), ["db.corp.example. A tcp"; 2]);
}

#[tokio::test]
async fn an_alias_of_such_a_name_is_followed_in_the_cluster() {
    let stage = Stage::set_up(corporate).await;
    let answer = stage.told("db.shop.svc.cluster.local", A).await;
    assert_eq!(answer, "NOERROR aa: A 10.20.0.5, CNAME db.corp.example.");
    assert_eq!(stage.outside.asked(), [""; 0]);
    assert!(stage.answered.has("10.20.0.5".parse().unwrap()));
}

#[tokio::test]
async fn without_a_relay_there_is_no_answer_and_nobody_else_is_asked() {
    let stage = Stage::set_up(corporate).await;
    stage.gone.store(true, Ordering::Relaxed);
    for name in ["db.corp.example", "db.shop.svc.cluster.local"] {
        let answer = stage.told(name, A).await;
        assert!(answer.starts_with("SERVFAIL"), "{name}: {answer}");
    }
    assert_eq!(stage.outside.asked(), [""; 0]);
    assert_eq!(stage.inside.asked(), [""; 0]);
}

#[tokio::test]
async fn a_datagram_that_is_lost_is_sent_again_and_a_forged_answer_is_none() {
    let before = AtomicBool::new(false);
    let stage = Stage::set_up(move |message, tcp| {
        if before.swap(true, Ordering::Relaxed) {
            return corporate(message, tcp);
        }
        let mut forged = corporate(message, tcp)?;
        forged[0] ^= 1;
        Some(forged)
    })
    .await;
    let answer = stage.told("db.corp.example", A).await;
    assert_eq!(answer, "NOERROR: A 10.20.0.5");
    assert_eq!(stage.inside.asked(), ["db.corp.example. A udp"; 2]);
}
