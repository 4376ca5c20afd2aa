//! Requests that two readers could understand differently, and others that are out to harm.

use std::time::Duration;

use kdev::rule::{AppProtocol, Condition};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::support::*;

/// A relay whose one claim makes it read HTTP; `/secret` is ann's alone.
async fn stage() -> (Stage, Kdev) {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", app("ann").await).await;
    let mut claim = ann.claim("a", &[Condition::path("/secret").unwrap()]);
    claim.protocol = AppProtocol::Http;
    ann.attach(claim).await;
    (stage, ann)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ambiguous_is_refused_or_made_plain() {
    let (stage, ann) = stage().await;
    let smuggled = "GET /secret HTTP/1.1\r\nHost: x\r\n\r\n";
    let post = |headers: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}{smuggled}")
    };
    let end = "0\r\n\r\n";
    for (request, statuses) in [
        (
            post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
            &[400][..],
        ),
        (post("Content-Length: 5, 6\r\n", "hello"), &[400]),
        (post("Content-Length: +5\r\n", "hello"), &[400]),
        (post("Content-Length: 0x5\r\n", "hello"), &[400]),
        (post("Content-Length: -1\r\n", ""), &[400]),
        (post("Content-Length: 99999999999999999999\r\n", ""), &[400]),
        (post("Transfer-Encoding: xchunked\r\n", end), &[400, 501]),
        (
            post("Transfer-Encoding: chunked, identity\r\n", end),
            &[400, 501],
        ),
        (
            post("Transfer-Encoding: gzip, chunked\r\n", end),
            &[400, 501],
        ),
        (
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                end,
            ),
            &[400, 501],
        ),
        (post("Transfer-Encoding: \x0bchunked\r\n", end), &[400, 501]),
        (post("Transfer-Encoding : chunked\r\n", end), &[400]),
        (
            post(
                "Transfer-Encoding: chunked\r\n",
                "5;a=\"\r\nhello\r\n0\r\n\r\n",
            ),
            &[200, 400],
        ),
        (
            post("Transfer-Encoding: chunked\r\n", "5\r\nhelloX\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            post("Transfer-Encoding: chunked\r\n", "-5\r\nhello\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            post(
                "Transfer-Encoding: chunked\r\n",
                "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            ),
            &[400],
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\n X-Folded: 1\r\n\r\n".to_owned(),
            &[400],
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n folded\r\n\r\n".to_owned(),
            &[400],
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n".to_owned(),
            &[400],
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: a\rb\r\n\r\n".to_owned(),
            &[400],
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nX A: 1\r\n\r\n".to_owned(),
            &[400],
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(),
            &[400],
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), &[400]),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[405]),
        ("GET x HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[400]),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n",
                "a".repeat(100_000)
            ),
            &[431],
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
                "a: 1\r\n".repeat(3000)
            ),
            &[431],
        ),
    ] {
        let answer = stage.raw(&request).await;
        let shown = &request[..request.len().min(120)];
        let status: u16 = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
        assert!(statuses.contains(&status), "{shown:?}: {answer}");
        if status != 200 {
            assert!(!answer.contains("GET /secret"), "{shown:?}: {answer}");
            assert_eq!(
                answer.matches("HTTP/1.1 ").count(),
                1,
                "{shown:?}: {answer}"
            );
        }
    }
    drop(ann);
    assert!(stage.get("/", &[]).await.1.contains("pods GET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pods_get_has_one_length() {
    let stage = Stage::set_up().await;
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    let mut ann = stage.kdev("ann", app("ann").await).await;
    let mut claim = ann.claim("a", &[Condition::path("/secret").unwrap()]);
    claim.protocol = AppProtocol::H1;
    ann.attach(claim).await;
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n2\r\nhi\r\n0\r\n\r\n"
        );
        let serving = async {
            let Ok((mut pod, _)) = timeout(Duration::from_secs(2), pods.accept())
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            else {
                return String::new();
            };
            let mut read = Vec::new();
            while !read.ends_with(b"0\r\n\r\n") {
                pod.read_buf(&mut read).await.unwrap();
            }
            pod.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            String::from_utf8(read).unwrap().to_lowercase()
        };
        let (answer, got) = tokio::join!(stage.raw(&request), serving);
        if answer.contains(" 400 ") {
            assert!(got.is_empty(), "{got}");
        } else {
            assert!(!got.contains("content-length"), "{got}");
            assert!(got.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{got}");
        }
    }
    // The target's host goes before the header's.
    let asking =
        stage.raw("GET http://web.shop/a HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n");
    let serving = async {
        let (mut pod, _) = pods.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            pod.read_buf(&mut read).await.unwrap();
        }
        pod.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8(read).unwrap().to_lowercase()
    };
    let (_, got) = tokio::join!(asking, serving);
    assert!(got.starts_with("get /a http/1.1\r\n"), "{got}");
    assert!(
        got.contains("\r\nhost: web.shop\r\n") && !got.contains("other"),
        "{got}"
    );
    // HTTP/2 in disguise is not let through, so that all requests are seen.
    let asking = stage.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
    let serving = async {
        let (mut pod, _) = pods.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            pod.read_buf(&mut read).await.unwrap();
        }
        pod.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8(read).unwrap().to_lowercase()
    };
    let (_, got) = tokio::join!(timeout(Duration::from_secs(2), asking), serving);
    assert!(
        !got.contains("h2c") && !got.contains("http2-settings"),
        "{got}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_odd_answer_is_not_passed_on_as_it_is() {
    let stage = Stage::set_up().await;
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    let mut ann = stage.kdev("ann", app("ann").await).await;
    let mut claim = ann.claim("a", &[Condition::path("/secret").unwrap()]);
    claim.protocol = AppProtocol::H1;
    ann.attach(claim).await;
    for (answer, status) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "502",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "200",
        ),
        ("nonsense\r\n\r\n", "502"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            "502",
        ),
    ] {
        let serving = async {
            let (mut pod, _) = pods.accept().await.unwrap();
            let _ = pod.read_buf(&mut Vec::with_capacity(1000)).await;
            pod.write_all(answer.as_bytes()).await.unwrap();
        };
        let ((got, text), ()) = tokio::join!(stage.get("/", &[]), serving);
        assert_eq!(got.to_string(), status, "{answer}: {text}");
        assert!(!(text.contains("content-length: 5")), "{text}");
    }
}

