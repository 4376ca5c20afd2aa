//! The load: one client for every way, so that differences are the way's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How the client gets to the pod.
#[derive(Clone, Debug)]
pub(crate) enum Via {
    /// A local port that leads there.
    Port(SocketAddr),
    /// A SOCKS5 proxy, and where to.
    Socks(SocketAddr, SocketAddr),
    /// A Service's address, and lines that its requests have, with their ends.
    #[allow(dead_code)] // Not all benches choose among requests.
    With(SocketAddr, &'static str),
}

impl Via {
    pub(crate) async fn connect(&self) -> TcpStream {
        match self {
            Self::Port(port) | Self::With(port, _) => {
                let stream = TcpStream::connect(port).await.unwrap();
                stream.set_nodelay(true).unwrap();
                stream
            }
            Self::Socks(proxy, target) => {
                let mut stream = TcpStream::connect(proxy).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let SocketAddr::V4(target) = target else {
                    unreachable!("the lab is IPv4")
                };
                let mut request = vec![5, 1, 0, 1];
                request.extend_from_slice(&target.ip().octets());
                request.extend_from_slice(&target.port().to_be_bytes());
                stream.write_all(&[5, 1, 0]).await.unwrap();
                let mut answer = [0; 2];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, [5, 0]);
                stream.write_all(&request).await.unwrap();
                let mut answer = [0; 10];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer[1], 0, "the proxy refused");
                stream
            }
        }
    }
}

impl Via {
    /// What its requests have beside their own lines.
    pub(crate) fn lines(&self) -> &'static str {
        match self {
            Self::With(_, lines) => lines,
            Self::Port(_) | Self::Socks(..) => "",
        }
    }
}

/// Times from a new connection's start to the first byte of its answer.
pub(crate) async fn first_bytes(via: &Via, count: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        let mut stream = via.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 512];
        assert!(stream.read(&mut first).await.unwrap() > 0);
        times.push(began.elapsed());
    }
    times
}

/// Requests per second, each on a connection of its own: until its body has arrived, or until the
/// pod's end of the connection has arrived too.
pub(crate) async fn closed_requests(
    via: &Via,
    at_once: usize,
    to_end: bool,
    time: Duration,
) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let workers: Vec<_> = (0..at_once)
        .map(|_| {
            let (via, done) = (via.clone(), done.clone());
            tokio::spawn(async move {
                while began.elapsed() < time {
                    let mut stream = via.connect().await;
                    let request = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
                    stream.write_all(request).await.unwrap();
                    let mut answer = Vec::new();
                    while to_end || !complete(&answer) {
                        if stream.read_buf(&mut answer).await.unwrap() == 0 {
                            break;
                        }
                    }
                    assert!(complete(&answer), "{}", String::from_utf8_lossy(&answer));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

/// Whether a small answer with a Content-Length is all there.
fn complete(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    length
        .and_then(|l| l.trim().parse().ok())
        .is_some_and(|n: usize| answer.len() >= head + 4 + n)
}

/// MB/s of `mib` in all, over `streams` connections at once.
pub(crate) async fn bulk_down(via: &Via, streams: u64, mib: u64) -> f64 {
    let each = (mib << 20) / streams;
    let began = Instant::now();
    // They end with this future.
    let mut workers = JoinSet::new();
    for _ in 0..streams {
        let via = via.clone();
        workers.spawn(async move {
            let mut stream = via.connect().await;
            let request = format!(
                "GET /big HTTP/1.1\r\nHost: web\r\n{}Range: bytes=0-{}\r\n\r\n",
                via.lines(),
                each - 1
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut buffer = vec![0; 256 << 10];
            let mut left = each;
            while left > 0 {
                let n = stream.read(&mut buffer).await.unwrap() as u64;
                assert!(n > 0, "the download broke off");
                // The head is not worth parsing: it makes the last read a little shorter.
                left = left.saturating_sub(n);
            }
        });
    }
    workers.join_all().await;
    (mib << 20) as f64 / 1e6 / began.elapsed().as_secs_f64()
}

/// MB/s of one upload of `mib`, until the pod has read all of it.
pub(crate) async fn bulk_up(via: &Via, mib: u64) -> f64 {
    let mut stream = via.connect().await;
    let length = mib << 20;
    let began = Instant::now();
    let head = format!(
        "PUT /upload HTTP/1.1\r\nHost: web\r\n{}Content-Length: {length}\r\n\r\n",
        via.lines()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![0x5a; 256 << 10];
    for _ in 0..length / chunk.len() as u64 {
        stream.write_all(&chunk).await.unwrap();
    }
    let mut answer = [0; 512];
    let n = stream.read(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&answer[..n])
    );
    length as f64 / 1e6 / began.elapsed().as_secs_f64()
}
