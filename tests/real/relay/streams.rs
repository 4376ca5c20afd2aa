//! What a stream through the relay carries: ends of one direction, small and large pieces, many
//! uploads at once; and how soon its end is seen.

use std::time::{Duration, Instant};

use kdev::k8s::relay::Carrier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::app::{Failure, Sha256, Stream, Way};
use crate::installed::Relay;
use crate::lab;
use crate::program::Running;

const ECHO: &str = "peer.shop:9001";
const SINK: &str = "peer.shop:9000";
const SOURCE: &str = "peer.shop:9002";
/// How long a transfer may take that takes seconds on an idle machine.
const TRANSFER_LIMIT: Duration = Duration::from_secs(120);
/// What the container runtime waits before it passes a pod's end on in a plain port-forward.
const RUNTIME_DELAY: Duration = Duration::from_secs(1);
/// Uploads at once: more than there are tunnels.
const UPLOADS: usize = 13;
/// Bytes of each.
const UPLOAD: usize = 20 << 20;

/// Ways through `connect` and `forward`.
struct Ways {
    connect: Running,
    forward: Running,
}

impl Ways {
    fn start(relay: &Relay, carrier: Carrier) -> Self {
        let connect = Running::start(relay.kdev_over(carrier).args(["connect", "--json"]));
        let mut forward = relay.kdev_over(carrier);
        forward.args(["forward", "--json"]);
        forward.args([ECHO, SINK, SOURCE].map(|target| format!("{target}=0")));
        Self {
            connect,
            forward: Running::start(&mut forward),
        }
    }

    /// To `target`, which is one of those that are forwarded.
    fn to(&self, target: &str) -> [Way; 3] {
        let [socks5, connect, _] = self.connect.ways();
        let port = [ECHO, SINK, SOURCE].iter().position(|t| *t == target);
        [socks5, connect, Way::Port(self.forward.port(port.unwrap()))]
    }

    fn stop(self) {
        self.connect.stop();
        self.forward.stop();
    }
}

/// What the sink says it got once it saw the end of what was sent.
async fn verdict(stream: &mut Stream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.trim().to_owned()
}

fn sum(bytes: &[u8]) -> String {
    let mut sum = Sha256::new();
    sum.update(bytes);
    sum.hex()
}

/// Bytes in which each place looks different.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    let word = |i: usize| (i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(word).collect();
    bytes.truncate(len);
    bytes
}

async fn one_direction_may_end_before_the_other(ways: &Ways, by: &str) {
    for way in ways.to(SINK) {
        let mut stream = way.open(SINK).await.unwrap();
        let body = pattern(300_000, 1);
        stream.write_all(&body).await.unwrap();
        stream.shutdown().await.unwrap();
        // It answers only after it saw the end.
        let expected = format!("{} {}", body.len(), sum(&body));
        assert_eq!(verdict(&mut stream).await, expected, "{by} {way:?}");
    }
}

async fn pieces_of_one_byte_and_of_64_kib_arrive_as_they_are(ways: &Ways, by: &str) {
    for way in ways.to(ECHO) {
        let mut stream = way.open(ECHO).await.unwrap();
        let small = pattern(2000, 2);
        for byte in &small {
            stream.write_all(&[*byte]).await.unwrap();
        }
        let mut back = vec![0; small.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert!(back == small, "{by} {way:?}");
        // One by one, each waited for.
        for byte in &small[..100] {
            stream.write_all(&[*byte]).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), *byte, "{by} {way:?}");
        }
        let large = pattern(64 << 10, 3);
        let (mut from, mut to) = tokio::io::split(stream);
        let sending = async {
            for _ in 0..200 {
                to.write_all(&large).await.unwrap();
            }
            to.shutdown().await.unwrap();
        };
        let receiving = async {
            let mut back = vec![0; large.len()];
            for _ in 0..200 {
                from.read_exact(&mut back).await.unwrap();
                assert!(back == large, "{by} {way:?}");
            }
            assert_eq!(from.read(&mut back).await.unwrap(), 0);
        };
        tokio::join!(sending, receiving);
    }
}

