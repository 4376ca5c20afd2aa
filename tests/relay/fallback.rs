//! Requests and connections that a claim is for, and that the original pods get all the same.

use std::time::{Duration, Instant};

use kdev::rule::AppProtocol;
use kdev::rule::control::Tell;
use kdev::tunnel::Identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::support::*;

const ANN: [(&str, &str); 1] = [("x-user", "ann")];
/// Longer than requests are held for an owner who may be back at once.
const HELD: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owners_requests_are_the_pods_and_a_returning_owner_hears_how_many() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let (identity, server) = (Identity::random(), app("ann").await);
    let mut ann = stage.kdev_of(&identity, "ann", server).await;
    ann.mine("ann").await;
    let (_, answer) = stage.get("/", &ANN).await;
    assert!(answer.contains("ann GET") && fallback(&answer).is_none());
    ann.kill();
    let begun = Instant::now();
    for n in 0..3 {
        let (status, answer) = stage.get("/", &ANN).await;
        assert_eq!((status, fallback(&answer)), (200, Some("owner silent")));
        assert!(answer.contains("pods GET"), "{answer}");
        assert!(begun.elapsed() < HELD, "{n}: {:?}", begun.elapsed());
    }
    let (_, others) = stage.get("/", &[]).await;
    assert_eq!(fallback(&others), None, "{others}");
    // On one connection: the pods, and the laptop as soon as it is back.
    let mut caller = stage.caller().await;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nX-User: ann\r\n\r\n";
    let mut answers = async || {
        caller.write_all(request).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with("body: 0\n") {
            let mut some = [0; 1024];
            let n = timeout(HELD, caller.read(&mut some)).await.unwrap();
            answer += std::str::from_utf8(&some[..n.unwrap()]).unwrap();
        }
        answer
    };
    assert_eq!(fallback(&answers().await), Some("owner silent"));
    let mut ann = stage.kdev_of(&identity, "ann", server).await;
    let answer = answers().await;
    assert!(answer.contains("ann GET") && fallback(&answer).is_none());
    // kdev renews its claims first of all, and is told then.
    ann.mine("ann").await;
    let told = ann.fallback().await;
    assert_eq!(told, ("owner silent".to_owned(), 4, false));
}

/// Pods or an app that speaks first, and echoes.
async fn greeter(listener: TcpListener, name: &'static str) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let _ = socket.write_all(name.as_bytes()).await;
            let (mut from, mut to) = socket.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
}

/// What a caller hears who says this after a while; empty where nobody is there.
async fn heard(stage: &Stage, says: &str) -> String {
    let mut heard = [0; 4];
    let hearing = async {
        let mut caller = stage.call().await?;
        caller.write_all(says.as_bytes()).await?;
        caller.read_exact(&mut heard).await
    };
    match timeout(Duration::from_secs(5), hearing).await {
        Ok(Ok(_)) => String::from_utf8(heard.to_vec()).unwrap(),
        Ok(Err(_)) => String::new(),
        Err(_) => panic!("the caller hangs"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_no_http_go_to_the_pods_unless_the_claim_is_strict() {
    let stage = Stage::set_up().await;
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    tokio::spawn(greeter(pods, "pods"));
    let local = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let laptop = local.local_addr().unwrap();
    tokio::spawn(greeter(local, "anns"));
    for (protocol, strict) in [
        (AppProtocol::Auto, false),
        (AppProtocol::Tcp, false),
        (AppProtocol::Auto, true),
        (AppProtocol::Tcp, true),
    ] {
        let identity = Identity::random();
        let mut ann = stage.kdev_of(&identity, "ann", laptop).await;
        let mut claim = ann.claim("all", &[]);
        (claim.protocol, claim.strict) = (protocol, strict);
        let told = ann.attach(claim.clone()).await;
        assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
        for says in ["", "\x16\x03\x01"] {
            assert_eq!(heard(&stage, says).await, "anns", "{protocol:?}");
        }
        ann.kill();
        // While it may be back at once, and when it is silent.
        for pause in [Duration::ZERO, HELD] {
            sleep(pause).await;
            for says in ["", "\x16\x03\x01"] {
                let heard = heard(&stage, says).await;
                let expected = if strict { "" } else { "pods" };
                assert_eq!(heard, expected, "{protocol:?} {strict} {pause:?} {says:?}");
            }
        }
        let mut ann = stage.kdev_of(&identity, "ann", laptop).await;
        ann.attach(claim).await;
        assert_eq!(heard(&stage, "").await, "anns", "{protocol:?}");
        if !strict {
            let told = ann.fallback().await;
            assert_eq!(told, ("owner silent".to_owned(), 4, false));
        }
        ann.ask(&kdev::rule::control::Ask::Bye).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_relay_passes_on_before_it_knows_of_a_claim_is_marked_and_told() {
    let mut stage = Stage::mortal().await;
    stage.pods("pods").await;
    let (identity, server) = (Identity::random(), app("ann").await);
    let mut ann = stage.kdev_of(&identity, "ann", server).await;
    ann.mine("ann").await;
    assert!(stage.get("/", &ANN).await.1.contains("ann GET"));
    stage.kill();
    stage.revive().await;
    for headers in [&ANN[..], &[]] {
        let (_, answer) = stage.get("/", headers).await;
        assert!(answer.contains("pods GET"), "{answer}");
        assert_eq!(fallback(&answer), Some("relay started"), "{answer}");
    }
    let mut ann = stage.kdev_of(&identity, "ann", server).await;
    ann.mine("ann").await;
    assert!(stage.get("/", &ANN).await.1.contains("ann GET"));
    assert_eq!(fallback(&stage.get("/", &[]).await.1), None);
    let told = ann.fallback().await;
    assert_eq!(told, ("relay started".to_owned(), 2, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_app_is_down_hears_once_in_a_while_how_many() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", nobody().await).await;
    let condition = kdev::rule::Condition::header("x-user: ann").unwrap();
    let mut claim = ann.claim("ann", &[condition]);
    claim.fallback = true;
    ann.attach(claim).await;
    for _ in 0..20 {
        let (_, answer) = stage.get("/", &ANN).await;
        assert_eq!(fallback(&answer), Some("app down"), "{answer}");
    }
    let (reason, times, unread) = ann.fallback().await;
    assert_eq!((reason.as_str(), unread), ("app down", false));
    // A slow machine may have had time for the next one.
    assert!((1..=20).contains(&times), "{times}");
}
