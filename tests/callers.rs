//! What a caller, a stalled download and an idle stream cost a relay, counted by the allocator of
//! this test program.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    missing_docs,
    unreachable_pub
)]

#[path = "relay/support.rs"]
mod support;

use std::alloc::System;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use cap::Cap;
use kdev::tunnel::{Budget, Identity, Protocol, Role, Secret, connect, open};
use support::{KEY, LOCAL, Stage};
use tokio::io::AsyncWriteExt as _;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Connections of each kind: enough that what is made once does not show.
const MANY: usize = 300;
/// Most bytes of each, in this profile, whose tasks are twice as large as those of a release. Both ends of
/// a stream are here, and a pod's end of what is not idle.
const IDLE: usize = 8 << 10;
const STALLED: usize = 80 << 10;
const STREAM: usize = 9 << 10;
const STALLED_STREAM: usize = 12 << 10;
/// A caller on a blocking socket, which holds nothing on this side.
fn caller(stage: &Stage, path: &str, headers: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    // It takes as little as it may without reading.
    socket.set_recv_buffer_size(2048).unwrap();
    let address = std::net::SocketAddr::from((support::RELAY, stage.first));
    socket.connect(&address.into()).unwrap();
    let mut caller = TcpStream::from(socket);
    caller
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    write!(caller, "GET {path} HTTP/1.1\r\nHost: web\r\n{headers}\r\n").unwrap();
    caller
}

/// Bytes that each of [`MANY`] of what `make` makes takes, once all is quiet.
async fn each<T>(what: &str, make: impl AsyncFn() -> T) -> usize {
    // What is made once: pools, tables, buffers that stay.
    let first = make().await;
    settle().await;
    let before = ALLOCATOR.allocated();
    let mut all = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        all.push(make().await);
    }
    settle().await;
    let each = ALLOCATOR.allocated().saturating_sub(before) / MANY;
    println!("{what}: {each} bytes");
    drop((first, all));
    settle().await;
    each
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Many more than there is memory for, of each kind: the heap stays below what the container may use, and
/// whoever asks is answered.
async fn thousands(stage: &Stage) {
    let before = ALLOCATOR.allocated();
    let mut all = Vec::new();
    for (kind, path, many) in [("stalled", "/much", 2_000), ("idle", "/", 8_300)] {
        let (mut most, mut failed) = (0, 0);
        for number in 0..many {
            all.push(caller(stage, path, ""));
            if number % 50 == 0 {
                // Whoever does not read is known as such after a moment, however busy this machine is.
                tokio::time::sleep(Duration::from_millis(50)).await;
                most = most.max(ALLOCATOR.allocated().saturating_sub(before));
                failed += usize::from(!is_served(stage).await);
            }
        }
        println!(
            "{many} {kind} callers: {} KiB at most, {failed} failed beside",
            most >> 10
        );
        assert!(most < kdev::relay::MEMORY_LIMIT / 4 * 3, "{kind}: {most}");
        assert_eq!(failed, 0, "{kind}");
        all.clear();
        settle().await;
    }
}

/// Whether somebody who asks is answered. On a busy machine it may take longer until those before are known
/// not to read.
async fn is_served(stage: &Stage) -> bool {
    for _ in 0..3 {
        let (status, text) = stage.get("/", &[]).await;
        if status == 200 {
            return true;
        }
        println!("{status}: {text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_each_costs() {
    let stage = Stage::set_up().await;
    stage.plain_pods().await;
    let mut ann = stage.kdev("ann", (LOCAL, stage.first).into()).await;
    ann.mine("ann").await;
    let idle = each("an idle caller", async || {
        let mut caller = caller(&stage, "/", "");
        let caller = tokio::task::spawn_blocking(move || {
            let mut answer = vec![0; 1024];
            let mut read = 0;
            while read < 1024 + 40 {
                let n = caller.read(&mut answer).unwrap();
                assert_ne!(n, 0);
                read += n;
            }
            caller
        });
        caller.await.unwrap()
    })
    .await;
    let stalled = each("a stalled caller", async || caller(&stage, "/much", "")).await;
    let matched = each("a stalled caller, matched", async || {
        caller(&stage, "/much", "x-user: ann\r\n")
    })
    .await;
    let io = tokio::net::TcpStream::connect(stage.tunnels).await.unwrap();
    // This end holds next to nothing of what comes, so that it is the relay's memory that shows.
    let secret = Secret::new(KEY).unwrap();
    let connected = connect(io, Role::Forward, &Identity::random(), &secret).await;
    let (io, _) = connected.unwrap();
    let (opener, driver) = open(
        io,
        Budget::new(64 << 20)
            .with_streams(1 << 10, 1)
            .share()
            .unwrap(),
    )
    .await
    .unwrap();
    tokio::spawn(driver.run());
    let target = format!("127.0.0.1:{}", stage.first).parse().unwrap();
    let stream = each("an idle stream, both ends", async || {
        let mut stream = opener.open(&target, Protocol::Tcp).await.unwrap();
        stream.opened().await.unwrap();
        stream
    })
    .await;
    let download = each("a stalled stream, both ends", async || {
        let mut stream = opener.open(&target, Protocol::Tcp).await.unwrap();
        stream
            .write_all(b"GET /much HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        stream
    })
    .await;
    for (bytes, most) in [
        (idle, IDLE),
        (stalled, STALLED),
        (matched, STALLED),
        (stream, STREAM),
        (download, STALLED_STREAM),
    ] {
        // Not nothing either, or this would not measure what it should.
        assert!((1 << 10..=most).contains(&bytes), "{bytes} of {most}");
    }
    thousands(&stage).await;
}
