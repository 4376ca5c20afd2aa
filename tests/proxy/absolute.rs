//! HTTP absolute-form: what reaches the origin, and what comes back.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::support::{Proxy, read_all, read_head, read_until, within};

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
