//! Garbage, floods, and clients that are slow or many.

use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode};
use hickory_proto::rr::RecordType::{A, TXT};
use kdev::dns::{MAX_CONNECTIONS, MAX_WAITING};
use kdev::task::Tasks;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::relay::serve;
use crate::support::{
    PATIENCE, Resolver, Tcp, ask_in_a_flood, exchange, public, question, source, told,
};

#[tokio::test]
async fn malformed_messages_get_an_error_or_nothing() {
    let tasks = Tasks::new();
    let resolver = Resolver::start(&tasks, public).await;
    let server = serve(source(&[resolver.address]), &tasks).await;
    let good = question("many.shop.svc.cluster.local", A).to_vec().unwrap();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let answered = [
        ("two questions", changed(&|b| b[5] = 2), "FORMERR"),
        ("no question", changed(&|b| b[5] = 0), "FORMERR"),
        (
            "a name that points to itself",
            changed(&|b| b[12..14].copy_from_slice(&[0xc0, 12])),
            "FORMERR",
        ),
        (
            "a name without an end",
            changed(&|b| b.truncate(20)),
            "FORMERR",
        ),
        ("no type", changed(&|b| b.truncate(b.len() - 4)), "FORMERR"),
        ("an update", changed(&|b| b[2] |= 5 << 3), "NOTIMP"),
        (
            "more records than there are",
            changed(&|b| b[11] = 9),
            "FORMERR",
        ),
        ("a header alone", good[..12].to_vec(), "FORMERR"),
    ];
    for (what, bytes, expected) in &answered {
        let answer = Message::from_vec(&exchange(server, bytes).await).unwrap();
        assert_eq!(told(&answer), *expected, "{what}");
        assert_eq!(answer.metadata.id.to_be_bytes(), bytes[..2], "{what}");
        let mut tcp = Tcp::connect(server).await;
        tcp.send(bytes).await;
        let answer = Message::from_vec(&tcp.receive().await).unwrap();
        assert_eq!(told(&answer), *expected, "{what} by TCP");
    }
    let mut newer = question("many.shop.svc.cluster.local", A);
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    let answer = Message::from_vec(&exchange(server, &newer.to_vec().unwrap()).await).unwrap();
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS");
    // What must not be answered is followed by what is, so that silence is seen.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    for noise in [
        Vec::new(),
        vec![0],
        good[..11].to_vec(),
        changed(&|b| b[2] |= 0x80),
        vec![0; 5000],
        vec![0xff; 60_000],
    ] {
        socket.send(&noise).await.unwrap();
    }
    socket.send(&good).await.unwrap();
    let mut answer = [0; 1500];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        answer[..2],
        good[..2],
        "the first answer is to the question"
    );
    assert!(length > 12);
    // The same by TCP ends the connection.
    for noise in [
        &[0, 0][..],
        &[0, 5, 1, 2, 3, 4, 5],
        &[0xff; 1000],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut tcp = TcpStream::connect(server).await.unwrap();
        tcp.write_all(noise).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(end.is_err() || rest.is_empty(), "{noise:?}");
    }
}

