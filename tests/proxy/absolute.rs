//! HTTP absolute-form: what reaches the origin, and what comes back.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Answer, Proxy, failures, read_all, read_head, read_until, within};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Sends `request` to an origin that answers [`OK`]; returns the head that the origin got.
async fn head_at_origin(request: &str) -> String {
    let proxy = Proxy::start().await;
    let (heads_tx, mut heads) = tokio::sync::mpsc::unbounded_channel();
    proxy
        .server("web.shop:80", move |mut stream, _| {
            let heads_tx = heads_tx.clone();
            async move {
                let head = read_head(&mut stream).await.unwrap();
                heads_tx.send(head).unwrap();
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        })
        .await;
    let answer = proxy.ask(request).await;
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    within(heads.recv()).await.unwrap()
}

#[tokio::test]
async fn the_origin_sees_the_apps_request_and_nothing_of_the_proxy() {
    let head = head_at_origin(
        "GET http://user:pw@web.shop/a/b?c=%20d HTTP/1.1\r\nHoSt: other\r\nX-Mine: 1\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nConnection: close, X-Hop\r\n\
         X-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nuser-AGENT: odd\r\n\r\n",
    )
    .await;
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "GET /a/b?c=%20d HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "Connection: te",
            "HoSt: web.shop",
            "TE: trailers",
            "X-Mine: 1",
            "user-AGENT: odd"
        ]
    );
}

#[tokio::test]
async fn the_port_stands_in_host_as_the_app_wrote_it() {
    let head = head_at_origin("GET http://web.shop:80 HTTP/1.0\r\n\r\n").await;
    assert_eq!(head, "GET / HTTP/1.1\r\nhost: web.shop:80\r\n\r\n");
}

#[tokio::test]
async fn an_app_of_http_1_0_gets_an_answer_that_ends() {
    let proxy = Proxy::start().await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    proxy.origin("web.shop:80", chunked).await;
    let answer = proxy.ask("GET http://web.shop/ HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    // And keeps its connection where it asks for that and the length is known.
    proxy.origin("sized.shop:80", OK).await;
    let mut stream = proxy.connect().await;
    for _ in 0..2 {
        stream
            .write_all(b"GET http://sized.shop/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .await
            .unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.contains("keep-alive"), "{head}");
        assert_eq!(read_until(&mut stream, "ok").await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn an_origin_of_http_1_0_is_passed_on_as_what_the_app_speaks() {
    let proxy = Proxy::start().await;
    proxy
        .server("web.shop:80", |mut stream, _| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.0 203 Odd Words\r\nX-CaSe: 1\r\n\r\nuntil the end")
                .await
                .unwrap();
        })
        .await;
    let mut stream = proxy.connect().await;
    for _ in 0..2 {
        stream
            .write_all(b"GET http://web.shop/ HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 203 Odd Words\r\n"), "{head}");
        assert!(head.contains("X-CaSe: 1\r\n"), "{head}");
        let body = read_until(&mut stream, "0\r\n\r\n").await.unwrap();
        assert_eq!(body, "D\r\nuntil the end\r\n0\r\n\r\n");
    }
}

#[tokio::test]
async fn answers_without_a_body_keep_the_connection() {
    let proxy = Proxy::start().await;
    let mut stream = proxy.connect().await;
    for (n, (method, response, kept)) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",
            "Content-Length: 12345",
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "200",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204"),
        ("DELETE", "HTTP/1.1 204 No Content\r\n\r\n", "204"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
            "ETag: \"x\"",
        ),
        (
            "POST",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "ontent-",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        proxy.origin(&format!("web{n}.shop:80"), response).await;
        let request = format!("{method} http://web{n}.shop/ HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.contains(kept), "{method} {response}: {head}");
    }
    // Nothing was left over between them.
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "");
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let proxy = Proxy::start().await;
    proxy
        .server("web.shop:80", |mut stream, _| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .unwrap();
            // Answers each chunk before the next is sent.
            for _ in 0..3 {
                assert_eq!(read_until(&mut stream, "\r\n").await.unwrap(), "4\r\n");
                let ping = read_until(&mut stream, "\r\n").await.unwrap();
                assert_eq!(ping, "ping\r\n");
                stream.write_all(b"4\r\npong\r\n").await.unwrap();
            }
            assert_eq!(read_head(&mut stream).await.unwrap(), "0\r\n\r\n");
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        })
        .await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(
            b"GET http://web.shop/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await
        .unwrap();
    read_head(&mut stream).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"4\r\nping\r\n").await.unwrap();
        let pong = read_until(&mut stream, "pong\r\n").await.unwrap();
        assert_eq!(pong, "4\r\npong\r\n");
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(read_head(&mut stream).await.unwrap(), "0\r\n\r\n");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let proxy = Proxy::start().await;
    proxy
        .server("web.shop:80", |mut stream, _| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains("TE: trailers"), "{head}");
            assert!(head.contains("Trailer: x-sum"), "{head}");
            let body = read_head(&mut stream).await.unwrap();
            assert!(
                body.to_lowercase().ends_with("0\r\nx-sum: 7\r\n\r\n"),
                "{body}"
            );
            stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n\
                      2\r\nok\r\n0\r\nX-End: yes\r\n\r\n",
                )
                .await
                .unwrap();
        })
        .await;
    let answer = proxy
        .ask(
            "POST http://web.shop/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: x-sum\r\n\
             Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
    assert!(answer.contains("Trailer: X-End"), "{answer}");
    let end = answer.to_lowercase();
    assert!(
        end.ends_with("2\r\nok\r\n0\r\nx-end: yes\r\n\r\n"),
        "{answer}"
    );
}

