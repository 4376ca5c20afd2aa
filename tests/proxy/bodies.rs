//! Bodies on their way through an absolute-form exchange.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Proxy, read_all, read_head, read_until, within};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

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
