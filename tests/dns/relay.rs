//! Everything else goes to the laptop's resolvers as it came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType::{self, A, TXT};
use kdev::addr::Namespaced;
use kdev::dns::{self, Found, Sockets, Source, Subject, Zone};
use kdev::task::Tasks;
use tokio::net::UdpSocket;

use crate::support::{Resolver, Tcp, ask, exchange, public, question, reply, source, told};

/// A cluster with a single, very headless Service.
#[derive(Clone)]
pub(crate) struct Small;

impl Zone for Small {
    fn domain(&self) -> &str {
        "cluster.local"
    }

    fn namespace(&self) -> &str {
        "shop"
    }

    fn find(&self, subject: &Subject) -> Found {
        let endpoint = |n: u32| dns::Endpoint {
            host: None,
            ips: vec![std::net::Ipv4Addr::from(0x0af4_0000 + n).into()],
            ports: Vec::new(),
        };
        match subject {
            Subject::Service(name) if *name == Namespaced::new("shop", "many") => {
                Found::Service(dns::Service::Headless((0..1000).map(endpoint).collect()))
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

pub(crate) async fn serve(source: Source, tasks: &Tasks) -> SocketAddr {
    let sockets = Sockets::bind(None).await.unwrap();
    let address = sockets.address();
    dns::serve(sockets, Small, source, tasks);
    address
}

#[tokio::test]
async fn bytes_go_through_unchanged_but_for_the_id() {
    let tasks = Tasks::new();
    // An answer that no library would write: flags, odd records, bytes behind the end.
    let resolver = Resolver::start(&tasks, |message, _| {
        let mut bytes = reply(message).to_vec().unwrap();
        bytes[2] |= 0x04;
        bytes[3] |= 0x20;
        bytes.extend([0xde, 0xad, 0xbe, 0xef]);
        Some(bytes)
    })
    .await;
    let server = serve(source(&[resolver.address]), &tasks).await;
    let request = question("wWw.eXample.org", TXT);
    let answer = exchange(server, &request.to_vec().unwrap()).await;
    assert_eq!(answer[..2], request.metadata.id.to_be_bytes());
    assert!(answer.ends_with(&[0xde, 0xad, 0xbe, 0xef]));
    assert_eq!((answer[2] & 0x04, answer[3] & 0x20), (0x04, 0x20));
    assert_eq!(
        resolver.asked(),
        ["wWw.eXample.org. TXT udp"],
        "case and all"
    );
    let over_tcp = Tcp::connect(server).await.ask(&request).await;
    assert_eq!(over_tcp.metadata.id, request.metadata.id);
    assert_eq!(resolver.asked()[1], "wWw.eXample.org. TXT tcp");
}

#[tokio::test]
async fn ids_are_ours_and_new_for_each_question() {
    let tasks = Tasks::new();
    let ids: Arc<std::sync::Mutex<Vec<u16>>> = Arc::default();
    let seen = Arc::clone(&ids);
    let resolver = Resolver::start(&tasks, move |message, tcp| {
        seen.lock().unwrap().push(message.metadata.id);
        public(message, tcp)
    })
    .await;
    let server = serve(source(&[resolver.address]), &tasks).await;
    let request = question("www.example.com", A).to_vec().unwrap();
    for _ in 0..8 {
        exchange(server, &request).await;
    }
    let mut ids = ids.lock().unwrap().clone();
    ids.sort_unstable();
    ids.dedup();
    // The resolver is on this machine, so it is also asked whether it leads back here.
    assert!(ids.len() >= 7, "{ids:?}");
}

#[tokio::test]
async fn the_next_resolver_is_asked_where_one_fails() {
    let tasks = Tasks::new();
    let broken = |code: ResponseCode| {
        move |message: &Message, _| {
            let mut answer = reply(message);
            answer.metadata.response_code = code;
            Some(answer.to_vec().unwrap())
        }
    };
    let silent = Resolver::start(&tasks, |_, _| None).await;
    let failing = Resolver::start(&tasks, broken(ResponseCode::ServFail)).await;
    let refusing = Resolver::start(&tasks, broken(ResponseCode::Refused)).await;
    let good = Resolver::start(&tasks, public).await;
    let gone = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let order = [
        gone,
        silent.address,
        failing.address,
        refusing.address,
        good.address,
    ];
    let server = serve(source(&order), &tasks).await;
    let answer = ask(server, "www.example.com", A).await;
    assert_eq!(told(&answer), "NOERROR: A 192.0.2.53");
    let heard = |resolver: &Resolver| {
        let asked = resolver.asked();
        asked.iter().filter(|name| name.starts_with("www.")).count()
    };
    assert_eq!(
        [&silent, &failing, &refusing, &good].map(heard),
        [1, 1, 1, 1]
    );
    // Who was silent is not waited for again.
    let answer = ask(server, "www.example.com", A).await;
    assert_eq!(told(&answer), "NOERROR: A 192.0.2.53");
    assert_eq!(
        [&silent, &failing, &refusing, &good].map(heard),
        [1, 2, 2, 2]
    );
    // "No such name" is an answer.
    let order = [good.address, failing.address];
    let server = serve(source(&order), &tasks).await;
    assert_eq!(told(&ask(server, "nope.example.org", A).await), "NXDOMAIN");
    // Where nobody has better, the refusal is the answer.
    let server = serve(source(&[failing.address, refusing.address]), &tasks).await;
    assert_eq!(told(&ask(server, "www.example.com", A).await), "SERVFAIL");
    let server = serve(source(&[gone]), &tasks).await;
    assert_eq!(told(&ask(server, "www.example.com", A).await), "SERVFAIL");
}

#[tokio::test]
async fn forged_answers_are_not_taken() {
    let tasks = Tasks::new();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = socket.local_addr().unwrap();
    tasks.spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let message = Message::from_vec(&buffer[..length]).unwrap();
            let forged = |change: &dyn Fn(&mut Message)| {
                let mut answer = reply(&message);
                answer.metadata.response_code = ResponseCode::NXDomain;
                change(&mut answer);
                answer.to_vec().unwrap()
            };
            let other = question("www.example.net", A).queries;
            let kind = question("www.example.com", RecordType::from(0x21)).queries;
            let lies = [
                forged(&|m| m.metadata.id = m.metadata.id.wrapping_add(1)),
                forged(&|m| m.queries.clone_from(&other)),
                forged(&|m| m.queries.clone_from(&kind)),
                forged(&|m| m.queries.clear()),
                forged(&|m| m.metadata.message_type = hickory_proto::op::MessageType::Query),
                vec![0; 3],
            ];
            for lie in lies {
                socket.send_to(&lie, peer).await.unwrap();
            }
            let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            stranger.send_to(&forged(&|_| {}), peer).await.unwrap();
            let truth = public(&message, false).unwrap();
            socket.send_to(&truth, peer).await.unwrap();
        }
    });
    let server = serve(source(&[resolver]), &tasks).await;
    let answer = ask(server, "www.example.com", A).await;
    assert_eq!(told(&answer), "NOERROR: A 192.0.2.53");
}

#[tokio::test]
async fn truncated_answers_are_passed_on_and_long_ones_come_by_tcp() {
    let tasks = Tasks::new();
    let resolver = Resolver::start(&tasks, |message, tcp| {
        let mut answer = reply(message);
        answer.metadata.truncation = !tcp;
        Some(answer.to_vec().unwrap())
    })
    .await;
    let server = serve(source(&[resolver.address]), &tasks).await;
    let request = question("big.example.org", TXT);
    let by_udp = Message::from_vec(&exchange(server, &request.to_vec().unwrap()).await).unwrap();
    assert!(by_udp.metadata.truncation);
    let by_tcp = Tcp::connect(server).await.ask(&request).await;
    assert!(!by_tcp.metadata.truncation);
}

#[tokio::test]
async fn own_answers_fit_and_say_where_they_do_not() {
    let tasks = Tasks::new();
    let server = serve(source(&[]), &tasks).await;
    let request = question("many.shop.svc.cluster.local", A);
    let plain = exchange(server, &request.to_vec().unwrap()).await;
    assert!(plain.len() <= 512, "{}", plain.len());
    let plain = Message::from_vec(&plain).unwrap();
    assert!(
        plain.metadata.truncation && plain.answers.len() > 20,
        "{}",
        plain.answers.len()
    );
    for (says, most) in [(0, 512), (600, 600), (1232, 1232), (65_535, 1232)] {
        let mut request = request.clone();
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_max_payload(says);
        request.set_edns(edns);
        let answer = exchange(server, &request.to_vec().unwrap()).await;
        assert!(
            answer.len() <= most && answer.len() > most - 64,
            "{says}: {}",
            answer.len()
        );
        let answer = Message::from_vec(&answer).unwrap();
        assert!(
            answer.metadata.truncation && answer.edns.is_some(),
            "{says}"
        );
    }
    let mut tcp = Tcp::connect(server).await;
    for _ in 0..2 {
        let whole = tcp.ask(&request).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 1000);
    }
}

