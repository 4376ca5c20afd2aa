//! What stands beside a container, in the network that both have: it catches what goes to elsewhere
//! and sends it to kdev, by one stream over its standard input and output. What kdev does not take
//! goes on as it would have gone.
//!
//! ```text
//! program ──▶ kernel (rules, TPROXY) ──▶ companion ──streams of one tunnel──▶ kdev ──▶ cluster
//!                                            └──what is not the cluster's──▶ the container's network
//! ```
//!
//! * `catching`: the whole of it
//! * `standing`: standard input and output as one stream
//! * `upward`: streams and datagrams by way of kdev, or past it
//! * `names`: questions about names

#[cfg(target_os = "linux")]
mod catching;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod standing;
#[cfg(target_os = "linux")]
mod upward;

#[cfg(target_os = "linux")]
pub use self::catching::run;

/// The argument that makes the relay's program catch what programs of its network send.
pub const COMPANION: &str = "companion";
/// The same for the first process of a container, whose network stays when kdev is gone.
pub const HOLD: &str = "hold";
/// The first word of what is said before the tunnel; the next is one of the following.
pub const GREETING: &str = "kdev-companion";
/// It catches, and the tunnel begins behind the end of the line.
pub const READY: &str = "ready";
/// It does not catch; the rest of the line says why.
pub const FAILED: &str = "failed";
