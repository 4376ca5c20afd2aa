//! The network between the client and the API server, with its faults.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::faults::Path;

/// One read of a link; as large as a TLS record with room to spare.
const CHUNK: usize = 32 * 1024;

/// Chunks under way in one direction: 4 MiB, enough for 200 ms at 20 MB/s, and about what the
/// socket buffers of a real path hold.
const UNDER_WAY: usize = 128;

/// Carries bytes between the client's socket and the server's end until either is done.
///
/// The server's end closing ends the link; the client's only ends its own direction.
pub(crate) async fn carry<C, S>(client: C, server: S, path: watch::Receiver<Path>)
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let up = shift(from_client, to_server, path.clone(), |path| path.up);
    let down = shift(from_server, to_client, path, |path| path.down);
    tokio::pin!(up, down);
    // How the directions end is nothing to tell anybody beyond what their sockets say.
    tokio::select! {
        ended = &mut down => if matches!(ended, Ok(Left::Swallowed)) {
            // Nobody may learn of the server's end: the client finds out by itself and hangs up.
            let _ = up.await;
        },
        ended = &mut up => if matches!(ended, Ok(Left::Closed)) {
            let _ = down.await;
        },
    }
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// With an end of file, passed on.
    Closed,
    /// After bytes went into the black hole: the other end was told nothing.
    Swallowed,
}

async fn shift<R, W>(
    from: R,
    to: W,
    path: watch::Receiver<Path>,
    delay: fn(&Path) -> Duration,
) -> io::Result<Left>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (departed, arriving) = mpsc::channel(UNDER_WAY);
    let departing = depart(from, departed, path.clone(), delay);
    let (read, written) = tokio::join!(departing, arrive(to, arriving, path));
    read.and(written)
}

async fn depart<R: AsyncRead + Unpin>(
    mut from: R,
    departed: mpsc::Sender<(Instant, Bytes)>,
    path: watch::Receiver<Path>,
    delay: fn(&Path) -> Duration,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read?,
            () = departed.closed() => 0,
        };
        if read == 0 {
            return Ok(());
        }
        let due = Instant::now() + delay(&path.borrow());
        if departed.send((due, buffer.split().freeze())).await.is_err() {
            return Ok(());
        }
    }
}

async fn arrive<W: AsyncWrite + Unpin>(
    mut to: W,
    mut arriving: mpsc::Receiver<(Instant, Bytes)>,
    mut path: watch::Receiver<Path>,
) -> io::Result<Left> {
    let mut lost = false;
    while let Some((due, bytes)) = arriving.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        if path.wait_for(|path| !path.stalled).await.is_err() {
            break;
        }
        lost |= path.borrow().swallowing;
        if !lost {
            to.write_all(&bytes).await?;
            to.flush().await?;
        }
    }
    if lost {
        return Ok(Left::Swallowed);
    }
    to.shutdown().await?;
    Ok(Left::Closed)
}
