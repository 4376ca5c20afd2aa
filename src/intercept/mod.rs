//! Intercepts: what it takes to have a Service's traffic come to the relay and go back again.
//!
//! * [`claim`]: who wants which of a Service's traffic
//! * [`record`](mod@record): how a claim is kept there, and who is in whose way
//! * [`redirect`]: the seam to the cluster, which brings the traffic and gives it back
//! * [`reverse`]: the tunnels by which the relay brings requests to the apps

pub mod claim;
pub mod record;
pub mod redirect;
pub mod reverse;

pub use claim::{Claim, Judge, Verdict};
pub use redirect::{
    Change, Landing, Left, OnRecord, Redirect, RedirectError, Redirected, Told, Traces, Wanted,
};
