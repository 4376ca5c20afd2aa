//! The adapter to Kubernetes, and the only module that imports `kube`.
//!
//! * [`kubeconfig`]: which cluster, which user, which namespace: what kubectl would take
//! * [`exec`]: credential plugins
//! * [`netpolicy`]: who reaches whom, as NetworkPolicies have it
//! * [`oidc`]: logins by OpenID Connect
//! * [`client`]: requests and upgrades to the API server, with credentials that stay fresh
//! * [`discovery`]: what the API server is and has
//! * [`access`]: what the user may do
//! * [`identity`]: who the user is to the API server
//! * [`listing`]: names of what there is, asked for once
//! * [`measure`]: how fast the way to the API server is
//! * [`catalog`]: what names and addresses mean, kept current
//! * [`install`]: the relay's objects in a namespace
//! * [`portforward`]: streams to the ports of pods
//! * [`redirect`]: Services' traffic to the relay, and back
//! * [`relay`]: tunnels to the relay in the session's namespace

pub mod access;
pub mod catalog;
pub mod client;
pub mod discovery;
pub mod exec;
pub mod identity;
pub mod install;
pub mod kubeconfig;
pub mod listing;
pub mod measure;
pub mod netpolicy;
pub mod oidc;
mod pods;
pub mod portforward;
pub mod redirect;
pub mod relay;
mod similar;
mod trust;
mod x509;

pub use catalog::Catalog;
pub use client::{Client, ClientError, Upgrade, UpgradeError};
pub use kubeconfig::{KubeOptions, KubeconfigError};
