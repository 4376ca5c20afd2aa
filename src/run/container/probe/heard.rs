//! Who asks the listener, until the container does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long one connection to the listener may take to ask.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// Connections that are read at once. Others than the container's are few: nobody knows the port.
const MAX_REQUESTS: usize = 16;
/// Longest request that is looked at; what the container sends has 200 bytes at most.
const MAX_REQUEST: u64 = 2 << 10;

/// Reads whoever comes until somebody asks for `token`; gives their address. Notes in `anybody` that
/// there was a connection at all.
pub(super) async fn heard(listener: &TcpListener, token: &str, anybody: &AtomicBool) -> SocketAddr {
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if requests.len() < MAX_REQUESTS => match accepted {
                Ok((stream, peer)) => {
                    anybody.store(true, Ordering::Relaxed);
                    let token = token.to_owned();
                    let answered = async move { answer(stream, &token).await.map(|ours| (ours, peer)) };
                    requests.spawn(timeout(REQUEST_LIMIT, answered));
                }
                // Out of descriptors, say: the container's own limit ends this.
                Err(_) => tokio::time::sleep(REQUEST_LIMIT / 10).await,
            },
            Some(request) = requests.join_next() => match request {
                Ok(Ok(Ok((true, peer)))) => return peer,
                other => tracing::debug!(?other, "not the container"),
            },
        }
    }
}

/// Answers a request for `token`, and nothing else.
async fn answer(mut stream: TcpStream, token: &str) -> std::io::Result<bool> {
    let mut request = Vec::new();
    let mut some = [0; 512];
    let (mut read, mut write) = stream.split();
    let mut read = (&mut read).take(MAX_REQUEST);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match read.read(&mut some).await? {
            0 => break,
            n => request.extend_from_slice(&some[..n]),
        }
    }
    let text = String::from_utf8_lossy(&request);
    if !text.starts_with(&format!("GET /{token} ")) {
        return Ok(false);
    }
    write
        .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
        .await?;
    write.shutdown().await?;
    Ok(true)
}
