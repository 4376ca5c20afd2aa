//! What a user has to be allowed for an intercept, asked before anything is changed.

use serde_json::Value;

use super::site::Site;
use crate::intercept::redirect::RedirectError;
use crate::k8s::access::{self, Permission};
use crate::k8s::install::site::{CONFIG_MAPS, DEPLOYMENTS, SECRETS};
use crate::k8s::install::{INTERCEPT_SECRET, NAME, PORTS};

/// All that an intercept in `namespace` takes besides tunnels, whoever has intercepts there already.
#[must_use]
pub fn permissions(namespace: &str) -> Vec<Permission> {
    let own = [
        // The tunnels by which the relay is asked to try, and those that bring requests.
        SECRETS.permission("get", namespace).of(NAME),
        SECRETS.permission("get", namespace).of(INTERCEPT_SECRET),
        // Who is the first to intercept a Service marks what it makes as the relay is marked, and
        // puts on record which of its ports the Service has.
        DEPLOYMENTS.permission("get", namespace).of(NAME),
        CONFIG_MAPS.permission("get", namespace).of(PORTS),
        CONFIG_MAPS.permission("patch", namespace).of(PORTS),
    ];
    always(namespace).into_iter().chain(own).collect()
}

/// What each takes, also one of a Service that others intercept.
fn always(namespace: &str) -> Vec<Permission> {
    let services = ["get", "list", "watch", "create", "patch", "delete"];
    let services = services.map(|verb| Permission::core(verb, "services", namespace));
    let pods = ["list", "watch"].map(|verb| Permission::core(verb, "pods", namespace));
    services.into_iter().chain(pods).collect()
}

/// Fails where the user lacks a right that every intercept takes, naming each.
pub(super) async fn permitted(site: &Site) -> Result<(), RedirectError> {
    let namespace = &site.namespace;
    let missing = access::missing(&site.client, always(namespace)).await;
    if missing.is_empty() {
        return Ok(());
    }
    Err(RedirectError::Denied {
        what: access::phrase(&missing),
        namespace: namespace.clone(),
    })
}

/// The namespace, as far as it may be seen.
pub(super) async fn namespace(site: &Site) -> Option<Value> {
    site.namespace().await.ok().flatten()
}
