//! The tunnel between kdev and its relay: HTTP/2 over one ordered byte stream, after a handshake
//! in which both sides prove that they know the same secret.
//!
//! In a *forward* tunnel kdev is the HTTP/2 client and opens streams out of the relay; in a
//! *reverse* tunnel the roles are swapped and the relay opens streams to kdev. A stream is a
//! CONNECT (RFC 9113, 8.5), so it has its own window, an end in each direction and a reset.
//! Datagrams travel in capsules (RFC 9297) inside such a stream.
//!
//! This module knows nothing of Kubernetes, nor of what carries the stream under a tunnel.

mod backlog;
mod budget;
mod cause;
pub mod control;
mod handshake;
mod head;
mod health;
mod held;
mod identity;
mod join;
mod life;
mod link;
mod listen;
#[cfg(feature = "client")]
pub mod pool;
mod proof;
mod pulse;
mod stream;
mod tally;
#[cfg(test)]
mod tests;

pub use crate::io::datagram;
pub use budget::{Budget, Share};
pub use cause::{CAUSE_HEADER, REASON_HEADER, cause_of, refusal};
pub use handshake::{Accepted, HANDSHAKE_LIMIT, HandshakeError, Keys, accept, connect};
pub use head::{Hello, Refusal, RefusalCode, Role, SessionId};
pub use health::Health;
pub use identity::Identity;
pub use join::join;
pub use life::{DEAD_AFTER, Ended, PING_EVERY};
pub use link::{Caller, Driver, Opener, Protocol, Speaks, open};
pub use listen::{Incoming, Listener, serve};
pub use proof::Secret;
pub use stream::Stream;

/// The newest form of the tunnel that this build speaks.
pub const VERSION: u16 = 2;
/// The oldest form that it still speaks: before it, whoever knew a session's id could join it.
pub const OLDEST_VERSION: u16 = 2;
/// The port of the relay's own loopback where tunnels arrive.
pub const TUNNEL_PORT: u16 = 7000;
/// The port of the relay's pod where they arrive by an HTTP upgrade, where it listens there.
pub const POD_TUNNEL_PORT: u16 = 7001;
/// What that upgrade asks for.
pub const UPGRADE_PROTOCOL: &str = "kdev-tunnel";
