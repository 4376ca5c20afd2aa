//! HTTP CONNECT.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Answer, Proxy, failures, read_all, read_head, within};

#[tokio::test]
async fn a_tunnel_passes_data_and_each_end_on_its_own() {
    let proxy = Proxy::start().await;
    proxy.echo("web.shop:443").await;
    let mut stream = proxy.connect().await;
    // With the first bytes of the tunnel right behind, as some clients do.
    stream
        .write_all(b"CONNECT web.shop:443 HTTP/1.1\r\nHost: web.shop:443\r\n\r\nearly ")
        .await
        .unwrap();
    let head = read_head(&mut stream).await.unwrap();
    assert_eq!(head, "HTTP/1.1 200 OK\r\n\r\n");
    stream.write_all(b"and late").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "early and late");
    proxy.quiet().await;
}

#[tokio::test]
async fn the_answer_waits_for_the_dial_and_says_why_it_failed() {
    let proxy = Proxy::start().await;
    let mut stream = proxy.connect().await;
    for (error, _, status) in failures() {
        proxy
            .names
            .set("web.shop:80", [Answer::Fail(error.clone())]);
        stream
            .write_all(b"CONNECT web.shop:80 HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains("x-kdev-error: "), "{head}");
        let text = format!("kdev: {error}\n");
        let mut body = vec![0; text.len()];
        within(stream.read_exact(&mut body)).await.unwrap();
        assert_eq!(String::from_utf8(body).unwrap(), text);
    }
}

#[tokio::test]
async fn a_late_refusal_resets_the_tunnel() {
    let proxy = Proxy::start().await;
    let (error, ..) = failures().remove(1);
    proxy.names.set("web.shop:80", [Answer::Late(error)]);
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"CONNECT web.shop:80 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut all = Vec::new();
    let error = within(stream.read_to_end(&mut all)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_pod_that_breaks_resets_the_app() {
    let proxy = Proxy::start().await;
    proxy
        .server("web.shop:80", |stream, _| async move {
            stream.set_zero_linger().unwrap();
        })
        .await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"CONNECT web.shop:80 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut all = Vec::new();
    let error = within(stream.read_to_end(&mut all)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_app_that_leaves_abandons_its_dial() {
    let proxy = Proxy::start().await;
    proxy.names.set("web.shop:80", [Answer::Never]);
    for request in [
        &b"CONNECT web.shop:80 HTTP/1.1\r\n\r\n"[..],
        b"GET http://web.shop/ HTTP/1.1\r\n\r\n",
        b"\x05\x01\x00\x05\x01\x00\x03\x08web.shop\x00\x50",
        b"\x04\x01\x00\x50\0\0\0\x01\0web.shop\0",
    ] {
        let dials = proxy.names.dials.load(Ordering::SeqCst);
        let mut stream = proxy.connect().await;
        stream.write_all(request).await.unwrap();
        within(async {
            while proxy.names.dials.load(Ordering::SeqCst) == dials {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert_eq!(proxy.stats.snapshot().live, 1);
        drop(stream);
        proxy.quiet().await;
    }
}

#[tokio::test]
async fn what_is_no_destination_is_refused() {
    let proxy = Proxy::start().await;
    for target in ["web.shop", "web.shop:0", "300.1.1.1:80", ":80"] {
        let answer = proxy
            .ask(format!(
                "CONNECT {target} HTTP/1.1\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
    }
    let answer = proxy
        .ask("CONNECT web.shop:80 HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