const EXPECTING: &[u8] =
    b"PUT http://web.shop/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test]
async fn the_app_is_told_to_continue_when_the_origin_says_so() {
    let proxy = Proxy::start().await;
    let (go_tx, go_rx) = tokio::sync::watch::channel(false);
    proxy
        .server("web.shop:80", move |mut stream, _| {
            let mut go_rx = go_rx.clone();
            async move {
                let head = read_head(&mut stream).await.unwrap();
                assert!(head.contains("Expect: 100-continue"), "{head}");
                go_rx.wait_for(|go| *go).await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                    .await
                    .unwrap();
                assert_eq!(read_until(&mut stream, "body").await.unwrap(), "body");
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        })
        .await;
    let mut stream = proxy.connect().await;
    stream.write_all(EXPECTING).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
    assert!(early.is_err(), "nobody asked for the body yet");
    go_tx.send(true).unwrap();
    let head = read_head(&mut stream).await.unwrap();
    assert_eq!(head, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    assert!(read_until(&mut stream, "ok").await.unwrap().ends_with("ok"));
}

#[tokio::test]
async fn an_origin_that_does_not_want_the_body_is_not_sent_it() {
    let proxy = Proxy::start().await;
    let (rest_tx, mut rest) = tokio::sync::mpsc::unbounded_channel();
    proxy
        .server("web.shop:80", move |mut stream, _| {
            let rest_tx = rest_tx.clone();
            async move {
                read_head(&mut stream).await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
                    .await
                    .unwrap();
                rest_tx.send(read_all(&mut stream).await).unwrap();
            }
        })
        .await;
    let mut stream = proxy.connect().await;
    stream.write_all(EXPECTING).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 Too Large\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nno"), "{answer}");
    assert_eq!(within(rest.recv()).await.unwrap(), "");
    proxy.quiet().await;
}

#[tokio::test]
async fn an_origin_that_ignores_the_expectation_gets_the_body_in_the_end() {
    let proxy = Proxy::start().await;
    proxy
        .server("web.shop:80", |mut stream, _| async move {
            read_head(&mut stream).await.unwrap();
            assert_eq!(read_until(&mut stream, "body").await.unwrap(), "body");
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
    let mut stream = proxy.connect().await;
    stream.write_all(EXPECTING).await.unwrap();
    stream.write_all(b"body").await.unwrap();
    let answer = read_until(&mut stream, "ok").await.unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn an_upgrade_becomes_a_plain_stream() {
    let proxy = Proxy::start().await;
    proxy
        .server("web.shop:80", |mut stream, _| async move {
            let head = read_head(&mut stream).await.unwrap().to_lowercase();
            assert!(head.contains("connection: upgrade\r\n"), "{head}");
            assert!(head.contains("upgrade: odd/1\r\n"), "{head}");
            stream
                .write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: odd/1\r\nX-Key: 1\r\n\r\nhello ",
                )
                .await
                .unwrap();
            // Ends only after the app has ended: each direction is its own.
            let question = read_all(&mut stream).await;
            stream.write_all(question.as_bytes()).await.unwrap();
        })
        .await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(
            b"GET ws://web.shop/ HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
              Upgrade: odd/1\r\n\r\n",
        )
        .await
        .unwrap();
    let head = read_head(&mut stream).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for line in [
        "Connection: upgrade\r\n",
        "Upgrade: odd/1\r\n",
        "X-Key: 1\r\n",
    ] {
        assert!(head.contains(line), "{head}");
    }
    assert_eq!(read_until(&mut stream, " ").await.unwrap(), "hello ");
    stream.write_all(b"and good bye").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "and good bye");
    proxy.quiet().await;
}

#[tokio::test]
async fn an_upgrade_that_the_origin_declines_is_an_answer() {
    let proxy = Proxy::start().await;
    proxy.origin("web.shop:80", OK).await;
    let answer = proxy
        .ask(
            "GET http://web.shop/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\n\
             Upgrade: websocket\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn each_failed_dial_has_its_status_early_or_late() {
    let proxy = Proxy::start().await;
    let mut stream = proxy.connect().await;
    for (error, _, status) in failures() {
        for answer in [Answer::Fail(error.clone()), Answer::Late(error.clone())] {
            proxy.names.set("web.shop:80", [answer]);
            stream
                .write_all(b"GET http://web.shop/ HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            let text = read_until(&mut stream, "\n").await.unwrap();
            assert_eq!(text, format!("kdev: {error}\n"));
        }
    }
}

#[tokio::test]
async fn an_origin_that_says_nothing_or_nonsense_is_a_502() {
    let proxy = Proxy::start().await;
    for said in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 2000 x\r\n\r\n"] {
        proxy
            .server("web.shop:80", move |mut stream, _| async move {
                read_head(&mut stream).await;
                stream.write_all(said.as_bytes()).await.unwrap();
            })
            .await;
        let answer = proxy
            .ask("GET http://web.shop/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{said:?}: {answer}");
        assert!(answer.contains("kdev: web.shop:80 "), "{said:?}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_short_does_not_look_whole() {
    let proxy = Proxy::start().await;
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        proxy
            .server("web.shop:80", move |mut stream, _| async move {
                read_head(&mut stream).await;
                let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            })
            .await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET http://web.shop/ HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        let mut all = Vec::new();
        let error = within(stream.read_to_end(&mut all)).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{head}");
    }
}

#[tokio::test]
async fn an_early_answer_arrives_while_the_upload_goes_on() {
    let proxy = Proxy::start().await;
    proxy
        .server("web.shop:80", |mut stream, _| async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
            assert_eq!(read_until(&mut stream, "end").await.unwrap().len(), 6);
        })
        .await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"POST http://web.shop/ HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
        .await
        .unwrap();
    let answer = read_until(&mut stream, "ok").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stream.write_all(b"end").await.unwrap();
    // The connection goes on.
    stream
        .write_all(b"GET http://nowhere/ HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut stream).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

#[tokio::test]
async fn what_could_smuggle_a_request_is_refused_or_made_plain() {
    let proxy = Proxy::start().await;
    proxy.origin("web.shop:80", OK).await;
    for lengths in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 2",
        "Content-Length: +1",
        "Content-Length: 1\r\nTransfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Content-Length: 99999999999999999999",
        " Content-Length: 1",
        "X: a\rb",
    ] {
        let answer = proxy
            .ask(format!(
                "POST http://web.shop/ HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n1"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lengths}: {answer}");
    }
    // Both at once: the chunks decide, the origin sees them alone, and the app's connection ends
    // (RFC 9112, 6.3).
    proxy
        .server("web.shop:80", |mut stream, _| async move {
            let head = read_head(&mut stream).await.unwrap().to_lowercase();
            assert!(!head.contains("content-length"), "{head}");
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
    let answer = proxy
        .ask(
            "POST http://web.shop/ HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET http://web.shop/admin HTTP/1.1\r\n\r\n",
        )
        .await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn what_is_not_plain_http_is_refused_with_advice() {
    let proxy = Proxy::start().await;
    for (uri, status, advice) in [
        ("https://web.shop/", 501, "CONNECT web.shop"),
        ("ftp://web.shop/", 400, "not an http://"),
        ("http://300.1.1.1/", 400, "300.1.1.1"),
        ("http://web.shop:0/", 400, "port 0"),
        ("http://a_b..c/", 400, "neither a host name"),
    ] {
        let answer = proxy
            .ask(format!(
                "GET {uri} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{uri}: {answer}"
        );
        assert!(answer.contains(advice), "{uri}: {answer}");
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let proxy = Proxy::start().await;
    proxy.origin("web.shop:80", OK).await;
    let request = |size: usize| {
        format!(
            "GET http://web.shop/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: {}\r\n\r\n",
            "a".repeat(size)
        )
    };
    let answer = proxy.ask(request(40 << 10)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = proxy.ask(request(80 << 10)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "A: 1\r\n".repeat(1000);
    let answer = proxy
        .ask(format!("GET http://web.shop/ HTTP/1.1\r\n{many}\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn an_app_that_leaves_takes_its_request_along() {
    let proxy = Proxy::start().await;
    let (gone_tx, mut gone) = tokio::sync::mpsc::unbounded_channel();
    proxy
        .server("web.shop:80", move |mut stream, _| {
            let gone_tx = gone_tx.clone();
            async move {
                read_head(&mut stream).await.unwrap();
                read_all(&mut stream).await;
                gone_tx.send(()).unwrap();
            }
        })
        .await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"GET http://web.shop/ HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(stream);
    within(gone.recv()).await.unwrap();
    proxy.quiet().await;
}

/// More than the buffers of all sockets on the way hold.
const FLOOD: usize = 96 << 20;

/// Writes [`FLOOD`] bytes to somebody who does not read, and returns how many went.
async fn flood(stream: &mut tokio::net::TcpStream) -> usize {
    let (chunk, mut sent) = (vec![b'a'; 64 << 10], 0);
    while sent < FLOOD {
        let patience = Duration::from_millis(300);
        match tokio::time::timeout(patience, stream.write_all(&chunk)).await {
            Ok(result) => result.unwrap(),
            Err(_) => break,
        }
        sent += chunk.len();
    }
    sent
}

#[tokio::test]
async fn a_body_that_nobody_reads_stops_its_sender() {
    let proxy = Proxy::start().await;
    let (sent_tx, mut sent) = tokio::sync::mpsc::unbounded_channel();
    proxy
        .server("web.shop:80", move |mut stream, _| {
            let sent_tx = sent_tx.clone();
            async move {
                let head = read_head(&mut stream).await.unwrap();
                if head.starts_with("GET") {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                    sent_tx.send(flood(&mut stream).await).unwrap();
                } else {
                    std::future::pending::<()>().await;
                }
            }
        })
        .await;
    let mut up = proxy.connect().await;
    let head = format!("PUT http://web.shop/ HTTP/1.1\r\nContent-Length: {FLOOD}\r\n\r\n");
    up.write_all(head.as_bytes()).await.unwrap();
    assert!(flood(&mut up).await < FLOOD / 2);
    let mut down = proxy.connect().await;
    down.write_all(b"GET http://web.shop/ HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert!(within(sent.recv()).await.unwrap() < FLOOD / 2);
}
