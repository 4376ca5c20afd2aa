//! Scenarios against a real Kubernetes: `cluster/lab/test` brings one up and runs them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod catalog;
mod client;
mod container;
mod lab;
mod portforward;
