//! Heads that are long, or large, or say little: each request goes where it would alone.

use std::time::Duration;

use kdev::rule::control::{Ask, Tell};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::support::*;

const LONG: Duration = Duration::from_secs(10);

/// Reads up to the end of a head.
async fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let byte = timeout(LONG, stream.read_u8()).await.unwrap();
        read.push(byte.unwrap());
    }
    String::from_utf8(read).unwrap()
}

/// An app or pods that take any head, and say who they are, with this header.
async fn plain(listener: TcpListener, name: &'static str, header: &'static str) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut read = Vec::new();
            while let Ok(byte) = socket.read_u8().await {
                read.push(byte);
                if !read.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let lines = String::from_utf8(std::mem::take(&mut read)).unwrap();
                let body = format!("{name} {}\n{lines}", lines.lines().count() - 2);
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\n{header}Content-Length: {length}\r\n\r\n{body}");
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn serving(name: &'static str, header: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(plain(listener, name, header));
    address
}

/// Pods that take any head.
async fn pods(stage: &Stage) {
    let listener = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    tokio::spawn(plain(listener, "pods", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_decides_for_its_own_request_alone() {
    let stage = Stage::set_up().await;
    pods(&stage).await;
    let mut ann = stage.kdev("ann", serving("anns", "").await).await;
    ann.mine("ann").await;
    for lengths in [
        &[1, 17_000, 1, 60_000, 1][..],
        &[17_000, 1, 1],
        &[60_000, 17_000, 1],
        &[16_000, 16_384, 16_385],
    ] {
        let mut caller = stage.caller().await;
        for (n, length) in lengths.iter().enumerate() {
            for (user, server) in [("ann", "anns"), ("eve", "pods")] {
                let path = "u".repeat(*length);
                let text = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nX-User: {user}\r\n\r\n");
                caller.write_all(text.as_bytes()).await.unwrap();
                let answer = head(&mut caller).await;
                assert!(
                    answer.starts_with("HTTP/1.1 200"),
                    "{n} of {lengths:?}: {answer}"
                );
                let line = answer
                    .lines()
                    .find(|line| line.starts_with("Content-Length"));
                let length = line.unwrap().rsplit_once(' ').unwrap().1;
                let mut body = vec![0; length.parse().unwrap()];
                timeout(LONG, caller.read_exact(&mut body))
                    .await
                    .unwrap()
                    .unwrap();
                assert!(body.starts_with(server.as_bytes()), "{n} of {lengths:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_with_a_long_line_is_judged_by_it_too() {
    let stage = Stage::set_up().await;
    pods(&stage).await;
    let mut ann = stage.kdev("ann", serving("anns", "").await).await;
    ann.mine("ann").await;
    let mut caller = stage.caller().await;
    caller.write_all(b"GET /").await.unwrap();
    // Longer than a first line is waited for.
    tokio::time::sleep(Duration::from_secs(11)).await;
    caller
        .write_all(b"slow HTTP/1.1\r\nHost: x\r\nX-User: ann\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    let reading = caller.read_to_string(&mut answer);
    timeout(LONG, reading).await.unwrap().unwrap();
    assert!(answer.contains("anns "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_with_a_reason_and_nothing_else_is() {
    let stage = Stage::set_up().await;
    pods(&stage).await;
    let mut ann = stage.kdev("ann", serving("anns", "").await).await;
    ann.mine("ann").await;
    let close = "Host: x\r\nX-User: ann\r\nConnection: close\r\n";
    let large = [
        format!("GET /{} HTTP/1.1\r\n{close}\r\n", "u".repeat(70_000)),
        format!("GET / HTTP/1.1\r\n{close}X: {}\r\n\r\n", "v".repeat(66_000)),
        format!(
            "GET / HTTP/1.1\r\n{close}{}\r\n",
            "X-Many: 1\r\n".repeat(254)
        ),
        format!(
            "GET / HTTP/1.1\r\n{close}{}\r\n",
            "X-Many: 1\r\n".repeat(3000)
        ),
    ];
    for text in &large {
        let answer = stage.raw(text).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(
            answer.contains("x-kdev-error: head-too-large") && answer.contains("64 KiB or 256"),
            "{answer}"
        );
    }
    // In the middle of a connection, after an answer.
    let mut caller = stage.caller().await;
    let first = "GET /one HTTP/1.1\r\nHost: x\r\nX-User: ann\r\n\r\n";
    caller.write_all(first.as_bytes()).await.unwrap();
    let mut answer = head(&mut caller).await;
    caller.write_all(large[0].as_bytes()).await.unwrap();
    let reading = caller.read_to_string(&mut answer);
    timeout(LONG, reading).await.unwrap().unwrap();
    assert!(
        answer.contains("anns ") && answer.contains("head-too-large"),
        "{answer}"
    );
    for bytes in [60_000, 64_000] {
        let text = format!("GET / HTTP/1.1\r\n{close}X: {}\r\n\r\n", "v".repeat(bytes));
        let answer = stage.raw(&text).await;
        assert!(answer.contains("anns "), "{bytes}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_headers_pass_and_servers_with_a_limit_see_no_more_than_they_take() {
    let stage = Stage::set_up().await;
    // hyper's own limit is 100.
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", serving("anns", "").await).await;
    ann.mine("ann").await;
    for lines in [3, 60, 61, 63, 64, 65, 93, 96, 97, 99, 100] {
        let more: String = (2..lines).map(|n| format!("X-{n}: 1\r\n")).collect();
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
        let answer = stage.raw(&text).await;
        assert!(answer.contains("pods GET /"), "{lines}: {answer}");
    }
    for lines in [100, 101, 200, 256] {
        let more: String = (3..lines).map(|n| format!("X-{n}: 1\r\n")).collect();
        let text =
            format!("GET / HTTP/1.1\r\nHost: x\r\nX-User: ann\r\nConnection: close\r\n{more}\r\n");
        let answer = stage.raw(&text).await;
        assert!(
            answer.contains(&format!("anns {}", lines - 1)),
            "{lines}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_no_host_never_sees_a_name_of_the_relays() {
    let stage = Stage::set_up().await;
    let mut ann = stage.kdev("ann", serving("anns", "").await).await;
    ann.mine("ann").await;
    let name = format!("kdev-{}", stage.first);
    let nameless = async |user: &str| {
        let text = format!("GET /old HTTP/1.0\r\nX-User: {user}\r\n\r\n");
        stage.raw(&text).await
    };
    let answer = nameless("eve").await;
    assert!(
        answer.contains(" 503 ") && !answer.contains(&name),
        "{answer}"
    );
    let answer = nameless("ann").await;
    assert!(answer.contains("anns "), "{answer}");
    let hosts = |answer: &str| answer.to_lowercase().contains("host");
    assert!(!answer.contains(&name) && !hosts(&answer), "{answer}");
    assert!(answer.contains("GET /old HTTP/1.0"), "{answer}");
    pods(&stage).await;
    let answer = nameless("eve").await;
    assert!(answer.contains("pods ") && !hosts(&answer), "{answer}");
    // One that names it gets it through, of whichever version.
    let named = "GET /old HTTP/1.0\r\nHost: web.shop\r\nX-User: ann\r\n\r\n";
    let answer = stage.raw(named).await;
    assert!(answer.contains("Host: web.shop"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_for_some_are_kept_from_caches_and_what_the_app_says_stays() {
    let stage = Stage::set_up().await;
    pods(&stage).await;
    let control = |answer: &str| {
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        let mut lines = head
            .lines()
            .filter_map(|line| line.strip_prefix("cache-control: "));
        let line = lines.next().map(str::to_owned);
        assert!(lines.next().is_none(), "{head}");
        line
    };
    for (header, personal) in [
        ("", "no-store"),
        (
            "Cache-Control: private, max-age=60\r\n",
            "private, max-age=60, no-store",
        ),
        ("Cache-Control: No-Store\r\n", "no-store"),
    ] {
        let mut ann = stage.kdev("ann", serving("anns", header).await).await;
        ann.mine("ann").await;
        let (_, answer) = stage.get("/", &[("x-user", "ann")]).await;
        assert_eq!(control(&answer).as_deref(), Some(personal), "{answer}");
        let (_, answer) = stage.get("/", &[]).await;
        assert_eq!(control(&answer), None, "{answer}");
        ann.ask(&Ask::Bye).await;
        let told = ann.attach(ann.claim("all", &[])).await;
        assert!(matches!(told, Tell::Attached { .. }), "{told:?}");
        let (_, answer) = stage.get("/", &[]).await;
        let said = header.to_lowercase();
        let said = said.strip_prefix("cache-control: ").map(str::trim);
        assert_eq!(control(&answer).as_deref(), said, "{answer}");
        ann.ask(&Ask::Bye).await;
    }
}
