//! What kdev tells of requests, and of apps that are down.

use std::time::Duration;

use kdev::intercept::reverse::{Event, Served};
use tokio::time::sleep;

use super::*;

/// A request as it is told, without the time it took.
fn told(event: Event) -> (String, String, String, u16) {
    match event {
        Event::Served(Served {
            id,
            method,
            path,
            status,
            ..
        }) => (id, method, path, status),
        other => panic!("{other:?}"),
    }
}

fn line(id: &str, method: &str, path: &str, status: u16) -> (String, String, String, u16) {
    (id.to_owned(), method.to_owned(), path.to_owned(), status)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_told_once() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    let mut quiet = ann.standing("quiet", app("quiet").await);
    quiet.log = false;
    ann.reverse.attach(quiet, None).await.unwrap();
    let headers = [("x-user", "ann")];
    stage.get("/one?secret=1", &headers).await;
    stage.get("/early", &headers).await;
    assert_eq!(who(&stage, "quiet").await, "quiet");
    assert_eq!(who(&stage, "eve").await, "pods");
    let all: Vec<_> = ann.all().await.into_iter().map(told).collect();
    let expected = [
        line("ann", "GET", "/one", 200),
        line("ann", "GET", "/early", 413),
    ];
    assert_eq!(all, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_caller_who_leaves_it_is_told_that_they_left() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    ann.claim("ann", listener.local_addr().unwrap()).await;
    let head = "HTTP/1.1\r\nHost: x\r\nx-user: ann\r\n";
    // Before the app answers, in the middle of a body, and with a body that is none.
    let waits = format!("GET /waits {head}\r\n");
    let half = format!("POST /half {head}Content-Length: 10\r\n\r\nhalf");
    let nonsense = format!("POST /nonsense {head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n");
    for (text, path, status) in [
        (waits, "/waits", 0),
        (half, "/half", 0),
        (nonsense, "/nonsense", 400),
    ] {
        let mut caller = stage.caller().await;
        caller.write_all(text.as_bytes()).await.unwrap();
        let accepted = timeout(LONG, listener.accept());
        // What is malformed from the start may not come so far.
        let app = if status == 0 {
            Some(accepted.await.unwrap().unwrap())
        } else {
            None
        };
        if status == 0 {
            drop(caller);
        } else {
            let mut answer = Vec::new();
            let _ = timeout(LONG, caller.read_to_end(&mut answer))
                .await
                .unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 400"));
        }
        let event = timeout(LONG, ann.events.recv()).await.unwrap().unwrap();
        let method = if path == "/waits" { "GET" } else { "POST" };
        assert_eq!(told(event), line("ann", method, path, status));
        drop(app);
    }
    let more = ann.all().await;
    assert!(more.is_empty(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_told_with_the_answers_to_them() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let mut standing = ann.standing("ann", app("ann").await);
    standing.claim.mirror = true;
    ann.reverse.attach(standing, None).await.unwrap();
    assert_eq!(who(&stage, "ann").await, "pods");
    let headers = [("x-user", "ann")];
    assert_eq!(stage.get("/early", &headers).await.0, 413);
    let served =
        async |side: &mut Side| told(timeout(LONG, side.events.recv()).await.unwrap().unwrap());
    assert_eq!(served(&mut ann).await, line("ann", "GET", "/", 200));
    assert_eq!(served(&mut ann).await, line("ann", "GET", "/early", 413));
    // Where nobody answers the copy, there is no status of it.
    let mut standing = ann.standing("other", nobody().await);
    standing.claim.mirror = true;
    ann.reverse.attach(standing, None).await.unwrap();
    assert_eq!(who(&stage, "other").await, "pods");
    let served = ann.wait(|event| match event {
        Event::Served(served) => Some(served.status),
        _ => None,
    });
    assert_eq!(served.await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_to_apps_is_counted_while_it_goes() {
    let stage = Stage::set_up().await;
    let ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", app("ann").await).await;
    let before = ann.reverse.status();
    assert_eq!((before.tunnels, before.traffic.streams_total), (1, 0));
    let (_, answer) = stage.get("/", &[("x-user", "ann")]).await;
    let now = ann.reverse.status().traffic;
    // The stream is kept for the next request.
    assert_eq!((now.streams, now.streams_total), (1, 1));
    assert!(now.sent >= answer.len() as u64 / 2, "{now:?}");
    assert!(now.received > 20, "{now:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_claim_on_everything_requests_are_told_and_connections_that_are_no_http() {
    let stage = Stage::set_up().await;
    let mut ann = Side::of("ann", &[&stage]).await;
    ann.claim("all", app("ann").await).await;
    // The relay opens a stream to see who speaks first, before the caller does.
    let mut caller = stage.caller().await;
    sleep(Duration::from_millis(200)).await;
    let request = b"GET /web HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    caller.write_all(request).await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert_eq!(server(&answer), "ann");
    ann.reverse.detach(stage.first, "all").await;
    let all: Vec<_> = ann.all().await.into_iter().map(told).collect();
    assert_eq!(all, [line("all", "GET", "/web", 200)]);
    ann.claim("all", plain("ann").await).await;
    for _ in 0..2 {
        let mut caller = stage.caller().await;
        caller.write_all(b"PING\r\n").await.unwrap();
        caller.shutdown().await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "ann: PING\r\n");
        let all: Vec<_> = ann.all().await.into_iter().map(told).collect();
        assert_eq!(all, [line("all", "", "", 0)]);
    }
}

/// The claim and the words of the next [`Event::AppDown`].
async fn down(side: &mut Side) -> (String, String) {
    side.wait(|event| match event {
        Event::AppDown { id, error } => Some((id.clone(), error.to_string())),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_down_is_named_to_the_caller_and_told() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let address = nobody().await;
    for id in ["ann", "all"] {
        ann.claim(id, address).await;
        let answer = who(&stage, id).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(answer.contains(&address.to_string()), "{answer}");
        let (claim, error) = down(&mut ann).await;
        assert_eq!(claim, id);
        assert!(error.contains(&address.to_string()), "{error}");
        let served = ann.wait(|event| match event {
            Event::Served(served) => Some(served.status),
            _ => None,
        });
        assert_eq!(served.await, 502);
        let more = ann.all().await;
        assert!(more.is_empty(), "{more:?}");
        ann.reverse.detach(stage.first, id).await;
    }
}

/// What a caller of a claim on everything is answered who says this, after a while.
async fn late(stage: &Stage, text: &str) -> String {
    let mut caller = stage.caller().await;
    sleep(Duration::from_millis(200)).await;
    caller.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // It may end with a reset.
    let read = timeout(LONG, caller.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "it does not end");
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_to_speak_is_told_as_well_that_the_app_is_down() {
    let stage = Stage::set_up().await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let address = nobody().await.to_string();
    ann.claim("all", address.parse().unwrap()).await;
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = late(&stage, request).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains(&address), "{answer}");
    assert!(down(&mut ann).await.1.contains(&address));
    ann.all().await;
    // What is no HTTP can be told nothing.
    assert_eq!(late(&stage, "PING\r\n").await, "");
    assert!(down(&mut ann).await.1.contains(&address));
}

/// Pods that speak first.
async fn greeting(stage: &Stage) {
    let listener = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"\x4apods").await.unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_answer_for_an_app_that_is_down_also_where_servers_speak_first() {
    let stage = Stage::set_up().await;
    greeting(&stage).await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let mut standing = ann.standing("all", nobody().await);
    standing.claim.fallback = true;
    ann.reverse.attach(standing, None).await.unwrap();
    let mut caller = stage.caller().await;
    let mut answer = [0; 5];
    let read = timeout(LONG, caller.read_exact(&mut answer)).await;
    read.unwrap().unwrap();
    assert_eq!(&answer, b"\x4apods");
    assert_eq!(down(&mut ann).await.0, "all");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_answer_for_an_app_that_is_down_where_that_is_wanted() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = Side::of("ann", &[&stage]).await;
    for id in ["ann", "all"] {
        let mut standing = ann.standing(id, nobody().await);
        standing.claim.fallback = true;
        ann.reverse.attach(standing, None).await.unwrap();
        assert_eq!(who(&stage, id).await, "pods");
        assert_eq!(down(&mut ann).await.0, id);
        ann.reverse.detach(stage.first, id).await;
    }
}
