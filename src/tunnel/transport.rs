//! The ordered byte stream under a tunnel.

use std::future::Future;

use crate::io::BoxIo;

/// Why the stream under a tunnel could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct TransportError {
    /// Cause and fix, for people.
    pub reason: String,
    /// Whether trying again by itself is of no use: a missing permission, no such pod.
    pub is_final: bool,
}

/// Opens the byte stream under a tunnel, to one replica of the relay.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream to the relay's tunnel port. Bounded in time; dropping the future abandons
    /// the attempt.
    fn open(&self) -> impl Future<Output = Result<BoxIo, TransportError>> + Send;
}
