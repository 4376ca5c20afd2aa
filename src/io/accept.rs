//! Taking connections from a listener, whatever happens.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause: running out of file descriptors lasts until connections end, and trying without a
/// pause would burn a core meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

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