#[tokio::test]
async fn a_slow_head_ends_and_a_quiet_connection_does_not() {
    let stage = Stage::set_up().await;
    stage.pods("pods").await;
    let mut ann = stage.kdev("ann", app("ann").await).await;
    let mut claim = ann.claim("a", &[Condition::path("/secret").unwrap()]);
    claim.protocol = AppProtocol::H1;
    ann.attach(claim).await;
    let ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut quiet = stage.caller().await;
    quiet.write_all(ask).await.unwrap();
    let mut read = [0; 4096];
    assert_ne!(quiet.read(&mut read).await.unwrap(), 0);
    let mut slow = stage.caller().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    let trickling = async {
        let mut read = [0; 1000];
        for _ in 0..40 {
            if slow.write_all(b"X-A: 1\r\n").await.is_err() {
                return true;
            }
            let waited = timeout(Duration::from_millis(500), slow.read(&mut read)).await;
            // Whatever it is, it is the end.
            if waited.is_ok() {
                return true;
            }
        }
        false
    };
    assert!(trickling.await, "a head that never ends is read for ever");
    quiet.write_all(ask).await.unwrap();
    assert_ne!(quiet.read(&mut read).await.unwrap(), 0);
}

/// What an HTTP/2 connection with these frames after its preface is answered until it ends.
async fn frames(stage: &Stage, frames: &[u8]) -> Vec<u8> {
    let mut caller = TcpStream::connect((RELAY, stage.first)).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let _ = caller
        .write_all(&[preface.as_slice(), frames].concat())
        .await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(3), caller.read_to_end(&mut answer)).await;
    answer
}

/// A HEADERS frame with these literal fields.
fn headers(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        block.push(u8::try_from(name.len()).unwrap());
        block.extend(name.as_bytes());
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    }
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([1, if end { 5 } else { 4 }]);
    frame.extend(stream.to_be_bytes());
    frame.extend(block);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_tricks_reach_nobody() {
    let stage = Stage::set_up().await;
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    let mut ann = stage.kdev("ann", app2("ann").await).await;
    let mut claim = ann.claim("a", &[Condition::path("/secret").unwrap()]);
    claim.protocol = AppProtocol::H2c;
    ann.attach(claim).await;
    let plain = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "x"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [plain.as_slice(), more].concat();
    for odd in [
        with(&[(":path", "/secret")]),
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("te", "gzip")]),
        with(&[("X-Upper", "1")]),
        with(&[("x-a", "1\r\nx-b: 2")]),
        with(&[("x-a", "1\0")]),
        with(&[("host", "y")]),
        with(&[("host", "x"), ("host", "x")]),
        with(&[("content-length", "5")]),
        with(&[("x-a", "1"), (":late", "1")]),
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "x")],
        vec![(":scheme", "http"), (":path", "/"), (":authority", "x")],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", ""),
            (":authority", "x"),
        ],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "secret"),
            (":authority", "x"),
        ],
        vec![(":method", "CONNECT"), (":authority", "x:1")],
        vec![
            (":method", "GE T"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "x"),
        ],
    ] {
        frames(&stage, &headers(1, &odd, true)).await;
        let came = timeout(Duration::from_millis(50), pods.accept()).await;
        assert!(came.is_err(), "{odd:?}");
    }
    // Requests that are taken back at once, faster than anybody could serve them.
    let mut rapid = Vec::new();
    for n in 0..20_000_u32 {
        rapid.extend(headers(2 * n + 1, &with(&[("x-user", "ann")]), true));
        rapid.extend([0, 0, 4, 3, 0]);
        rapid.extend((2 * n + 1).to_be_bytes());
        rapid.extend([0, 0, 0, 8]);
    }
    let answer = frames(&stage, &rapid).await;
    assert!(answer.windows(9).any(|w| w[3] == 7), "no GOAWAY");
    // Headers without end.
    let mut endless = headers(1, &plain, false);
    endless[4] = 0;
    for _ in 0..2000 {
        endless.extend([0, 0x40, 0, 9, 0, 0, 0, 0, 1]);
        endless.extend([0; 0x4000]);
    }
    frames(&stage, &endless).await;
    drop(pods);
    stage.pods("pods").await;
    assert!(stage.get("/", &[]).await.1.contains("pods GET"));
}
