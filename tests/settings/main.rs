//! Settings, and the commands about them, by the program itself.
#![allow(clippy::unwrap_used, missing_docs)]

mod complete;
mod env;
mod help;
mod layers;
mod share;
mod support;
