//! Which way into the cluster the user asked for.

/// How streams reach the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Via {
    /// The relay while it is usable, port-forward streams to the pods otherwise.
    #[default]
    Auto,
    /// Port-forward streams to the pods, with nothing installed in the cluster.
    Direct,
    /// The relay alone.
    Relay,
}

impl Via {
    /// The name that the setting `via` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Relay => "relay",
        }
    }
}
