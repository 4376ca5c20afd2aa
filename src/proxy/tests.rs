//! What takes time, or a stream that is no socket.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::access::Trust;
use super::conn::Session;
use super::udp::Ends;
use super::*;
use crate::addr::Target;
use crate::dial::DialError;

/// Dials a server that sends everything back.
#[derive(Clone)]
struct Echo(Tasks);

impl Dial for Echo {
    type Io = DuplexStream;

    async fn dial(&self, _: &Target) -> Result<DuplexStream, DialError> {
        let (near, far) = duplex(64);
        self.0.spawn(async move {
            let (mut read, mut write) = tokio::io::split(far);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
        Ok(near)
    }
}

impl DialUdp for Echo {}

/// An app's end of a connection that holds `size` bytes.
fn app(size: usize) -> (DuplexStream, Tasks) {
    let tasks = Tasks::new();
    let config = Config::new(Access::SameUser { password: None });
    let session = Session::new(Echo(tasks.clone()), config, tasks.clone());
    let (app, stream) = duplex(size);
    tasks.spawn(async move { session.serve(stream, Trust::Full, None).await });
    (app, tasks)
}

/// How long the proxy keeps a connection that says `bytes` and no more.
async fn patience(bytes: &[u8]) -> Duration {
    let (mut app, _tasks) = app(1024);
    let begun = Instant::now();
    app.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    let _ = app.read_to_end(&mut rest).await;
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_handshake_must_end_in_time() {
    for begun in [
        &b""[..],
        b"\x05",
        b"\x05\x01\x00\x05\x01\x00\x03\x08web",
        b"\x04\x01\x00\x50\x01\x02\x03\x04me",
        b"CONN",
        b"GET http://web.shop/ HTTP/1.1\r\nHost: x\r\n",
    ] {
        let waited = patience(begun).await;
        let limit = HANDSHAKE_TIMEOUT..HANDSHAKE_TIMEOUT * 2 + Duration::from_secs(1);
        assert!(limit.contains(&waited), "{begun:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_rest_between_requests_but_not_for_ever() {
    let waited = patience(b"GET /healthz HTTP/1.1\r\n\r\n").await;
    let limit = IDLE_TIMEOUT..IDLE_TIMEOUT + Duration::from_secs(2);
    assert!(limit.contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_established_stream_may_rest_for_ever() {
    for handshake in [
        &b"\x05\x01\x00\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50"[..],
        b"\x04\x01\x00\x50\x01\x02\x03\x04\x00",
        b"CONNECT web.shop:80 HTTP/1.1\r\n\r\n",
    ] {
        let (mut app, _tasks) = app(1024);
        app.write_all(handshake).await.unwrap();
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        app.write_all(b"after a day").await.unwrap();
        app.shutdown().await.unwrap();
        let mut all = Vec::new();
        app.read_to_end(&mut all).await.unwrap();
        assert!(all.ends_with(b"after a day"), "{all:?}");
    }
}

#[tokio::test]
async fn no_read_is_a_message() {
    for (handshake, reply) in [
        (
            &b"\x05\x01\x00\x05\x01\x00\x03\x08web.shop\x00\x50"[..],
            &b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"[..],
        ),
        (
            b"\x04\x01\x00\x50\0\0\0\x01me\0web.shop\0",
            b"\0\x5a\0\0\0\0\0\0",
        ),
        (
            b"CONNECT web.shop:80 HTTP/1.1\r\nHost: web.shop:80\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ),
    ] {
        let (app, _tasks) = app(8);
        let (mut read, mut write) = tokio::io::split(app);
        let sending = async {
            write.write_all(handshake).await.unwrap();
            write.write_all(b"question").await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut all = Vec::new();
        let (_, read) = tokio::join!(sending, async {
            // The whole of a reply needs the app to have read the one before.
            tokio::time::sleep(Duration::from_millis(5)).await;
            read.read_to_end(&mut all).await
        });
        read.unwrap();
        assert_eq!(all, [reply, b"question"].concat());
    }
}

#[test]
fn an_idle_connection_is_small() {
    let tasks = Tasks::new();
    let config = Config::new(Access::SameUser { password: None });
    let session = Session::new(Echo(tasks.clone()), config, tasks);
    let (stream, _app) = duplex(8);
    let future = session.serve(stream, Trust::Full, None);
    // Thousands of them may be open; the buffers of a splice come with its first byte.
    assert!(size_of_val(&future) < 2048, "{}", size_of_val(&future));
}

/// What a SOCKS5 client without a password is told by a container's listener whose engine names
/// the container after `delay`.
async fn newcomer(delay: Duration) -> Vec<u8> {
    let tasks = Tasks::new();
    let allowed = AllowedPeers::new();
    let access = Access::Peers {
        allowed: allowed.clone(),
        password: Password::new("secret"),
    };
    let session = Session::new(Echo(tasks.clone()), Config::new(access), tasks.clone());
    let (mut app, stream) = duplex(64);
    let container: IpAddr = "172.17.0.2".parse().unwrap();
    let ends = Ends {
        peer: container,
        local: container,
    };
    tasks.spawn(async move {
        session
            .serve(stream, Trust::NeedsPassword, Some(ends))
            .await;
    });
    tasks.spawn(async move {
        tokio::time::sleep(delay).await;
        allowed.insert(container);
    });
    app.write_all(b"\x05\x01\x00").await.unwrap();
    let mut answer = vec![0; 2];
    app.read_exact(&mut answer).await.unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn a_container_may_be_faster_than_the_engine_tells_of_it() {
    assert_eq!(newcomer(Duration::from_millis(300)).await, [5, 0]);
    assert_eq!(newcomer(Duration::from_secs(30)).await, [5, 0xff]);
}
