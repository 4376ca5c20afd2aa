//! What kind of cluster the simulation pretends to be.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The server's age and habits. Start from [`Options::default`] or [`Options::old`].
#[derive(Clone, Debug)]
pub struct Options {
    /// What `/version` says, as `(major, minor, gitVersion)`.
    pub version: (String, String, String),
    /// Serves EndpointSlices as `discovery.k8s.io/v1beta1` alone, as 1.20 did.
    pub v1beta1_slices: bool,
    /// The port-forward habits, which [`SimCluster::set_habits`](crate::SimCluster::set_habits)
    /// can change later.
    pub habits: Habits,
    /// How often a watch that asked for bookmarks gets one; real servers take about a minute.
    pub bookmark_every: Duration,
    /// The address of loopback that the API server listens on, and kubeconfigs name.
    pub listen: IpAddr,
}

/// How the API server, the kubelet and the container runtime treat port-forward.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Offers `SPDY/3.1+portforward.k8s.io` over WebSocket (on by default since 1.31).
    pub tunnel: bool,
    /// Lets a plain `Upgrade: SPDY/3.1` through; some proxies before API servers do not.
    pub spdy: bool,
    /// Offers `v4.channel.k8s.io` and its base64 variant.
    pub v4: bool,
    /// Asks for `create` as well when the upgrade is a GET (on by default since 1.35).
    pub create_check: bool,
    /// How long the runtime waits for the other direction once one has ended.
    pub eof_grace: Duration,
    /// Runtimes before containerd 1.7.3: a failed forward closes both streams. Later ones reset the error
    /// stream.
    pub old_runtime: bool,
    /// How long the kubelet waits for the second stream of a pair.
    pub pair_timeout: Duration,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            tunnel: true,
            spdy: true,
            v4: true,
            create_check: true,
            eof_grace: Duration::from_secs(1),
            old_runtime: false,
            pair_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Options {
    /// A server of today.
    fn default() -> Self {
        Self::numbered("37", "v1.37.2")
    }
}

impl Options {
    /// A 1.20 server with an old container runtime: no v1 slices, no tunnel, no create check.
    #[must_use]
    pub fn old() -> Self {
        let mut options = Self::numbered("20", "v1.20.15");
        options.v1beta1_slices = true;
        options.habits.tunnel = false;
        options.habits.create_check = false;
        options.habits.old_runtime = true;
        options
    }

    fn numbered(minor: &str, git: &str) -> Self {
        Self {
            version: ("1".into(), minor.into(), git.into()),
            v1beta1_slices: false,
            habits: Habits::default(),
            bookmark_every: Duration::from_secs(60),
            listen: Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// The minor version as a number, for habits that depend on it.
    pub(crate) fn minor(&self) -> u32 {
        self.version.1.parse().unwrap_or(u32::MAX)
    }
}
