//! Taking connections from a listener, whatever happens.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::task::Tasks;

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause: running out of file descriptors lasts until connections end, and trying without a
/// pause would burn a core meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Has `serve` serve connections in `tasks` until those drain, at most `most` at a time: the next ones
/// wait in the system's queue.
pub async fn accept_each<C>(
    listener: TcpListener,
    most: usize,
    tasks: Tasks,
    serve: impl Fn(TcpStream, SocketAddr) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most));
    let accepting = async {
        loop {
            // The permit comes first: a connection that is accepted is served.
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let (stream, peer) = accept(&listener).await;
            let connection = serve(stream, peer);
            tasks.spawn(async move {
                connection.await;
                drop(permit);
            });
        }
    };
    tokio::select! {
        biased;
        () = tasks.draining() => {}
        () = accepting => {}
    }
}

/// Accepts one connection, however long that takes. Cancel-safe.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                if pause == FIRST_PAUSE {
                    warn!(%error, at = ?listener.local_addr().ok(), "cannot accept connections");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
