//! The sending side of a port-forward connection: whole frames, and the faults that break them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// How long a goodbye may take when the client reads no more.
const GOODBYE: Duration = Duration::from_millis(200);

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Orderly enough for a goodbye.
    Closed,
    /// Cut by a fault: nothing more may be sent.
    Cut,
}

/// Sends frames of many tasks one after the other.
pub(super) struct Wire<W> {
    writer: Mutex<Option<W>>,
    /// Ends every send, also one that waits for a client that does not read.
    over: CancellationToken,
    /// The end of the connection was a fault.
    cut: CancellationToken,
    injections: Mutex<broadcast::Receiver<Bytes>>,
    world: Arc<World>,
}

impl<W: AsyncWrite + Unpin> Wire<W> {
    pub(super) fn new(writer: W, world: Arc<World>) -> Self {
        Self {
            writer: Mutex::new(Some(writer)),
            over: CancellationToken::new(),
            cut: CancellationToken::new(),
            injections: Mutex::new(world.faults.injections()),
            world,
        }
    }

    /// Sends one frame, whole or not at all unless the connection ends meanwhile.
    pub(super) async fn send(&self, frame: &[u8]) -> io::Result<()> {
        tokio::select! {
            biased;
            () = self.over.cancelled() => Err(io::ErrorKind::BrokenPipe.into()),
            sent = self.write(frame) => sent,
        }
    }

    async fn write(&self, frame: &[u8]) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        let Some(open) = writer.as_mut() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let Some(length) = self.world.faults.take_truncation() else {
            open.write_all(frame).await?;
            return open.flush().await;
        };
        open.write_all(&frame[..length.min(frame.len())]).await?;
        open.flush().await?;
        // Nobody may send anything after the stump.
        *writer = None;
        self.cut.cancel();
        Err(io::ErrorKind::BrokenPipe.into())
    }

    /// Plays the faults that come by themselves; ends when one of them ended the connection.
    pub(super) async fn tampered(&self) -> Ended {
        let mut injections = self.injections.lock().await;
        loop {
            tokio::select! {
                () = self.cut.cancelled() => break,
                garbage = injections.recv() => match garbage {
                    // A client that left is noticed by whoever reads from it.
                    Ok(garbage) => drop(self.send(&garbage).await),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => self.cut.cancelled().await,
                },
            }
        }
        self.over.cancel();
        self.writer.lock().await.take();
        Ended::Cut
    }

    /// Says goodbye and closes; sends from now on fail.
    pub(super) async fn close(&self, goodbye: &[u8]) {
        // A client that is gone or does not read misses nothing that it would have read.
        let _ = tokio::time::timeout(GOODBYE, self.send(goodbye)).await;
        self.over.cancel();
        if let Some(mut writer) = self.writer.lock().await.take() {
            let _ = tokio::time::timeout(GOODBYE, writer.shutdown()).await;
        }
    }
}
