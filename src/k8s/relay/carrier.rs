//! How the stream under a tunnel travels between kdev and the relay's pod.

use std::fmt;

/// A way for the one stream under a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// One SPDY stream of a port-forward, on a connection of its own; inside a WebSocket where
    /// the server offers that.
    Spdy,
    /// A port-forward over `v4.channel.k8s.io`: a WebSocket that is one stream.
    WebSocket,
    /// An HTTP upgrade through `pods/proxy`: the API server goes to the pod's own address, past
    /// the kubelet and the container runtime. The relay must listen there, which it does not by
    /// itself.
    PodsProxy,
}

impl Carrier {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Spdy, Self::WebSocket, Self::PodsProxy];

    /// The name that the setting `carrier` takes.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Spdy => "spdy",
            Self::WebSocket => "websocket",
            Self::PodsProxy => "pods-proxy",
        }
    }

    /// The carrier of an [`Carrier::id`].
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|carrier| carrier.id() == id)
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
