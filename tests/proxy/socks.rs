//! SOCKS4, SOCKS4a and SOCKS5.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Answer, Proxy, failures, read_all, within};

/// A CONNECT to a name.
pub(crate) fn connect_to(name: &str, port: u16) -> Vec<u8> {
    let mut request = vec![5, 1, 0, 3, name.len() as u8];
    request.extend(name.as_bytes());
    request.extend(port.to_be_bytes());
    request
}

pub(crate) async fn greet(stream: &mut TcpStream, methods: &[u8]) -> u8 {
    let greeting = [&[5, methods.len() as u8], methods].concat();
    stream.write_all(&greeting).await.unwrap();
    let mut choice = [0; 2];
    within(stream.read_exact(&mut choice)).await.unwrap();
    assert_eq!(choice[0], 5);
    choice[1]
}

/// Sends a request after the greeting and returns the reply's code.
pub(crate) async fn request(stream: &mut TcpStream, request: &[u8]) -> u8 {
    stream.write_all(request).await.unwrap();
    let mut reply = [0; 10];
    within(stream.read_exact(&mut reply)).await.unwrap();
    assert_eq!(reply[0], 5);
    assert_eq!(reply[2..], [0, 1, 0, 0, 0, 0, 0, 0]);
    reply[1]
}

/// A question with its end, and an answer after it.
async fn talk(stream: &mut TcpStream) {
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(stream).await, "question");
}

#[tokio::test]
async fn socks5_by_name_and_address() {
    let proxy = Proxy::start().await;
    for name in ["web.shop:80", "10.96.0.1:80", "[fd00::1]:80"] {
        proxy.echo(name).await;
    }
    let v4 = [5, 1, 0, 1, 10, 96, 0, 1, 0, 80].to_vec();
    let mut v6 = [5, 1, 0, 4, 0xfd].to_vec();
    v6.extend([0; 14]);
    v6.extend([1, 0, 80]);
    for wanted in [
        connect_to("WEB.shop.", 80),
        connect_to("10.96.0.1", 80),
        v4,
        v6,
    ] {
        let mut stream = proxy.connect().await;
        assert_eq!(greet(&mut stream, &[0]).await, 0);
        assert_eq!(request(&mut stream, &wanted).await, 0, "{wanted:?}");
        talk(&mut stream).await;
    }
    proxy.quiet().await;
    let counted = proxy.stats.snapshot();
    assert_eq!((counted.total, counted.dial_failures), (4, 0));
    assert!(counted.sent > 4 * 8 && counted.received > 4 * 8);
}

#[tokio::test]
async fn socks5_takes_data_that_came_with_the_request() {
    let proxy = Proxy::start().await;
    proxy.echo("web.shop:80").await;
    let early = [&[5, 1, 0][..], &connect_to("web.shop", 80), b"early"].concat();
    let mut stream = proxy.connect().await;
    // One byte at a time: no read is a message.
    for byte in early {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.ends_with("early"), "{answer:?}");
}

#[tokio::test]
async fn socks5_prefers_no_password_and_takes_any_where_none_is_needed() {
    let proxy = Proxy::start().await;
    proxy.echo("web.shop:80").await;
    for (methods, choice) in [
        (&[2, 0][..], 0),
        (&[0, 2], 0),
        (&[2], 2),
        (&[1], 0xff),
        (&[], 0xff),
    ] {
        let mut stream = proxy.connect().await;
        assert_eq!(greet(&mut stream, methods).await, choice, "{methods:?}");
    }
    let mut stream = proxy.connect().await;
    greet(&mut stream, &[2]).await;
    stream.write_all(b"\x01\x01u\x01p").await.unwrap();
    let mut status = [0; 2];
    within(stream.read_exact(&mut status)).await.unwrap();
    assert_eq!(status, [1, 0]);
    assert_eq!(request(&mut stream, &connect_to("web.shop", 80)).await, 0);
    talk(&mut stream).await;
}

#[tokio::test]
async fn socks5_says_why_a_dial_failed() {
    let proxy = Proxy::start().await;
    for (error, code, _) in failures() {
        proxy
            .names
            .set("web.shop:80", [Answer::Fail(error.clone())]);
        let mut stream = proxy.connect().await;
        greet(&mut stream, &[0]).await;
        let reply = request(&mut stream, &connect_to("web.shop", 80)).await;
        assert_eq!(reply, code, "{error}");
        assert_eq!(read_all(&mut stream).await, "");
    }
    assert_eq!(
        proxy.stats.snapshot().dial_failures,
        failures().len() as u64
    );
}

#[tokio::test]
async fn socks5_refuses_what_it_cannot_do() {
    let proxy = Proxy::start().await;
    for (command, code) in [(2, 7), (9, 7)] {
        let mut stream = proxy.connect().await;
        greet(&mut stream, &[0]).await;
        let reply = request(&mut stream, &[5, command, 0, 1, 0, 0, 0, 0, 0, 80]).await;
        assert_eq!(reply, code, "command {command}");
    }
    for (wanted, code) in [
        (vec![5, 1, 0, 9, 0, 0, 0, 0, 0, 80], 8),
        (connect_to("a b", 80), 4),
        (connect_to("300.1.1.1", 80), 4),
        (connect_to("web.shop", 0), 5),
    ] {
        let mut stream = proxy.connect().await;
        greet(&mut stream, &[0]).await;
        assert_eq!(request(&mut stream, &wanted).await, code, "{wanted:?}");
    }
    assert_eq!(
        proxy.names.dials.load(std::sync::atomic::Ordering::SeqCst),
        0
    );
}

#[tokio::test]
async fn a_late_refusal_resets_the_app() {
    let proxy = Proxy::start().await;
    let (error, ..) = failures().remove(1);
    proxy.names.set("web.shop:80", [Answer::Late(error)]);
    let mut stream = proxy.connect().await;
    greet(&mut stream, &[0]).await;
    stream.write_all(&connect_to("web.shop", 80)).await.unwrap();
    let mut all = Vec::new();
    let error = within(stream.read_to_end(&mut all)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    proxy.quiet().await;
    assert_eq!(proxy.stats.snapshot().dial_failures, 1);
}

#[tokio::test]
async fn socks4_with_and_without_a_name() {
    let proxy = Proxy::start().await;
    proxy.echo("web.shop:80").await;
    proxy.echo("10.96.0.1:80").await;
    for (wanted, code) in [
        (&b"\x04\x01\x00\x50\0\0\0\x01me\0web.shop\0"[..], 0x5a),
        (b"\x04\x01\x00\x50\x0a\x60\x00\x01\0", 0x5a),
        (b"\x04\x01\x00\x50\0\0\0\x01me\0nowhere\0", 0x5b),
        (b"\x04\x02\x00\x50\x0a\x60\x00\x01\0", 0x5b),
    ] {
        let mut stream = proxy.connect().await;
        stream.write_all(wanted).await.unwrap();
        let mut reply = [0; 8];
        within(stream.read_exact(&mut reply)).await.unwrap();
        assert_eq!(reply, [0, code, 0, 0, 0, 0, 0, 0], "{wanted:?}");
        if code == 0x5a {
            talk(&mut stream).await;
        } else {
            assert_eq!(read_all(&mut stream).await, "");
        }
    }
}
