//! The DNS server against the simulated cluster and resolvers of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod inside;
mod limits;
mod names;
mod program;
mod relay;
mod rights;
mod specification;
mod support;
