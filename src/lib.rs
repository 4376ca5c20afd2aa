//! kdev puts a program on a laptop, or a container, inside a Kubernetes cluster, with the rights
//! of the user's own kubeconfig and nothing else.
//!
//! # Layers
//!
//! A module may use only what stands to its right; `·` marks siblings that never import each
//! other. `tests/layering.rs` checks the direction.
//!
//! ```text
//! main, cli → app → config → k8s · run → proxy · dns · intercept · relay · companion → http · upstream · rule → tunnel → dial → capture → addr · io · task
//! ```
//!
//! * `cli`: one file per command: flags and printing
//! * `app`: one file per use case; composes the layers and owns their tasks
//! * `config`: the settings of a session, validated once
//! * `k8s`: the adapter to Kubernetes, the only one that imports `kube`: client, catalog,
//!   port-forward
//! * `run`: the child process and the container engine around it
//! * [`proxy`]: SOCKS5, SOCKS4a and HTTP on one port
//! * [`dns`]: the cluster's names, and the laptop's own resolvers for all others
//! * [`intercept`]: claims on a Service's traffic, and the seam that brings it to the relay
//! * [`http`]: the forwarding engine behind an HTTP proxy request
//! * [`rule`]: which request comes to whom: conditions, their order and conflicts
//! * [`upstream`]: the corporate proxies on the way to the API server and to all that is not the
//!   cluster's
//! * [`relay`]: what runs in the cluster
//! * [`companion`]: what stands beside a container, in its network, and sends on what may be the
//!   cluster's
//! * [`tunnel`]: streams over one connection between kdev and its relay
//! * `capture`: a network namespace whose every connection comes to kdev (Linux)
//! * [`dial`]: what it means to open a stream, and why that fails
//! * [`addr`], [`io`], [`task`]: names, byte streams, owned tasks

pub mod addr;
#[cfg(target_os = "linux")]
pub mod capture;
pub mod companion;
pub mod dial;
pub mod http;
pub mod io;
pub mod relay;
pub mod rule;
pub mod task;
pub mod tunnel;

#[cfg(feature = "client")]
pub mod app;

#[cfg(feature = "client")]
pub mod cli;
#[cfg(feature = "client")]
pub mod config;
#[cfg(feature = "client")]
pub mod dns;
#[cfg(feature = "client")]
pub mod intercept;
#[cfg(feature = "client")]
pub mod k8s;
#[cfg(feature = "client")]
pub mod proxy;
#[cfg(feature = "client")]
pub mod run;
#[cfg(feature = "client")]
pub mod upstream;