#[tokio::test]
async fn a_resolver_that_leads_back_here_is_not_asked() {
    let tasks = Tasks::new();
    let sockets = Sockets::bind(None).await.unwrap();
    let server = sockets.address();
    // It sends on whatever it is asked, to us, and gives our answer.
    let asked = Arc::new(AtomicUsize::new(0));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let circle = socket.local_addr().unwrap();
    let (count, forwarding) = (Arc::clone(&asked), tasks.clone());
    let socket = Arc::new(socket);
    tasks.spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            let (request, socket) = (buffer[..length].to_vec(), Arc::clone(&socket));
            forwarding.spawn(async move {
                let answer = exchange(server, &request).await;
                let _ = socket.send_to(&answer, peer).await;
            });
        }
    });
    let good = Resolver::start(&tasks, public).await;
    dns::serve(
        sockets,
        Small,
        source(&[server, circle, good.address]),
        &tasks,
    );
    // Found out by the first question, at the latest.
    let begun = std::time::Instant::now();
    loop {
        let before = asked.load(Ordering::Relaxed);
        let answer = ask(server, "www.example.com", A).await;
        if asked.load(Ordering::Relaxed) == before && told(&answer) == "NOERROR: A 192.0.2.53" {
            break;
        }
        assert!(
            begun.elapsed() < crate::support::PATIENCE,
            "the circle is not seen"
        );
    }
    let only_itself = serve(source(&[circle]), &tasks).await;
    assert!(told(&ask(only_itself, "www.example.com", A).await).starts_with("NOERROR"));
}
