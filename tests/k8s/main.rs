//! The adapter against the simulated cluster: credentials, errors, and what names mean while the
//! cluster changes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod catalog;
mod client;
mod credentials;
mod forward;
mod oidc;
mod patience;
mod redirect;
mod relay;
#[path = "../common/relays.rs"]
mod relays;
mod support;
mod transcripts;
mod trust;
