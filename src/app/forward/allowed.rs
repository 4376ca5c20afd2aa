//! Whether connections of a port that leads to pods directly will be allowed.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use crate::k8s::Client;
use crate::k8s::access::{self, Permission, phrase};
use crate::k8s::portforward::named_pods;

/// How long the API server may take to say it: then connections show it.
const LIMIT: Duration = Duration::from_secs(3);
/// Which of them a server asks for depends on its version and on the form; without both none works.
const VERBS: [&str; 2] = ["get", "create"];

/// What is to be said of each namespace in which this user may not forward to any pod.
pub(super) async fn remarks(client: &Client, namespaces: &BTreeSet<String>) -> Vec<String> {
    let asked = join_all(namespaces.iter().map(|namespace| remark(client, namespace)));
    let said = tokio::time::timeout(LIMIT, asked).await;
    said.unwrap_or_default().into_iter().flatten().collect()
}

async fn remark(client: &Client, namespace: &str) -> Option<String> {
    let needed = VERBS.map(|verb| Permission::core(verb, "pods/portforward", namespace));
    let missing = access::missing(client, needed.to_vec()).await;
    if missing.len() < VERBS.len() || !named_pods(client, namespace).await.is_empty() {
        return None;
    }
    Some(format!(
        "every connection will be refused: not allowed to {} in namespace {namespace}; \
         `kdev doctor -n {namespace}` has the Role to ask for",
        phrase(&missing)
    ))
}
