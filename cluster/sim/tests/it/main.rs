//! The simulation against what is known of the real servers: raw bytes on the wire, the API's
//! answers, and a current kubectl. Only loopback, every wait bounded.
#![allow(clippy::unwrap_used)]

mod api;
mod deployments;
mod endpoints;
mod evictions;
mod faults;
mod forms;
mod kubectl;
mod lifecycle;
mod rbac;
mod runtime;
#[cfg(target_os = "linux")]
mod services;
mod stall;
mod support;
mod transcripts;
mod watch;
mod writes;
