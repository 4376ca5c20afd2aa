//! The proxy as an app sees it: real sockets on loopback, a dial that maps names to servers of
//! the test.

#![allow(clippy::unwrap_used, missing_docs)]

mod absolute;
mod access;
mod connect;
mod curl;
mod garbage;
mod pool;
mod socks;
mod support;
