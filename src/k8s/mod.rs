//! The adapter to Kubernetes, and the only module that imports `kube`.
//!
//! * [`kubeconfig`]: which cluster, which user, which namespace: what kubectl would take
//! * [`exec`]: credential plugins
//! * [`client`]: requests and upgrades to the API server, with credentials that stay fresh
//! * [`portforward`]: streams to the ports of pods

pub mod client;
pub mod exec;
pub mod kubeconfig;
pub mod portforward;

pub use client::{Client, ClientError, Upgrade, UpgradeError};
pub use kubeconfig::{KubeOptions, KubeconfigError};
