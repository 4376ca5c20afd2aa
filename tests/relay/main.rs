//! The relay between callers, laptops and pods, over real sockets on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]

mod balance;
mod fallback;
mod first;
mod heads;
mod idle;
mod memory;
#[cfg(feature = "client")]
mod reverse;
mod second;
mod sessions;
mod smuggling;
mod support;
#[path = "../common/thief.rs"]
mod thief;
