//! The app on the laptop: a small HTTP/1.1 server of this process.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What it answers a small request with: as long as what the pods answer, a name and a line's end.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 24\r\n\r\n\
    the-app-on-the-laptop!!\n";
/// Bytes written or read at once.
const PIECE: usize = 256 << 10;

/// Starts it on a port of loopback, for as long as this process lives.
pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let piece: Arc<[u8]> = vec![0x5a; PIECE].into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream, piece.clone()));
        }
    });
    address
}

/// `/` small, `/big` as long as the range says, a body read to its end before the answer.
async fn serve(mut stream: TcpStream, piece: Arc<[u8]>) -> Option<()> {
    let mut got = Vec::with_capacity(PIECE);
    loop {
        let end = loop {
            if let Some(at) = got.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut got).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
        got.drain(..end);
        let after = |what: &str| -> Option<usize> {
            let rest = head.split_once(what)?.1;
            rest.lines().next()?.trim().parse().ok()
        };
        if let Some(last) = after("range: bytes=0-") {
            let length = last + 1;
            let head = format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            let mut left = length;
            while left > 0 {
                let some = left.min(piece.len());
                stream.write_all(&piece[..some]).await.ok()?;
                left -= some;
            }
            continue;
        }
        let mut left = after("content-length: ").unwrap_or(0);
        while left > 0 {
            if got.is_empty() && stream.read_buf(&mut got).await.ok()? == 0 {
                return None;
            }
            let some = left.min(got.len());
            got.drain(..some);
            left -= some;
        }
        stream.write_all(ANSWER).await.ok()?;
    }
}
