//! Corporate proxies: what goes through them, how kdev logs in, and what is said when it cannot.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod chain;
mod helper;
mod login;
mod support;
