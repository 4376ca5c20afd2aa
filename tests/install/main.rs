//! `kdev install`, `upgrade` and `uninstall` on a simulated cluster, run as a user would.
#![allow(clippy::unwrap_used)]

#[path = "../common/done.rs"]
mod done;
#[path = "../common/finish.rs"]
mod finish;
mod intercepted;
mod life;
mod midway;
mod policies;
mod printed;
mod refusals;
mod relay;
mod script;
mod support;
mod trouble;
