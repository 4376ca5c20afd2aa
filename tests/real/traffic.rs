//! Bytes arrive as they were sent, and HTTP's corners work through the proxy as without it.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::{self, Sha256, Stream, Way};
use crate::program::Running;

const PEER: &str = "peer.shop:80";
const UPLOAD: usize = 200 << 20;
/// How long a transfer may take: half a minute and more for what takes seconds on an idle machine.
const TRANSFER_LIMIT: Duration = Duration::from_secs(120);

/// The runtime that carries a port-forward does not pass the end of one direction on. When one has
/// ended, it gives the other this long, then closes both.
const GRACE: Duration = Duration::from_secs(1);

/// `connect` and `forward`.
struct Session {
    connect: Running,
    forward: Running,
}

impl Session {
    fn start() -> Self {
        Self {
            connect: Running::connect("dev"),
            forward: Running::forward("dev", &[PEER, "peer.shop:9001", "peer.shop:9000"]),
        }
    }

    fn stop(self) {
        self.connect.stop();
        self.forward.stop();
    }
}

/// Bytes in which each place looks different, so that none can be lost or doubled unseen.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        // xorshift64, as Marsaglia gave it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn sum(bytes: &[u8]) -> String {
    let mut sum = Sha256::new();
    sum.update(bytes);
    sum.hex()
}

/// Sends `body` by PUT and gives what the peer says it got.
async fn upload(way: Way, body: &[u8], chunked: bool) -> String {
    let mut stream = way.open(PEER).await.unwrap();
    let mut head = way.head("PUT", PEER, "/upload");
    if chunked {
        head += "Transfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for chunk in body.chunks(100_000) {
            let size = format!("{:x}\r\n", chunk.len());
            stream.write_all(size.as_bytes()).await.unwrap();
            stream.write_all(chunk).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    } else {
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
    }
    app::answer(&mut stream).await.unwrap().text()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn uploads_arrive_byte_for_byte() {
    let body = pattern(UPLOAD);
    let expected = format!("{UPLOAD} {}", sum(&body));
    let session = Session::start();
    let [socks5, _, absolute] = session.connect.ways();
    let port = Way::Port(session.forward.port(0));
    for (way, chunked) in [
        (socks5, false),
        (absolute, true),
        (absolute, false),
        (port, true),
    ] {
        let begun = Instant::now();
        let sent = tokio::time::timeout(TRANSFER_LIMIT, upload(way, &body, chunked)).await;
        assert_eq!(sent.unwrap(), expected, "{way:?}, chunked: {chunked}");
        let rate = UPLOAD as f64 / 1e6 / begun.elapsed().as_secs_f64();
        println!("{way:?}, chunked {chunked}: {rate:.0} MB/s up");
    }
    session.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn downloads_arrive_byte_for_byte() {
    let connect = Running::connect("dev");
    let forward = Running::forward("dev", &["web.shop:80"]);
    let mut ways = connect.ways().to_vec();
    ways.push(Way::Port(forward.port(0)));
    let sums = ways[0]
        .get("web.shop:80", "/SHA256SUMS")
        .await
        .unwrap()
        .text();
    let expected = sums.lines().find(|l| l.ends_with(" medium")).unwrap();
    for way in ways {
        let begun = Instant::now();
        let medium = tokio::time::timeout(TRANSFER_LIMIT, way.get("web.shop:80", "/medium"));
        let body = medium.await.unwrap().unwrap().body;
        let rate = body.len() as f64 / 1e6 / begun.elapsed().as_secs_f64();
        assert!(expected.starts_with(&sum(&body)), "{way:?}");
        println!("{way:?}: {rate:.0} MB/s down");
    }
    connect.stop();
    forward.stop();
}

/// Half-close, as far as this transport has it: after the app ended its direction, what the pod
/// sends within a second still arrives; then the stream ends, in order and without hanging. That
/// the app has ended, the pod learns only then: a server that answers at the end of its input has
/// nobody left to answer to.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn an_app_that_ended_its_direction_still_gets_what_comes_within_a_second() {
    let text = pattern(300_000);
    let session = Session::start();
    let [socks5, connect, _] = session.connect.ways();
    for way in [socks5, connect, Way::Port(session.forward.port(1))] {
        let mut stream = way.open("peer.shop:9001").await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream.get_mut());
        let sending = async {
            write.write_all(&text).await.unwrap();
            write.shutdown().await.unwrap();
            Instant::now()
        };
        let mut echoed = Vec::new();
        let reading = async {
            let read = read.read_to_end(&mut echoed);
            let read = tokio::time::timeout(GRACE * 5, read).await;
            read.expect("the stream hangs").unwrap();
            Instant::now()
        };
        let (ended, seen) = tokio::join!(sending, reading);
        assert!(
            echoed == text,
            "{way:?}: {} of {}",
            echoed.len(),
            text.len()
        );
        println!("{way:?}: ended {:?} after the app", seen - ended);
    }
    let sink = Way::Port(session.forward.port(2));
    for (way, target) in [(socks5, "peer.shop:9000"), (sink, "peer.shop:9000")] {
        let mut stream = way.open(target).await.unwrap();
        stream.write_all(&text).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(GRACE * 5, stream.read_to_string(&mut answer)).await;
        read.unwrap_or_else(|_| panic!("{way:?}: the stream hangs"))
            .unwrap();
        assert!(["", &format!("300000 {}\n", sum(&text))].contains(&answer.as_str()));
        println!("{way:?}: the sink answered {answer:?}");
    }
    session.stop();
}

