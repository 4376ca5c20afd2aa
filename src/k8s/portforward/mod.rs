//! Streams to the ports of pods, by the API server's port-forward: the direct transport.
//!
//! One upgraded connection per pod carries many SPDY streams. SPDY has no flow control here and
//! the runtime none to offer, so three rules keep streams out of each other's way: a stream's
//! queue is bounded and a full one stops the whole connection; a connection with a stopped or a
//! bulk stream gets no new streams; and a second connection is made before the first is crowded.
//!
//! Sources: `k8s.io/client-go/tools/portforward`, `k8s.io/streaming/pkg/httpstream`, KEP-4006,
//! and what a real kubelet and containerd were seen to do.

mod connection;
mod counters;
mod dedicated;
mod denials;
mod dial;
mod form;
mod open;
mod outgoing;
mod parts;
mod pool;
mod probe;
mod reader;
mod refusals;
mod shared;
pub mod spdy;
mod state;
mod stream;
mod v4;
pub mod websocket;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use denials::{MAX_DENIED, named_pods};
pub use form::{Form, KnownForm};
pub use pool::{PortForward, PortForwardStatus};
pub use probe::{PING_LIMIT, Probe, ProbeError, probe, ready_pods};
pub use state::PodReset;
pub use stream::PodStream;

/// Locks a mutex whose data are valid between any two statements that change them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
