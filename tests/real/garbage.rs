//! What is no protocol: fifty kinds of it on every listener of running sessions, thousands of
//! times. Each connection ends, nothing panics, nothing grows, and good requests still work.
//!
//! All of it goes to loopback, to listeners that this test started.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::app::Way;
use crate::program::Running;

/// Connections to the proxy, and those before memory is first looked at: enough for every pool
/// and every thread to have had its share.
const CONNECTIONS: usize = 5000;
const WARM_UP: usize = 1000;
/// Connections to a forwarded port. Each becomes a stream to a pod, so fewer do.
const FORWARDED: usize = 1000;
const AT_A_TIME: usize = 50;
/// Growth that is noise: an allocator keeps what it may need again.
const GROWTH: u64 = 8 << 20;
/// A handshake may take 10 s; whoever has not finished it then is cut off.
const CUT_OFF: Duration = Duration::from_secs(15);

/// What one connection sends.
fn kinds() -> Vec<Vec<u8>> {
    // SOCKS5: greetings, requests, logins that are cut, too long, or say nonsense.
    let mut kinds: Vec<Vec<u8>> = vec![vec![5]];
    kinds.push(vec![5, 0]);
    kinds.push(vec![5, 1]);
    kinds.push(vec![5, 255]);
    kinds.push(vec![5, 1, 0xff]);
    kinds.push([&[5, 255][..], &[7; 255]].concat());
    kinds.push(vec![5, 1, 0, 5, 1, 0]);
    kinds.push(vec![5, 1, 0, 5, 1, 0, 9, 1, 2, 3, 4, 0, 80]);
    kinds.push(vec![5, 1, 0, 5, 9, 0, 1, 127, 0, 0, 1, 0, 80]);
    kinds.push(vec![5, 1, 0, 5, 2, 0, 1, 127, 0, 0, 1, 0, 80]);
    kinds.push(vec![5, 1, 0, 5, 3, 0, 1, 127, 0, 0, 1, 0, 80]);
    kinds.push(vec![5, 1, 0, 4, 1, 0, 1, 127, 0, 0, 1, 0, 80]);
    kinds.push(vec![5, 1, 0, 5, 1, 0, 3, 0, 0, 80]);
    kinds.push(vec![5, 1, 0, 5, 1, 0, 3, 255, b'a']);
    kinds.push([&[5, 1, 0, 5, 1, 0, 3, 255][..], &[b'.'; 255], &[0, 80]].concat());
    kinds.push(
        [
            &[5, 1, 0, 5, 1, 0, 3, 4][..],
            &[0xff, 0, 0xc0, 0x80],
            &[0, 80],
        ]
        .concat(),
    );
    kinds.push(b"\x05\x01\x00\x05\x01\x00\x03\x08web.shop\x00\x00".to_vec());
    kinds.push(vec![5, 1, 2, 1, 0, 0]);
    kinds.push([&[5, 1, 2, 1, 255][..], &[b'u'; 255], &[255], &[b'p'; 255]].concat());
    kinds.push([&[5, 1, 0, 5, 1, 0, 4][..], &[0; 18]].concat());
    // SOCKS4.
    kinds.push(vec![4]);
    kinds.push(vec![4, 1, 0, 80, 0, 0, 0, 1]);
    kinds.push(vec![4, 2, 0, 80, 127, 0, 0, 1, 0]);
    kinds.push([&[4, 1, 0, 80, 127, 0, 0, 1][..], &[b'u'; 3000]].concat());
    kinds.push([&[4, 1, 0, 80, 0, 0, 0, 1, 0][..], &[b'h'; 3000]].concat());
    kinds.push(vec![4, 1, 0, 0, 0, 0, 0, 1, 0, b'x', 0]);
    // HTTP: heads that are cut, too long, contradictory.
    for text in [
        "GET",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET http:// HTTP/1.1\r\n\r\n",
        "GET http://web.shop:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://web.shop/ HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        "GET http://a b/ HTTP/1.1\r\n\r\n",
        "CONNECT web.shop HTTP/1.1\r\n\r\n",
        "CONNECT :::: HTTP/1.1\r\n\r\n",
        "CONNECT web.shop:0 HTTP/1.1\r\n\r\n",
        "POST http://web.shop/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST http://web.shop/ HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST http://web.shop/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST http://web.shop/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\n\r\n\r\n",
        "get / http/1.1\n\n",
    ] {
        kinds.push(text.into());
    }
    kinds.push([b"GET http://web.shop/", &[b'a'; 200_000][..]].concat());
    kinds.push(
        [
            b"GET http://web.shop/ HTTP/1.1\r\n",
            "X: y\r\n".repeat(20_000).as_bytes(),
        ]
        .concat(),
    );
    kinds.push(b"GET http://web.shop/\xff\xfe\x00 HTTP/1.1\r\n\r\n".to_vec());
    // Neither.
    kinds.push(Vec::new());
    kinds.push(vec![0; 10_000]);
    kinds.push(vec![0xff; 10_000]);
    kinds.push(vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    kinds.push(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec());
    kinds.push((0..=255).cycle().take(70_000).collect());
    assert!(kinds.len() >= 50, "{}", kinds.len());
    kinds
}

/// How one connection behaves after it sent its bytes.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Closes at once.
    Leaves,
    /// Resets.
    Resets,
    /// Ends its direction and waits for the other's end.
    Waits,
    /// Sends a byte at a time, then leaves.
    Drips,
}

