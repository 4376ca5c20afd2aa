//! A line with a round-trip time: a TCP proxy that passes each byte on half a round trip after it
//! came. It loses nothing and has the bandwidth of loopback.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pieces that may be on the line in one direction: with pieces of [`PIECE`] bytes more than
/// 1 Gbit/s times 80 ms, so that the line is long and not narrow.
const PIECES: usize = 1024;
/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// A line; gone when dropped.
pub(crate) struct Line {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Line {
    /// A line to `server` with this round-trip time.
    pub(crate) async fn new(server: SocketAddr, round_trip: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, server, round_trip));
            }
        });
        Self { address, serving }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn carry(near: TcpStream, server: SocketAddr, round_trip: Duration) {
    // The opening of a connection takes a round trip too.
    tokio::time::sleep(round_trip).await;
    let Ok(far) = TcpStream::connect(server).await else {
        return;
    };
    let (Ok(()), Ok(())) = (near.set_nodelay(true), far.set_nodelay(true)) else {
        return;
    };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(
        one_way(near_in, far_out, round_trip / 2),
        one_way(far_in, near_out, round_trip / 2)
    );
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (send, mut line) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let reading = async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            match from.read_buf(&mut piece).await {
                Ok(n) if n > 0 => {
                    if send.send((Instant::now() + delay, piece)).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = line.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // Either end of a connection may already be gone.
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
