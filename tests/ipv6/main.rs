//! An API server, a cluster and a laptop that speak IPv6. Without `::1` there is nothing to try.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod corporate;
mod program;
mod support;