async fn many_uploads_at_once_arrive_byte_for_byte(ways: &Ways, by: &str) {
    let began = Instant::now();
    let mut all = JoinSet::new();
    for i in 0..UPLOADS {
        let way = ways.to(SINK)[i % 3];
        all.spawn(async move {
            // This takes so long on a busy machine that kdev would give up another one's handshake.
            let (body, expected) = tokio::task::block_in_place(|| {
                let body = pattern(UPLOAD, i);
                let expected = format!("{UPLOAD} {}", sum(&body));
                (body, expected)
            });
            let mut stream = way.open(SINK).await.unwrap();
            stream.write_all(&body).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(verdict(&mut stream).await, expected, "{way:?}");
        });
    }
    let joined = tokio::time::timeout(TRANSFER_LIMIT, all.join_all()).await;
    assert!(joined.is_ok(), "{by}: they hang");
    let rate = (UPLOADS * UPLOAD) as f64 / 1e6 / began.elapsed().as_secs_f64();
    println!("{by}: {UPLOADS} uploads at once, {rate:.0} MB/s together");
}

async fn an_answer_that_ends_with_its_connection_ends_at_once(ways: &Ways, by: &str) {
    for way in &ways.connect.ways()[..2] {
        let mut fastest = Duration::MAX;
        // A busy machine may be slow once, the runtime's delay comes each time.
        for _ in 0..10 {
            let mut stream = way.open("web.shop:80").await.unwrap();
            let began = Instant::now();
            let request = b"GET / HTTP/1.0\r\nHost: web.shop\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{by} {way:?}");
            fastest = fastest.min(began.elapsed());
        }
        println!("{by} {way:?}: an answer up to its end in {fastest:?}");
        assert!(fastest < RUNTIME_DELAY / 2, "{by} {way:?}: {fastest:?}");
    }
}

async fn a_reset_reaches_the_other_side_and_a_refusal_the_app(ways: &Ways, by: &str) {
    for way in ways.to(SOURCE) {
        let mut stream = way.open(SOURCE).await.unwrap();
        let mut some = vec![0; 100_000];
        stream.read_exact(&mut some).await.unwrap();
        stream.get_ref().set_zero_linger().unwrap();
    }
    // The source would send for ever, so what is not told of the reset stays open.
    let end = Instant::now() + Duration::from_secs(10);
    let open = || {
        let sessions = [&ways.connect, &ways.forward].into_iter();
        let streams = sessions.map(|session| session.report()["streams"].as_u64().unwrap());
        streams.sum::<u64>()
    };
    while open() > 0 {
        assert!(Instant::now() < end, "{by}: {} streams stay open", open());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let [socks5, connect, _] = ways.connect.ways();
    // An address that nobody watches, so only the relay knows: 5 is "connection refused".
    let (_, address) = lab::pod_address("peer");
    let refused = socks5.open(&format!("{address}:81")).await;
    assert!(
        matches!(refused, Err(Failure::Socks(5))),
        "{by}: {refused:?}"
    );
    let refused = connect.open(&format!("{address}:81")).await;
    assert!(
        matches!(refused, Err(Failure::Status(502, _))),
        "{by}: {refused:?}"
    );
}

/// One relay and one session carry all of it, one after the other: by the way
/// through the kubelet and by the one past it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn streams_are_carried_as_they_are() {
    lab::settle();
    let relay = super::install("streams");
    for carrier in [Carrier::Spdy, Carrier::PodsProxy] {
        let ways = Ways::start(&relay, carrier);
        let by = &*format!("by {carrier}");
        one_direction_may_end_before_the_other(&ways, by).await;
        pieces_of_one_byte_and_of_64_kib_arrive_as_they_are(&ways, by).await;
        many_uploads_at_once_arrive_byte_for_byte(&ways, by).await;
        an_answer_that_ends_with_its_connection_ends_at_once(&ways, by).await;
        a_reset_reaches_the_other_side_and_a_refusal_the_app(&ways, by).await;
        ways.stop();
    }
}
