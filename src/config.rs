//! The settings of a session, validated once.

use std::net::SocketAddr;

use crate::k8s::KubeOptions;

/// What a session needs to know before it opens anything.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which cluster, user and namespace.
    pub kube: KubeOptions,
    /// How streams reach the cluster.
    pub via: Via,
    /// Where the proxy listens; a free port of loopback by default.
    pub proxy_listen: Option<SocketAddr>,
    /// Whether containers may dial the laptop's own loopback through kdev.
    pub host_loopback: bool,
}

/// How streams reach the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// The best way there is.
    #[default]
    Auto,
    /// Port-forward streams to the pods, with nothing installed in the cluster.
    Direct,
}

impl Via {
    /// The name that `--via` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
        }
    }
}
