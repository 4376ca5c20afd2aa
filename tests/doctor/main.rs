//! `kdev doctor` as a user runs it, against a simulated cluster.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod answers;
mod broken;
mod containers;
mod rights;
mod sound;
mod support;
