//! Connections to origins that are used again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{Answer, Proxy, failures, read_head, read_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn exchange(stream: &mut TcpStream, method: &str) -> String {
    let request =
        format!("{method} http://web.shop/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(stream).await.unwrap();
    let end = if head.contains("200 OK") { "ok" } else { "\n" };
    let body = read_until(stream, end).await.unwrap();
    head + &body
}

#[tokio::test]
async fn one_connection_carries_the_requests_of_all_apps() {
    let proxy = Proxy::start().await;
    let accepted = proxy.origin("web.shop:80", OK).await;
    for _ in 0..3 {
        let mut stream = proxy.connect().await;
        for method in ["GET", "PUT", "GET"] {
            let answer = exchange(&mut stream, method).await;
            assert!(answer.ends_with("ok"), "{answer}");
            // The connection comes back a moment after the answer is through.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    // What may not be sent twice gets one of its own, which others use after it.
    for (method, connections) in [("POST", 2), ("GET", 2), ("PATCH", 3), ("GET", 3)] {
        exchange(&mut proxy.connect().await, method).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(accepted.load(Ordering::SeqCst), connections, "{method}");
    }
}

#[tokio::test]
async fn a_connection_that_the_origin_closes_is_not_used_again() {
    let proxy = Proxy::start().await;
    let accepted = proxy
        .origin(
            "web.shop:80",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        )
        .await;
    let mut stream = proxy.connect().await;
    for _ in 0..3 {
        let answer = exchange(&mut stream, "POST").await;
        assert!(
            answer.ends_with("ok") && !answer.contains("close"),
            "{answer}"
        );
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
}

/// An origin whose first connection answers one request and breaks on the second.
async fn breaks_once(proxy: &Proxy) {
    proxy
        .server("web.shop:80", |mut stream, n| async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(OK.as_bytes()).await.unwrap();
                if n == 0 {
                    read_head(&mut stream).await;
                    return;
                }
            }
        })
        .await;
}

#[tokio::test]
async fn no_request_is_lost_on_a_dead_connection() {
    for method in ["GET", "DELETE", "POST"] {
        let proxy = Proxy::start().await;
        breaks_once(&proxy).await;
        let mut stream = proxy.connect().await;
        exchange(&mut stream, "GET").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let answer = exchange(&mut stream, method).await;
        assert!(answer.contains("200"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_is_not_tried_again() {
    let proxy = Proxy::start().await;
    let accepted = proxy
        .server("web.shop:80", |mut stream, _| async move {
            read_head(&mut stream).await;
        })
        .await;
    let answer = exchange(&mut proxy.connect().await, "GET").await;
    assert!(answer.contains("502"), "{answer}");
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_late_refusal_by_one_pod_is_tried_once_more() {
    let proxy = Proxy::start().await;
    let (refused, ..) = failures().remove(1);
    proxy.origin("up.shop:80", OK).await;
    let up = {
        proxy.origin("web.shop:80", OK).await;
        proxy.names.get("web.shop:80")
    };
    proxy
        .names
        .set("web.shop:80", [Answer::Late(refused.clone()), up.clone()]);
    let answer = exchange(&mut proxy.connect().await, "POST").await;
    assert!(answer.ends_with("ok"), "{answer}");
    // Twice is the end of it.
    let late = Answer::Late(refused);
    proxy.names.set("other.shop:80", [late.clone(), late, up]);
    let answer = proxy
        .ask("GET http://other.shop/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.contains("502"), "{answer}");
}

#[tokio::test]
async fn requests_at_the_same_time_have_connections_of_their_own_and_few_are_kept() {
    let proxy = Proxy::start().await;
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(40));
    let accepted = proxy
        .server("web.shop:80", move |mut stream, _| {
            let barrier = barrier.clone();
            async move {
                while read_head(&mut stream).await.is_some() {
                    barrier.wait().await;
                    stream.write_all(OK.as_bytes()).await.unwrap();
                }
            }
        })
        .await;
    let mut apps = Vec::new();
    for _ in 0..40 {
        let mut stream = proxy.connect().await;
        apps.push(async move { exchange(&mut stream, "GET").await });
    }
    for answer in futures_util::future::join_all(apps).await {
        assert!(answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 40);
}
