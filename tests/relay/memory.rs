//! A relay whose memory runs low: who is closed, who is refused, and who notices nothing.

use std::time::{Duration, Instant};

use kdev::dial::DialError;
use kdev::tunnel::{Budget, Identity, Opener, Protocol, Role, Secret, Stream, connect, open};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::support::*;

/// Of so little a relay has 2 MiB for connections: some 200 that do nothing.
const LITTLE: usize = 4 << 20;
/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Asks on a connection that goes on; the status, or 0 where there is no answer.
async fn ask(caller: &mut TcpStream, path: &str, user: &str) -> u16 {
    let text = format!("GET {path} HTTP/1.1\r\nHost: web.shop\r\nx-user: {user}\r\n\r\n");
    let mut answer = Vec::new();
    let exchange = async {
        caller.write_all(text.as_bytes()).await.ok()?;
        let end = loop {
            if let Some(at) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if caller.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1)?.lines().next()?;
        let length: usize = length.parse().ok()?;
        while answer.len() < end + length {
            if caller.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
        }
        head.get(9..12)?.parse().ok()
    };
    timeout(LONG, exchange).await.ok().flatten().unwrap_or(0)
}

/// Whether the other side has ended a connection, or does within a moment.
async fn is_ended(caller: &mut TcpStream) -> bool {
    let read = timeout(Duration::from_millis(50), caller.read(&mut [0; 16])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

/// A caller with another address.
async fn from_elsewhere(stage: &Stage) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 9, 9, 9], 0).into()).unwrap();
    let address = (std::net::IpAddr::from(RELAY), stage.first).into();
    socket.connect(address).await.unwrap()
}

/// A caller that asks, and reads nothing of the answer.
async fn deaf(stage: &Stage, path: &str, user: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let address = (std::net::IpAddr::from(RELAY), stage.first).into();
    let mut caller = socket.connect(address).await.unwrap();
    let text = format!("GET {path} HTTP/1.1\r\nHost: web.shop\r\nx-user: {user}\r\n\r\n");
    // Where it was closed already, it was closed.
    let _ = caller.write_all(text.as_bytes()).await;
    caller
}

