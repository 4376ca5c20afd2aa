//! What absolute-form requests are refused with, and why.

use std::sync::{Arc, Mutex};

use kdev::proxy::{Access, Config, Refusals};
use tokio::io::AsyncWriteExt;

use super::support::{Answer, Proxy, failures, read_head, read_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

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
async fn what_the_proxy_refuses_has_a_reason_for_the_app_and_for_the_user() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut config = Config::new(Access::SameUser { password: None });
    let hears = heard.clone();
    config.refusals = Refusals::new(move |text| hears.lock().unwrap().push(text.to_owned()));
    let proxy = Proxy::with(config).await;
    let url = "GET http://web.shop/";
    for (request, status, reason) in [
        (
            format!("{url} HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(80 << 10)),
            431,
            "the head of this request has more than 64 KiB or 100 lines",
        ),
        (
            format!("{url} HTTP/1.1\r\n{}\r\n", "A: 1\r\n".repeat(101)),
            431,
            "the head of this request has more than 64 KiB or 100 lines",
        ),
        (
            format!("{url} HTTP/1.1\r\nA B: 1\r\n\r\n"),
            400,
            "the head of this request is malformed",
        ),
        (
            "GET ftp://web.shop/ HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            400,
            "ftp://web.shop/ is not an http:// address",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            400,
            "this is kdev's proxy, not a web server",
        ),
    ] {
        let answer = proxy.ask(request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        let kind = "content-type: text/plain; charset=utf-8\r\n";
        assert!(answer.contains(kind), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(body.starts_with(&format!("kdev: {reason}")), "{answer}");
        assert!(
            body.ends_with('\n') && body.lines().count() == 1,
            "{answer}"
        );
        proxy.quiet().await;
        let told = std::mem::take(&mut *heard.lock().unwrap());
        let [told] = &told[..] else {
            panic!("{told:?}");
        };
        let expected = format!("refused a request to the proxy: {reason}");
        assert!(told.starts_with(&expected), "{told}");
    }
    // A failed dial is told by whoever dials.
    let answer = proxy
        .ask("GET http://none/ HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(*heard.lock().unwrap(), [""; 0]);
}
