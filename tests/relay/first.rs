//! HTTP/1, request by request.

use std::time::Duration;

use kdev::rule::control::{Ask, Tell};
use kdev::rule::{AppProtocol, Condition};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::support::*;

/// Reads until the text is there.
async fn read_until(caller: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            let n = caller.read_buf(&mut read).await.unwrap();
            assert_ne!(n, 0, "{}", String::from_utf8_lossy(&read));
        }
    };
    timeout(Duration::from_secs(10), reading).await.unwrap();
    String::from_utf8(read).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_connection_goes_where_its_headers_say() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", app("ann").await).await;
    let mut bob = stage.kdev("bob", app("bob").await).await;
    ann.mine("ann").await;
    bob.mine("bob").await;
    let mut caller = stage.caller().await;
    for round in 0..20 {
        for (user, server) in [("ann", "ann"), ("bob", "bob"), ("eve", "pods")] {
            let text = format!("GET /{round} HTTP/1.1\r\nHost: web.shop\r\nx-user: {user}\r\n\r\n");
            caller.write_all(text.as_bytes()).await.unwrap();
            let answer = read_until(&mut caller, "body: 0\n").await;
            assert!(
                answer.contains(&format!("{server} GET /{round}\n")),
                "{answer}"
            );
            let uncached = answer.to_lowercase().contains("cache-control: no-store");
            assert_eq!(uncached, server != "pods", "{answer}");
            assert!(answer.contains("x-forwarded-for: 127.0.0.1\n"), "{answer}");
            assert!(answer.contains("host: web.shop\n"), "{answer}");
        }
    }
    let seen = ann.callers.lock().unwrap().clone();
    assert_eq!(seen.len(), 1, "one stream for all of them: {seen:?}");
    assert_eq!(seen[0].claim.as_deref(), Some("ann"));
    assert_eq!(seen[0].speaks, kdev::tunnel::Speaks::H1);
    let Tell::Seen {
        accepted,
        claims,
        open,
        ..
    } = ann.ask(&Ask::Look { port: ann.port }).await
    else {
        panic!("no answer to that");
    };
    assert_eq!((accepted, open, claims.len()), (1, 1, 2));
    assert!(
        claims
            .iter()
            .all(|claim| claim.requests == 20 && claim.live && claim.ago.is_some())
    );
}