const MANNERS: [Manner; 4] = [Manner::Leaves, Manner::Resets, Manner::Waits, Manner::Drips];
/// Bytes that are sent one by one at most.
const DRIPS: usize = 40;

/// What fails on the way is what is tested here: only a connection that does not end matters.
async fn pester(address: SocketAddr, bytes: &[u8], manner: Manner) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    match manner {
        Manner::Drips => {
            stream.set_nodelay(true).unwrap();
            for byte in bytes.iter().take(DRIPS) {
                let _ = stream.write_all(&[*byte]).await;
                tokio::task::yield_now().await;
            }
        }
        _ => {
            // Some are refused before they have sent it all.
            let _ = tokio::time::timeout(CUT_OFF, stream.write_all(bytes)).await;
        }
    }
    match manner {
        Manner::Leaves | Manner::Drips => {}
        Manner::Resets => stream.set_zero_linger().unwrap(),
        Manner::Waits => {
            let _ = stream.shutdown().await;
            ends(
                &mut stream,
                &format!("{:?}…", &bytes[..bytes.len().min(60)]),
            )
            .await;
        }
    }
}

/// Reads until the other side ends it, however it does.
async fn ends(stream: &mut TcpStream, what: &str) {
    let mut buffer = [0; 4096];
    let ended = async { while let Ok(1..) = stream.read(&mut buffer).await {} };
    let ended = tokio::time::timeout(CUT_OFF, ended).await;
    assert!(ended.is_ok(), "not cut off: {what}");
}

/// Makes `count` connections, each kind in each manner in turn.
async fn storm(address: SocketAddr, count: usize) {
    let (kinds, next) = (Arc::new(kinds()), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (kinds, next) = (kinds.clone(), next.clone());
        workers.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return;
                }
                let manner = MANNERS[i / kinds.len() % MANNERS.len()];
                pester(address, &kinds[i % kinds.len()], manner).await;
            }
        });
    }
    while let Some(joined) = workers.join_next().await {
        joined.unwrap();
    }
}

/// Storms `address` twice and looks whether the second time cost more memory than the first.
async fn storms(kdev: &Running, address: SocketAddr, warm_up: usize, count: usize, what: &str) {
    storm(address, warm_up).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = kdev.memory();
    storm(address, count - warm_up).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = kdev.memory();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (before_mb, after_mb) = (megabytes(before), megabytes(after));
    println!("{what}: {before_mb:.1} MB after {warm_up}, {after_mb:.1} MB after {count}");
    assert!(
        after < before + GROWTH,
        "{what}: grew from {before_mb:.1} to {after_mb:.1} MB"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn garbage_costs_nothing_but_itself() {
    let proxy = Running::connect("dev");
    let port = Running::forward("dev", &["web.shop:80"]);
    storms(&proxy, proxy.proxy(), WARM_UP, CONNECTIONS, "connect").await;
    let address = port.port(0);
    storms(&port, address, FORWARDED / 4, FORWARDED, "forward").await;
    for way in proxy.ways() {
        let answer = way.get("web.shop:80", "/").await.unwrap();
        assert_eq!(answer.status, 200, "{way:?}");
    }
    let answer = Way::Port(address).get("web.shop:80", "/").await.unwrap();
    assert_eq!(answer.status, 200);
    // Both look for a panic in what was said.
    proxy.stop();
    port.stop();
}

/// Who begins and does not go on is cut off too, with its direction left open.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn whoever_does_not_finish_a_handshake_is_cut_off() {
    // Complete requests that are answered keep their connection for more, and an association for
    // datagrams lives as long as its connection; all others end.
    let unfinished = |kind: &Vec<u8>| {
        !kind.windows(4).any(|w| w == b"\r\n\r\n") && !kind.starts_with(&[5, 1, 0, 5, 3])
    };
    let proxy = Running::connect("dev");
    let address = proxy.proxy();
    let mut all = JoinSet::new();
    for kind in kinds().into_iter().filter(unfinished) {
        all.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = tokio::time::timeout(CUT_OFF, stream.write_all(&kind)).await;
            ends(&mut stream, &format!("{:?}…", &kind[..kind.len().min(60)])).await;
        });
    }
    let count = all.len();
    while let Some(joined) = all.join_next().await {
        joined.unwrap();
    }
    assert!(count > 25, "{count}");
    proxy.stop();
}
