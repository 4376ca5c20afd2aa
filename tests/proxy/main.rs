//! The proxy as an app sees it: real sockets on loopback, a dial that maps names to servers of
//! the test.

#![allow(clippy::unwrap_used, missing_docs)]

mod absolute;
mod access;
mod bodies;
mod connect;
mod curl;
mod garbage;
mod mine;
mod pool;
mod refusals;
mod socks;
mod support;
mod udp;
