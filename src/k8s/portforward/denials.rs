//! Pods that the user may not forward to, where others may be allowed: a Role with `resourceNames`.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::lock;
use crate::k8s::Client;
use crate::k8s::access::{self, Permission};

/// How long a refusal is remembered, while another pod may be dialled instead.
const DENIAL_KEPT: Duration = Duration::from_secs(60);
/// Pods whose refusal one dial takes: each costs a round trip or two.
pub const MAX_DENIED: usize = 8;
/// How long the API server may take to say which pods are allowed.
const RULES_LIMIT: Duration = Duration::from_secs(2);

/// When a pod was refused last.
#[derive(Debug, Default)]
pub(super) struct Denial {
    at: Mutex<Option<Instant>>,
}

impl Denial {
    pub(super) fn note(&self) {
        *lock(&self.at) = Some(Instant::now());
    }

    pub(super) fn forget(&self) {
        *lock(&self.at) = None;
    }

    /// Whether it was refused a moment ago, and so most likely is now.
    pub(super) fn is_fresh(&self) -> bool {
        lock(&self.at).is_some_and(|at| at.elapsed() < DENIAL_KEPT)
    }
}

/// The pods of `namespace` that the user's rules name for port-forward, as far as the API server
/// tells: none where it does not.
pub async fn named_pods(client: &Client, namespace: &str) -> BTreeSet<String> {
    let permission = Permission::core("create", "pods/portforward", namespace);
    let asked = access::named(client, &permission);
    match tokio::time::timeout(RULES_LIMIT, asked).await {
        Ok(Ok(named)) => named,
        Ok(Err(error)) => {
            tracing::debug!(%error, "which pods are allowed is not known");
            BTreeSet::new()
        }
        Err(_) => {
            tracing::debug!("which pods are allowed was not told in time");
            BTreeSet::new()
        }
    }
}