#[tokio::test]
async fn other_operations_and_classes() {
    let tasks = Tasks::new();
    let resolver = Resolver::start(&tasks, public).await;
    let server = serve(source(&[resolver.address]), &tasks).await;
    let mut chaos = question("version.bind", TXT);
    chaos.queries[0].set_query_class(hickory_proto::rr::DNSClass::CH);
    exchange(server, &chaos.to_vec().unwrap()).await;
    assert!(
        resolver
            .asked()
            .contains(&"version.bind. TXT udp".to_owned()),
        "relayed"
    );
    let mut chaos = question("many.shop.svc.cluster.local", A);
    chaos.queries[0].set_query_class(hickory_proto::rr::DNSClass::CH);
    let answer = Message::from_vec(&exchange(server, &chaos.to_vec().unwrap()).await).unwrap();
    assert_eq!(told(&answer), "REFUSED");
    let mut notify = question("example.com", A);
    notify.metadata.op_code = OpCode::Notify;
    let answer = Message::from_vec(&exchange(server, &notify.to_vec().unwrap()).await).unwrap();
    assert_eq!(told(&answer), "NOTIMP");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_questions_that_nobody_answers_leaves_the_clusters_names() {
    let tasks = Tasks::new();
    let silent = Resolver::start(&tasks, |_, _| None).await;
    let server = serve(source(&[silent.address]), &tasks).await;
    let flood = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    flood.connect(server).await.unwrap();
    let (mut failed, mut buffer) = (0, [0; 1500]);
    for n in 0..MAX_WAITING * 8 {
        let request = question(&format!("x{n}.example.org"), A).to_vec().unwrap();
        flood.send(&request).await.unwrap();
        if n % 64 == 0 {
            tokio::task::yield_now().await;
            while flood.try_recv(&mut buffer).is_ok() {
                failed += 1;
            }
        }
    }
    let answer = ask_in_a_flood(server, "many.shop.svc.cluster.local", A).await;
    assert!(told(&answer).starts_with("NOERROR"), "in the middle of it");
    // Those beyond the limit are told at once; the others get the same once the time is over.
    while failed == 0 {
        let more = tokio::time::timeout(PATIENCE, flood.recv(&mut buffer)).await;
        more.expect("a failure is told").unwrap();
        assert_eq!(buffer[3] & 0x0f, 2, "SERVFAIL");
        failed += 1;
    }
    let mut asked = silent.asked();
    asked.sort();
    asked.dedup();
    assert!(
        asked.len() <= MAX_WAITING * 2,
        "{} at the resolver",
        asked.len()
    );
}

/// As many connections as the system lets this process have, 10,000 at most.
fn connections() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    }
    // Both ends are of this process, and it has other files.
    let room = (usize::try_from(hard).unwrap_or(usize::MAX) - 512) / 2;
    room.min(10_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_push_the_idle_out() {
    let count = connections();
    let tasks = Tasks::new();
    let server = serve(source(&[]), &tasks).await;
    let request = question("many.shop.svc.cluster.local", A);
    let mut held = Vec::new();
    for n in 0..count {
        let mut stream = TcpStream::connect(server).await.unwrap();
        if n % 3 == 0 {
            // Half a question.
            stream.write_all(&[0, 40, 1]).await.unwrap();
        }
        held.push(stream);
        if n % 1000 == 0 {
            let answer = Tcp::connect(server).await.ask(&request).await;
            assert_eq!(answer.answers.len(), 1000, "after {n}");
        }
    }
    let answer = Tcp::connect(server).await.ask(&request).await;
    assert_eq!(answer.answers.len(), 1000, "after all of them");
    let mut open = 0;
    for stream in &mut held {
        let mut byte = [0];
        let ended = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
        open += usize::from(ended.is_err());
    }
    println!("{count} connections, {open} left open");
    // On a busy machine the last ones may not have been accepted when they are looked at.
    assert!(
        open <= MAX_CONNECTIONS * 2,
        "{open} of {count} are still open"
    );
}

#[tokio::test]
async fn many_questions_on_one_connection_are_answered_in_order() {
    let tasks = Tasks::new();
    let resolver = Resolver::start(&tasks, public).await;
    let server = serve(source(&[resolver.address]), &tasks).await;
    let mut tcp = Tcp::connect(server).await;
    let names = [
        "nope.shop.svc.cluster.local",
        "www.example.com",
        "many.shop.svc.cluster.local",
    ];
    let requests: Vec<Message> = names.iter().map(|name| question(name, A)).collect();
    for request in &requests {
        tcp.send(&request.to_vec().unwrap()).await;
    }
    for request in &requests {
        let answer = Message::from_vec(&tcp.receive().await).unwrap();
        assert_eq!(answer.metadata.id, request.metadata.id);
    }
}