#[tokio::test(flavor = "multi_thread")]
async fn of_idle_callers_the_oldest_go_and_the_newest_are_served() {
    let stage = Stage::with_memory(LITTLE).await;
    stage.plain_pods().await;
    let mut callers = Vec::new();
    for number in 0..500 {
        let mut caller = stage.caller().await;
        assert_eq!(ask(&mut caller, "/", "eve").await, 200, "caller {number}");
        callers.push(caller);
    }
    for (number, caller) in callers.iter_mut().enumerate() {
        match number {
            0..250 => assert!(is_ended(caller).await, "caller {number} is still there"),
            480.. => assert_eq!(ask(caller, "/", "eve").await, 200, "caller {number}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_do_not_read_go_for_those_who_do() {
    // Room for some 100 stalled ones.
    let stage = Stage::with_memory(8 * LITTLE).await;
    stage.plain_pods().await;
    let mut stalled = Vec::new();
    let (mut steady, mut failed) = (stage.caller().await, 0);
    for _ in 0..400 {
        stalled.push(deaf(&stage, "/much", "eve").await);
        sleep(Duration::from_millis(10)).await;
        failed += usize::from(ask(&mut steady, "/", "eve").await != 200);
        failed += usize::from(stage.get("/", &[]).await.0 != 200);
    }
    assert_eq!(failed, 0, "requests beside the stalled ones");
    // The first of them are gone, with a reset once they read what the kernel has for them.
    let mut gone = 0;
    for caller in &mut stalled[..100] {
        let mut sink = vec![0; 64 << 10];
        while let Ok(Ok(1..)) = timeout(Duration::from_millis(50), caller.read(&mut sink)).await {}
        gone += usize::from(is_ended(caller).await);
    }
    assert!(gone >= 90, "{gone} of the first 100 were closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_matched_requests_leaves_room_for_the_others() {
    let stage = Stage::with_memory(LITTLE).await;
    stage.plain_pods().await;
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let app = listener.local_addr().unwrap();
    tokio::spawn(plain(listener));
    let mut ann = stage.kdev("ann", app).await;
    ann.mine("ann").await;
    let mut waiting = Vec::new();
    for _ in 0..80 {
        waiting.push(deaf(&stage, "/never", "ann").await);
    }
    // The last of them are told so, at once.
    let last = waiting.last_mut().unwrap();
    let mut answer = vec![0; 4096];
    let read = timeout(LONG, last.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.contains(" 503 "), "{answer}");
    assert!(answer.contains("x-kdev-error: full"), "{answer}");
    for _ in 0..20 {
        assert_eq!(stage.get("/", &[]).await.0, 200);
    }
    drop(waiting);
    // And when they have gone, there is room again.
    let began = Instant::now();
    while stage.get("/", &[("x-user", "ann")]).await.0 != 200 {
        assert!(began.elapsed() < LONG, "still full");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kdev_comes_back_to_a_relay_that_is_full_of_callers() {
    let stage = Stage::with_memory(LITTLE).await;
    stage.plain_pods().await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(deaf(&stage, "/never", "eve").await);
    }
    // There is no room for one more, and nobody may be closed for it.
    let mut answer = vec![0; 4096];
    let read = timeout(LONG, waiting.last_mut().unwrap().read(&mut answer));
    let read = read.await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.contains("x-kdev-error: full"), "{answer}");
    forward(&stage, &Identity::random()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_holds_less_than_its_share_is_always_served() {
    let stage = Stage::with_memory(LITTLE).await;
    stage.plain_pods().await;
    let mut kept = from_elsewhere(&stage).await;
    let mut waiting = Vec::new();
    // None of them may be closed for its like: they wait for their answer, and not for long yet.
    for number in 0..150 {
        waiting.push(deaf(&stage, "/never", "eve").await);
        if number % 10 == 0 {
            assert_eq!(ask(&mut kept, "/", "eve").await, 200, "after {number}");
            let mut fresh = from_elsewhere(&stage).await;
            assert_eq!(ask(&mut fresh, "/", "eve").await, 200, "after {number}");
        }
    }
    // What was freed for the other address is soon taken again, and then there is nothing more.
    for _ in 0..30 {
        waiting.push(deaf(&stage, "/never", "eve").await);
    }
    let mut answer = vec![0; 4096];
    let read = timeout(LONG, waiting.last_mut().unwrap().read(&mut answer));
    let read = read.await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.contains("x-kdev-error: full"), "{answer}");
}

async fn forward(stage: &Stage, identity: &Identity) -> Opener {
    let socket = TcpStream::connect(stage.tunnels).await.unwrap();
    let secret = Secret::new(KEY).unwrap();
    let connected = connect(socket, Role::Forward, identity, &secret).await;
    let (io, _) = connected.unwrap();
    let share = Budget::new(64 << 20).share().unwrap();
    let (opener, driver) = open(io, share).await.unwrap();
    tokio::spawn(driver.run());
    opener
}

/// Opens streams until one is refused; they, and why.
async fn fill(opener: &Opener, target: &str, most: usize) -> (Vec<Stream>, Option<DialError>) {
    let target = target.parse().unwrap();
    let mut streams = Vec::new();
    while streams.len() < most {
        let mut stream = opener.open(&target, Protocol::Tcp).await.unwrap();
        match stream.opened().await {
            Ok(()) => streams.push(stream),
            Err(error) => return (streams, Some(error)),
        }
    }
    (streams, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn forward_streams_have_a_share_and_close_no_caller() {
    let stage = Stage::with_memory(LITTLE).await;
    stage.plain_pods().await;
    let target = format!("127.0.0.1:{}", stage.first);
    let mut caller = stage.caller().await;
    assert_eq!(ask(&mut caller, "/", "eve").await, 200);
    let mut held = Vec::new();
    // A session has its share, through however many tunnels.
    let identity = Identity::random();
    for tunnel in 0..2 {
        let opener = forward(&stage, &identity).await;
        let (streams, refused) = fill(&opener, &target, 1000).await;
        let text = refused.expect("a limit").to_string();
        assert!(text.contains("a session may have 51 streams"), "{text}");
        assert_eq!(streams.len(), if tunnel == 0 { 51 } else { 0 });
        held.push((opener, streams));
    }
    // Others have theirs, and all together no more than half of what there is.
    let other = forward(&stage, &Identity::random()).await;
    let (streams, refused) = fill(&other, &target, 1000).await;
    assert!(streams.len() >= 40, "{} streams", streams.len());
    let text = refused.expect("a limit").to_string();
    assert!(text.contains("streams at a time"), "{text}");
    held.push((other, streams));
    for _ in 0..20 {
        assert_eq!(ask(&mut caller, "/", "eve").await, 200);
        assert_eq!(stage.get("/", &[]).await.0, 200);
    }
    // What was closed is free again.
    let (opener, streams) = held.swap_remove(0);
    drop(streams);
    let began = Instant::now();
    while fill(&opener, &target, 1).await.1.is_some() {
        assert!(began.elapsed() < LONG, "still full");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_rests_between_requests_of_all_kinds() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut caller = stage.caller().await;
    // Two and a half heads at once, then the rest, bodies of both kinds, and pauses between all.
    let get = "GET /a HTTP/1.1\r\nHost: web.shop\r\n\r\n";
    let (half, rest) = get.split_at(20);
    let post = "POST /b HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /c HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (first, second) = chunked.split_at(chunked.len() - 9);
    let mut seen = String::new();
    for (said, answers) in [
        (format!("{get}{get}{half}"), 2),
        (rest.to_owned(), 3),
        (post.to_owned(), 4),
        (get.to_owned(), 5),
        (first.to_owned(), 5),
        (second.to_owned(), 6),
        (get.to_owned(), 7),
    ] {
        caller.write_all(said.as_bytes()).await.unwrap();
        let began = Instant::now();
        while seen.matches("body: ").count() < answers {
            assert!(began.elapsed() < LONG, "{seen}");
            let mut piece = vec![0; 4096];
            let read = timeout(LONG, caller.read(&mut piece))
                .await
                .unwrap()
                .unwrap();
            assert_ne!(read, 0, "{seen}");
            seen += &String::from_utf8_lossy(&piece[..read]);
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(seen.matches("body: 5").count(), 2, "{seen}");
}
