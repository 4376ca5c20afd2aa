//! Intercepts on a simulated cluster with real relays in it, run as users would: `kdev intercept`,
//! `list`, `leave`, `restore`, and callers in the cluster.
//!
//! Each pod's relay has a loopback address of its own, which only Linux has.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "../common/done.rs"]
mod done;
mod drain;
mod ending;
#[path = "../common/finish.rs"]
mod finish;
mod life;
mod mine;
mod policies;
#[path = "../common/relays.rs"]
mod relays;
mod sharing;
mod support;