async fn ask(way: Way, request: String) -> Stream {
    let mut stream = way.open(PEER).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn upgrades_become_streams() {
    let text = pattern(1_000_000);
    let session = Session::start();
    let mut ways = session.connect.ways().to_vec();
    ways.push(Way::Port(session.forward.port(0)));
    for way in ways {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut stream = ask(way, way.head("GET", PEER, "/socket") + upgrade).await;
        let (status, headers) = app::head_of(&mut stream).await.unwrap();
        assert_eq!(status, 101, "{way:?}: {headers:?}");
        // A first word alone, then more than fits into any buffer on the way.
        stream.write_all(b"first").await.unwrap();
        let mut first = [0; 5];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"first", "{way:?}");
        let (mut read, mut write) = tokio::io::split(stream);
        let mut echoed = vec![0; text.len()];
        let (sent, got) = tokio::join!(write.write_all(&text), read.read_exact(&mut echoed));
        sent.unwrap();
        got.unwrap();
        assert!(echoed == text, "{way:?}");
    }
    session.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn trailers_interim_answers_and_kept_connections_pass() {
    let session = Session::start();
    let mut ways = session.connect.ways().to_vec();
    let absolute = ways[2];
    ways.push(Way::Port(session.forward.port(0)));
    for way in ways {
        let what = format!("{way:?}");
        let request = way.head("GET", PEER, "/trailers") + "TE: trailers\r\n\r\n";
        let answer = app::answer(&mut ask(way, request).await).await.unwrap();
        assert_eq!(answer.text(), "hello", "{what}");
        let check = answer
            .trailers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case("x-check"));
        assert_eq!(check.unwrap().1, "passed", "{what}: {:?}", answer.trailers);

        let expect = "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n";
        let mut stream = ask(way, way.head("PUT", PEER, "/upload") + expect).await;
        let (status, _) = app::head_of(&mut stream).await.unwrap();
        assert_eq!(status, 100, "{what}: not told to go on");
        stream.write_all(b"the body\n").await.unwrap();
        let answer = app::answer(&mut stream).await.unwrap();
        assert_eq!(answer.text(), format!("9 {}", sum(b"the body\n")), "{what}");

        // The next requests on the same connection, one of them slow.
        for path in ["/again", "/slow?1.5", "/last"] {
            let request = way.head("GET", PEER, path) + "\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = app::answer(&mut stream).await.unwrap();
            let line = format!("GET {path} HTTP/1.1");
            assert!(
                answer.text().starts_with(&line),
                "{what}: {}",
                answer.text()
            );
        }
    }
    // One connection to the HTTP proxy may ask for one host after the other.
    let mut stream = ask(absolute, absolute.head("GET", PEER, "/") + "\r\n").await;
    assert_eq!(app::answer(&mut stream).await.unwrap().status, 200);
    for (target, status) in [("web.shop:80", 200), ("nobody.shop:80", 502), (PEER, 200)] {
        let request = absolute.head("GET", target, "/") + "\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = app::answer(&mut stream).await.unwrap();
        assert_eq!(answer.status, status, "{target}");
    }
    session.stop();
}