/// As many programs do: they read nothing before all is sent.
#[tokio::test(flavor = "multi_thread")]
async fn who_sends_all_before_it_reads_gets_an_answer_that_came_early() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", nobody().await).await;
    ann.mine("ann").await;
    let large = vec![7; 20 << 20];
    let mut caller = stage.caller().await;
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: x\r\nx-user: ann\r\nContent-Length: {}\r\n\r\n",
        large.len()
    );
    let exchange = async {
        caller.write_all(head.as_bytes()).await.unwrap();
        caller.write_all(&large).await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(Duration::from_secs(20), exchange).await.unwrap();
    assert!(answer.contains(" 502 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_all_kinds_go_both_ways() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", app("ann").await).await;
    ann.mine("ann").await;
    let large: String = "0123456789".repeat(500_000);
    for user in ["ann", "eve"] {
        let head = format!("Host: x\r\nConnection: close\r\nX-User: {user}\r\n");
        let length = large.len();
        let answer = stage
            .raw(&format!(
                "PUT /echo HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{large}"
            ))
            .await;
        assert!(answer.ends_with(&large), "{} {}", user, answer.len());
        let chunked = "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
        let answer = stage
            .raw(&format!(
                "POST / HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n{chunked}"
            ))
            .await;
        assert!(answer.contains("body: 11\n"), "{answer}");
        let answer = stage.raw(&format!("HEAD /x HTTP/1.1\r\n{head}\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"),
            "{answer}"
        );
        let answer = stage
            .raw(&format!("GET /old HTTP/1.0\r\nX-User: {user}\r\n\r\n"))
            .await;
        assert!(answer.contains("GET /old\n"), "{answer}");
        // An answer before the body: the caller is not kept.
        let answer = stage
            .raw(&format!(
                "PUT /early HTTP/1.1\r\n{head}Content-Length: 100\r\n\r\nabc"
            ))
            .await;
        assert!(
            answer.contains(" 413 ") && answer.contains("too large"),
            "{answer}"
        );
        // The expectation goes through.
        let mut caller = stage.caller().await;
        let text =
            format!("PUT /x HTTP/1.1\r\n{head}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
        caller.write_all(text.as_bytes()).await.unwrap();
        let answer = read_until(&mut caller, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
        caller.write_all(b"abc").await.unwrap();
        read_until(&mut caller, "body: 3\n").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_and_order_are_kept_and_conditions_see_what_was_sent() {
    let stage = Stage::set_up().await;
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    let mut ann = stage.kdev("ann", app("ann").await).await;
    let condition = Condition::header("x-forwarded-for: 1.2.3.4").unwrap();
    let mut claim = ann.claim("a", &[condition]);
    claim.protocol = AppProtocol::Http;
    ann.attach(claim).await;
    let (status, answer) = stage.get("/", &[("X-Forwarded-For", "1.2.3.4")]).await;
    assert_eq!(status, 200);
    assert!(
        answer.contains("ann GET /") && answer.contains("x-forwarded-for: 1.2.3.4, 127.0.0.1"),
        "{answer}"
    );
    let asking = stage.get(
        "/a%2Fb?c=d",
        &[("X-CamelCase", "1"), ("x-lower", "a"), ("x-lower", "b")],
    );
    let serving = async {
        let (mut pod, _) = pods.accept().await.unwrap();
        let head = read_until(&mut pod, "\r\n\r\n").await;
        pod.write_all(b"HTTP/1.1 200 OK\r\nX-OwnCase: 1\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        (head, pod)
    };
    let ((_, answer), (head, _pod)) = tokio::join!(asking, serving);
    assert!(head.starts_with("GET /a%2Fb?c=d HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nX-CamelCase: 1\r\n"), "{head}");
    assert!(head.contains("\r\nx-lower: a\r\nx-lower: b\r\n"), "{head}");
    assert!(answer.contains("\r\nX-OwnCase: 1\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_become_plain_streams_both_ways() {
    let stage = Stage::set_up().await;
    /// Switches protocols and echoes.
    async fn upgrading(listener: TcpListener, name: &str) {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            // Some come only to see who speaks first.
            if socket.peek(&mut [0]).await.unwrap() == 0 {
                continue;
            }
            let head = read_until(&mut socket, "\r\n\r\n").await;
            assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
            let text = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Server: {name}\r\n\r\nhi "
            );
            socket.write_all(text.as_bytes()).await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    }
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    tokio::spawn(upgrading(pods, "pods"));
    let local = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let mut ann = stage.kdev("ann", local.local_addr().unwrap()).await;
    tokio::spawn(upgrading(local, "ann"));
    ann.mine("ann").await;
    for (user, server) in [("ann", "ann"), ("eve", "pods")] {
        let mut caller = stage.caller().await;
        let text = format!(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-User: {user}\r\n\r\n"
        );
        caller.write_all(text.as_bytes()).await.unwrap();
        let answer = read_until(&mut caller, "hi ").await;
        assert!(answer.contains(&format!("X-Server: {server}")), "{answer}");
        caller.write_all(b"there").await.unwrap();
        read_until(&mut caller, "there").await;
        caller.shutdown().await.unwrap();
        assert_eq!(caller.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_down_is_a_502_or_what_the_pods_say() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let down = nobody().await;
    let mut ann = stage.kdev("ann", down).await;
    ann.mine("ann").await;
    let (status, answer) = stage.get("/", &[("x-user", "ann")]).await;
    assert_eq!(status, 502, "{answer}");
    assert!(
        answer.contains("ann intercepts") && answer.contains(&down.to_string()),
        "{answer}"
    );
    let condition = Condition::header("x-user: fall").unwrap();
    let mut claim = ann.claim("fall", &[condition]);
    claim.fallback = true;
    ann.attach(claim).await;
    let (status, answer) = stage.get("/", &[("x-user", "fall")]).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("pods GET /"), "{answer}");
    assert_eq!(fallback(&answer), Some("app down"), "{answer}");
    let text = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-User: fall\r\nContent-Length: 5\r\n\r\nhello";
    let answer = stage.raw(text).await;
    assert!(
        answer.contains("pods POST /") && answer.contains("body: 5\n"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_goes_to_who_has_all_or_to_the_pods() {
    let stage = Stage::set_up().await;
    /// Speaks first, then echoes.
    async fn greeting(listener: TcpListener, name: &'static str) {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = socket.write_all(format!("220 {name}\n").as_bytes()).await;
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    }
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    tokio::spawn(greeting(pods, "pods"));
    let local = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let mut ann = stage.kdev("ann", local.local_addr().unwrap()).await;
    tokio::spawn(greeting(local, "ann"));
    let greeted = async || {
        let mut caller = stage.caller().await;
        let begun = std::time::Instant::now();
        let greeting = read_until(&mut caller, "\n").await;
        assert!(begun.elapsed() < Duration::from_millis(500));
        caller.write_all(b"EHLO x\r\n").await.unwrap();
        read_until(&mut caller, "EHLO x\r\n").await;
        greeting
    };
    assert_eq!(greeted().await, "220 pods\n");
    ann.mine("ann").await;
    assert_eq!(greeted().await, "220 pods\n");
    // Bytes of a caller who speaks first and is no HTTP.
    let mut caller = stage.caller().await;
    caller
        .write_all(b"\x16\x03\x01\x00\x05hello")
        .await
        .unwrap();
    read_until(&mut caller, "hello").await;
    ann.ask(&Ask::Detach {
        port: ann.port,
        id: "ann".to_owned(),
    })
    .await;
    for protocol in [AppProtocol::Auto, AppProtocol::Tcp] {
        let mut claim = ann.claim("all", &[]);
        claim.protocol = protocol;
        ann.attach(claim).await;
        assert_eq!(greeted().await, "220 ann\n");
    }
    ann.ask(&Ask::Bye).await;
    assert_eq!(greeted().await, "220 pods\n");
}

/// An app whose answers have a head of so many lines of so many bytes.
async fn wordy(lines: usize, bytes: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let line = format!("X-Long: {}\r\n", "x".repeat(bytes));
    let answer = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok",
        line.repeat(lines)
    );
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let _ = caller.read(&mut [0; 4096]).await;
            let _ = caller.write_all(answer.as_bytes()).await;
            // What is not wanted is not read, and its end would be a reset.
            let _ = caller.read(&mut [0; 1]).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn long_heads_of_answers_go_through_and_too_long_ones_are_called_that() {
    let stage = Stage::set_up().await;
    for (user, lines, bytes) in [("one", 1, 100 << 10), ("many", 200, 1000)] {
        let mut ann = stage.kdev(user, wordy(lines, bytes).await).await;
        ann.mine(user).await;
        let (status, answer) = stage.get("/", &[("x-user", user)]).await;
        assert_eq!(status, 200, "{user}: {}", &answer[..answer.len().min(500)]);
        assert_eq!(answer.matches("X-Long: x").count(), lines);
        assert!(answer.len() > lines * bytes && answer.ends_with("ok"));
        ann.ask(&Ask::Bye).await;
    }
    for (user, lines, bytes) in [("large", 1, 300 << 10), ("more", 300, 1)] {
        let mut ann = stage.kdev(user, wordy(lines, bytes).await).await;
        ann.mine(user).await;
        let (status, answer) = stage.get("/", &[("x-user", user)]).await;
        assert_eq!(status, 502, "{user}");
        let why = "answered with a head of more than 256 KiB or 256 lines";
        assert!(answer.contains(why), "{answer}");
        assert!(!answer.contains("not HTTP"), "{answer}");
        ann.ask(&Ask::Bye).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_gets_copies_and_slows_nobody() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let local = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let mut ann = stage.kdev("ann", local.local_addr().unwrap()).await;
    let mut claim = ann.claim("copies", &[]);
    claim.mirror = true;
    let told = ann.attach(claim).await;
    assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
    // Nobody answers the copies.
    let head = "Host: x\r\nConnection: close\r\n";
    let asking = stage
        .raw("POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
    let answer = timeout(Duration::from_secs(5), asking).await.unwrap();
    assert!(answer.contains("pods POST /a"), "{answer}");
    assert!(!answer.to_lowercase().contains("no-store"), "{answer}");
    let (mut copy, _) = local.accept().await.unwrap();
    let copied = read_until(&mut copy, "hello").await;
    assert!(copied.starts_with("POST /a HTTP/1.1\r\n"), "{copied}");
    // One that is too long breaks off, and the original arrives.
    let large = "x".repeat(3 << 20);
    let length = large.len();
    let text = format!("PUT /echo HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{large}");
    let asking = stage.raw(&text);
    let answer = timeout(Duration::from_secs(20), asking).await.unwrap();
    assert!(answer.ends_with(&large));
    let (mut copy, _) = local.accept().await.unwrap();
    let mut copied = Vec::new();
    let _ = timeout(Duration::from_secs(10), copy.read_to_end(&mut copied))
        .await
        .unwrap();
    assert!(copied.len() < large.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_still_here_after_the_end_is_sent_away() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", app("ann").await).await;
    ann.mine("ann").await;
    let mut caller = stage.caller().await;
    let ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    caller.write_all(ask).await.unwrap();
    let answer = read_until(&mut caller, "body: 0\n").await;
    assert!(
        !answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    let port = ann.port;
    let told = ann.ask(&Ask::Retire { port }).await;
    assert!(matches!(told, Tell::Refused { .. }), "{told:?}");
    ann.ask(&Ask::Detach {
        port,
        id: "ann".to_owned(),
    })
    .await;
    assert_eq!(
        ann.ask(&Ask::Retire { port }).await,
        Tell::Retired { port, open: 1 }
    );
    caller.write_all(ask).await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.contains("pods GET /") && answer.contains("connection: close"),
        "{answer}"
    );
    // So is who still comes.
    let answer = stage.raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        answer.contains("pods GET /") && answer.contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_from_before_a_claim_come_under_it() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut caller = stage.caller().await;
    let ask = b"GET / HTTP/1.1\r\nHost: x\r\nx-user: ann\r\n\r\n";
    caller.write_all(ask).await.unwrap();
    let answer = read_until(&mut caller, "body: 0\n").await;
    assert!(answer.contains("pods GET /"), "{answer}");
    let mut ann = stage.kdev("ann", app("ann").await).await;
    ann.mine("ann").await;
    caller.write_all(ask).await.unwrap();
    let answer = read_until(&mut caller, "body: 0\n").await;
    assert!(answer.contains("ann GET /"), "{answer}");
}
