//! The addresses of the containers that this session started.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// A set of addresses that the proxy asks and the watcher of the engine changes. Clones are the
/// same set.
#[derive(Clone, Debug)]
pub struct AllowedPeers {
    set: Arc<watch::Sender<HashSet<IpAddr>>>,
}

impl Default for AllowedPeers {
    fn default() -> Self {
        Self {
            set: Arc::new(watch::Sender::new(HashSet::new())),
        }
    }
}

impl AllowedPeers {
    /// Whether `ip` is a container of this session now.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.set.borrow().contains(&ip.to_canonical())
    }

    /// As [`AllowedPeers::contains`], but gives a container that was started this moment the time
    /// to become known: a fast program connects before the engine has told of it. Dropping the
    /// future is harmless.
    pub async fn admits(&self, ip: IpAddr, patience: Duration) -> bool {
        let ip = ip.to_canonical();
        let mut changes = self.set.subscribe();
        let found = changes.wait_for(|set| set.contains(&ip));
        matches!(tokio::time::timeout(patience, found).await, Ok(Ok(_)))
    }

    /// Admits an address. For callers that know a peer by other means than the engine.
    pub fn allow(&self, ip: IpAddr) {
        self.set.send_modify(|set| {
            set.insert(ip.to_canonical());
        });
    }

    pub(super) fn replace(&self, all: HashSet<IpAddr>) {
        self.set.send_if_modified(|set| {
            let changed = *set != all;
            *set = all;
            changed
        });
    }
}
