//! What a user has to be allowed for an intercept, asked before anything is changed.

use serde_json::{Map, Value};

use super::site::Site;
use crate::intercept::redirect::RedirectError;
use crate::k8s::access::{self, Permission};

/// Fails where the user lacks a right that every intercept takes, naming each.
pub(super) async fn permitted(site: &Site) -> Result<(), RedirectError> {
    let namespace = &site.namespace;
    let services = ["get", "list", "watch", "create", "patch", "delete"];
    let services = services.map(|verb| Permission::core(verb, "services", namespace));
    let others = [("list", "pods"), ("watch", "pods")];
    let others = others.map(|(verb, resource)| Permission::core(verb, resource, namespace));
    let all = services.into_iter().chain(others).collect();
    let mut missing: Map<String, Value> = Map::new();
    for answer in access::review(&site.client, all).await {
        // A server that does not answer here says so to the request itself.
        let Ok(verdict) = answer else { continue };
        if !verdict.allowed {
            let verbs = missing.entry(verdict.permission.full_resource());
            let verbs = verbs.or_insert_with(|| Value::Array(Vec::new()));
            if let Some(verbs) = verbs.as_array_mut() {
                verbs.push(Value::String(verdict.permission.verb));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let texts = missing.iter().map(|(resource, verbs)| {
        let verbs = verbs.as_array().into_iter().flatten();
        let verbs: Vec<&str> = verbs.filter_map(Value::as_str).collect();
        format!("{} {resource}", verbs.join(", "))
    });
    Err(RedirectError::Denied {
        what: texts.collect::<Vec<_>>().join(" and to "),
        namespace: namespace.clone(),
    })
}

/// The namespace, as far as it may be seen.
pub(super) async fn namespace(site: &Site) -> Option<Value> {
    site.namespace().await.ok().flatten()
}
