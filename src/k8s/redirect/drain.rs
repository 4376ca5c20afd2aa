//! Replacing the pods of an intercepted Service one by one, so that connections which callers opened
//! before come to the relay as well.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::keys::is_ready;
use super::object::{name, selector, uid};
use super::site::Site;
use crate::intercept::redirect::RedirectError;
use crate::k8s::install::site::PODS;
use crate::k8s::{Client, ClientError};

/// How long a pod's successor may take to be ready.
const SUCCESSOR: Duration = Duration::from_secs(180);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);

/// Deletes the pods that the Service led to before, each after the successor of the one before it
/// is ready; calls `tell` with the name of each. `origin` is the Service that leads to them now.
/// Pods that nobody would make anew are left alone. Dropping the future leaves the rest as it is.
///
/// # Errors
/// When the pods may not be listed or deleted, or a successor does not become ready.
pub async fn drain(
    client: &Client,
    origin: &str,
    mut tell: impl FnMut(&str),
) -> Result<(), RedirectError> {
    let site = Site {
        client: client.clone(),
        namespace: client.namespace().to_owned(),
    };
    let Some(there) = site.service(origin).await? else {
        return Ok(());
    };
    let labels: Vec<String> = selector(&there["spec"])
        .map(|(key, value)| format!("{key}%3D{value}"))
        .collect();
    let path = format!(
        "{}?labelSelector={}",
        PODS.path(&site.namespace, ""),
        labels.join("%2C").replace('/', "%2F")
    );
    let ready = || async {
        let pods = site.list(&path, "list pods").await?;
        Ok::<Vec<Value>, RedirectError>(pods.into_iter().filter(is_ready).collect())
    };
    let before = ready().await?;
    let (count, mut old) = (before.len(), BTreeSet::new());
    for pod in before.iter().filter(|pod| has_maker(pod)) {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid(pod)},
        });
        let gone = site
            .client
            .delete(&PODS.path(&site.namespace, name(pod)), &options)
            .await;
        match gone {
            Ok(_) => {}
            // It went by itself.
            Err(error) if matches!(ClientError::code(&error), Some(404 | 409)) => {}
            Err(error) => return Err(site.explain(error, "delete pods")),
        }
        old.insert(name(pod).to_owned());
        tell(name(pod));
        let until = Instant::now() + SUCCESSOR;
        loop {
            let now = ready().await?;
            if now.iter().filter(|pod| !old.contains(name(pod))).count() >= count {
                break;
            }
            if Instant::now() >= until {
                return Err(RedirectError::Cluster(format!(
                    "the successor of pod {} is not ready after {} s, so the pods after it stay",
                    name(pod),
                    SUCCESSOR.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Whether a controller makes a new one.
fn has_maker(pod: &Value) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true))
}
