//! The container runtime's copying between a stream and a pod's socket.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stream::RuntimeEnd;

/// What the runtime reads from a pod at once, and so the largest frame towards the client.
const CHUNK: usize = 32 * 1024;

/// Bytes from the client.
pub(super) trait Up: Send {
    /// The next piece, or `None` once the client's side ended. Loses nothing when dropped.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// Bytes to the client.
pub(super) trait Down: Send {
    /// Sends a piece; waits for as long as the client's connection takes none.
    fn send(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
}

/// Copies both ways until both ended, or one did and the other had its grace.
///
/// The end of one direction is not passed on to the other side: the pod sees it when everything is
/// closed, the client when this returns. That is what real runtimes do.
pub(super) async fn both_ways<U: Up, D: Down>(
    pod: RuntimeEnd,
    up: &mut U,
    down: &mut D,
    grace: Duration,
) -> io::Result<()> {
    let (mut from_pod, mut to_pod) = tokio::io::split(pod);
    let to_pod = async {
        while let Some(bytes) = up.next().await {
            to_pod.write_all(&bytes).await?;
        }
        Ok(())
    };
    let to_client = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            match from_pod.read(&mut buffer).await? {
                0 => return Ok(()),
                read => down.send(&buffer[..read]).await?,
            }
        }
    };
    tokio::pin!(to_pod, to_client);
    let (first, second): (io::Result<()>, _) = tokio::select! {
        ended = &mut to_pod => (ended, tokio::time::timeout(grace, to_client).await),
        ended = &mut to_client => (ended, tokio::time::timeout(grace, to_pod).await),
    };
    // Out of grace counts as ended: the first error is what the forward is told.
    match second {
        Ok(second) => first.and(second),
        Err(_) => first,
    }
}
