//! Requests that nobody claims, over several pods behind one address.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use kdev::rule::{AppProtocol, Condition};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, interval};

use super::support::*;

const NAMES: [&str; 5] = ["pod0", "pod1", "pod2", "pod3", "pod4"];

/// Sends each connection to one of the pods, by chance, as kube-proxy does.
async fn service(port: u16, pods: Arc<RwLock<Vec<std::net::SocketAddr>>>) {
    let listener = TcpListener::bind((LOCAL, port)).await.unwrap();
    tokio::spawn(async move {
        // Enough chance for this.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        loop {
            let (mut caller, _) = listener.accept().await.unwrap();
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let pod = {
                let pods = pods.read().unwrap();
                pods[(state >> 20) as usize % pods.len()]
            };
            tokio::spawn(async move {
                let Ok(mut pod) = TcpStream::connect(pod).await else {
                    return;
                };
                let _ = copy_bidirectional(&mut caller, &mut pod).await;
            });
        }
    });
}

async fn set_up(second: bool) -> (Stage, Kdev, Arc<RwLock<Vec<std::net::SocketAddr>>>) {
    let stage = Stage::set_up().await;
    let mut pods = Vec::new();
    for name in &NAMES[..4] {
        pods.push(if second {
            app2(name).await
        } else {
            app(name).await
        });
    }
    let pods = Arc::new(RwLock::new(pods));
    service(stage.first, pods.clone()).await;
    let mut ann = stage.kdev("ann", nobody().await).await;
    let mut claim = ann.claim("ann", &[Condition::header("x-user: ann").unwrap()]);
    claim.protocol = AppProtocol::Http;
    ann.attach(claim).await;
    (stage, ann, pods)
}

/// Counts what the pods answered.
#[derive(Default)]
struct Shares([AtomicUsize; 5]);

impl Shares {
    fn add(&self, answer: &str) {
        let who = NAMES
            .iter()
            .position(|name| answer.contains(&format!("{name} GET")));
        self.0[who.unwrap_or_else(|| panic!("{answer}"))].fetch_add(1, Ordering::Relaxed);
    }

    /// In per cent.
    fn take(&self) -> Vec<f64> {
        let counts: Vec<_> = self
            .0
            .iter()
            .map(|n| n.swap(0, Ordering::Relaxed) as f64)
            .collect();
        let total: f64 = counts.iter().sum();
        counts.into_iter().map(|n| n * 100.0 / total).collect()
    }
}

/// One request of a connection.
async fn ask(caller: &mut TcpStream) -> String {
    caller
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"body: 0\n") {
        assert_ne!(caller.read_buf(&mut read).await.unwrap(), 0);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pod_has_its_share_and_a_new_one_soon() {
    let (stage, _ann, pods) = set_up(false).await;
    let shares = Arc::new(Shares::default());
    let run = async |time: Duration| {
        // Four callers that keep their connections, 400 requests a second.
        let end = Instant::now() + time;
        let mut callers = Vec::new();
        for _ in 0..4 {
            let (mut caller, shares) = (stage.caller().await, shares.clone());
            callers.push(tokio::spawn(async move {
                let mut tick = interval(Duration::from_millis(10));
                while Instant::now() < end {
                    tick.tick().await;
                    shares.add(&ask(&mut caller).await);
                }
            }));
        }
        for caller in callers {
            caller.await.unwrap();
        }
        shares.take()
    };
    let found = run(Duration::from_secs(6)).await;
    // 2,400 requests are 240 connections: a deviation of 2.8 %, and four times that.
    assert!(
        found[..4].iter().all(|share| (14.0..36.0).contains(share)),
        "{found:?}"
    );
    let fifth = app(NAMES[4]).await;
    pods.write().unwrap().push(fifth);
    run(Duration::from_secs(4)).await;
    let found = run(Duration::from_secs(4)).await;
    assert!((8.0..34.0).contains(&found[4]), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_http_2_connection_spread_as_well() {
    let (stage, _ann, _pods) = set_up(true).await;
    let (send, connection) = h2::client::handshake(stage.caller().await).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let shares = Arc::new(Shares::default());
    for _ in 0..300 {
        let asking = (0..8).map(|_| {
            let (send, shares) = (send.clone(), shares.clone());
            async move {
                let mut send = send.ready().await.unwrap();
                let request = http::Request::get("http://x/").body(()).unwrap();
                let (answer, _) = send.send_request(request, true).unwrap();
                let mut body = answer.await.unwrap().into_body();
                let mut text = String::new();
                while let Some(data) = body.data().await {
                    text += std::str::from_utf8(&data.unwrap()).unwrap();
                }
                shares.add(&text);
            }
        });
        futures_util::future::join_all(asking).await;
    }
    let found = shares.take();
    assert!(
        found[..4].iter().all(|share| (12.0..38.0).contains(share)),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_goes_costs_no_request() {
    let (stage, _ann, _pods) = set_up(false).await;
    // Closes each connection after its third answer, without a word.
    let rude = TcpListener::bind((LOCAL, stage.first + 1)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = rude.accept().await.unwrap();
            tokio::spawn(async move {
                for _ in 0..3 {
                    let mut read = Vec::new();
                    while !read.ends_with(b"\r\n\r\n") {
                        if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nbody: 0\n";
                    socket.write_all(text).await.unwrap();
                }
            });
        }
    });
    let mut bob = stage.kdev("bob", nobody().await).await;
    bob.port += 1;
    bob.mine("bob").await;
    let mut caller = TcpStream::connect((RELAY, stage.first + 1)).await.unwrap();
    for _ in 0..60 {
        let answer = ask(&mut caller).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
