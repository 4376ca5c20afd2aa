//! The use cases: each composes the layers below it and owns their tasks.
//!
//! * [`session`]: a way into a cluster
//! * [`run`]: a command or container that sees the cluster
//! * [`connect`]: a proxy until Ctrl-C
//! * [`forward`]: plain local ports
//! * [`resolve`]: where a name leads, and why
//! * [`feed`]: what a session tells those that use it of its connections
//! * [`registry`]: the sessions of this machine, each answering on a socket of its own
//! * [`doctor`]: what works here, and what to do about the rest
//! * [`install`]: the relay in a namespace: install, upgrade, uninstall
//! * [`intercept`]: a Service's requests come to an app of this laptop
//! * [`intercepts`]: those that others have, and what they left
//! * [`mine`]: a browser's requests say whose they are
//! * [`late`]: what late callers of ended intercepts need, until none comes
//! * [`demo`]: the main jobs against a simulated cluster

pub mod complete;
pub mod connect;
mod connections;
pub mod demo;
pub mod descriptors;
pub mod doctor;
pub mod env;
pub mod feed;
pub mod forward;
pub mod install;
pub mod intercept;
pub mod intercepts;
pub mod late;
mod mine;
mod named;
pub mod registry;
pub mod resolve;
pub mod run;
mod said;
pub mod session;
pub mod share;
pub(crate) mod signals;

pub use connections::kilobytes;
pub use mine::Note;
pub use session::Session;
