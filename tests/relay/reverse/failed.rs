//! What kdev and callers are told of requests that the app does not answer, or not to the end.

use std::sync::Arc;

use kdev::intercept::reverse::{BrokeOff, Event};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::*;

/// An app that fails as the path says; where it breaks off an answer, it waits for `go`.
async fn failing(go: Arc<Semaphore>) -> SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(fail(socket, go.clone()));
        }
    });
    address
}

async fn fail(mut socket: TcpStream, go: Arc<Semaphore>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_buf(&mut head).await.unwrap();
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    if path.ends_with("/half") {
        let said =
            "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n".to_owned() + &"a".repeat(3_100);
        socket.write_all(said.as_bytes()).await.unwrap();
        go.acquire().await.unwrap().forget();
    }
    if path.starts_with("/reset") {
        socket.set_zero_linger().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_an_answer_is_told_with_the_reason() {
    let stage = Stage::set_up().await;
    let mut ann = Side::of("ann", &[&stage]).await;
    ann.claim("ann", failing(Arc::new(Semaphore::new(0))).await)
        .await;
    for (path, why) in [
        ("/close", "closed the connection before it answered"),
        ("/reset", "reset the connection before it answered"),
    ] {
        let (status, answer) = stage.get(path, &[("x-user", "ann")]).await;
        assert_eq!(status, 502, "{answer}");
        let text = format!("kdev: ann intercepts this request with an app, and it {why}\n");
        assert!(answer.ends_with(&text), "{answer}");
        let served = ann.wait(|event| match event {
            Event::Served(served) => Some(served.clone()),
            _ => None,
        });
        let served = served.await;
        assert_eq!((&*served.path, served.status), (path, 502));
        assert_eq!(served.why, Some(format!("the app {why}")));
    }
    ann.reverse.detach(stage.first, "ann").await;
    let address = nobody().await;
    ann.claim("ann", address).await;
    assert_eq!(stage.get("/", &[("x-user", "ann")]).await.0, 502);
    let why = ann.wait(|event| match event {
        Event::Served(served) => served.why.clone(),
        _ => None,
    });
    let why = why.await;
    let told = format!("the app refused the connection: nothing listens on {address}");
    assert_eq!(why, told);
}

/// What is told of an answer that breaks off after its caller has had the beginning.
async fn broken_off(path: &str) -> BrokeOff {
    let stage = Stage::set_up().await;
    let mut ann = Side::of("ann", &[&stage]).await;
    let go = Arc::new(Semaphore::new(0));
    ann.claim("ann", failing(go.clone()).await).await;
    let mut caller = stage.caller().await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nx-user: ann\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&[b'a'; 3_100]) {
        let read = timeout(LONG, caller.read_buf(&mut answer)).await;
        assert_ne!(read.unwrap().unwrap(), 0);
    }
    let served = ann.wait(|event| match event {
        Event::Served(served) => Some((served.status, served.why.clone())),
        _ => None,
    });
    // That there is an answer is told when it begins.
    assert_eq!(served.await, (200, None));
    go.add_permits(1);
    ann.wait(|event| match event {
        Event::BrokeOff(answer) => Some(answer.clone()),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_told_with_the_reason() {
    for (path, why) in [
        ("/half", "the app closed the connection"),
        ("/reset/half", "the app reset the connection"),
    ] {
        let told = broken_off(path).await;
        assert_eq!(
            (&*told.id, &*told.method, &*told.path),
            ("ann", "GET", path)
        );
        assert_eq!((told.status, told.sent), (200, 3_100));
        assert_eq!(told.why, why);
    }
}
