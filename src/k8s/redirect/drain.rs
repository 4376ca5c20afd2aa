//! Replacing the pods of an intercepted Service one by one, so that connections which callers opened
//! before come to the relay as well.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::evict::Evictor;
use super::keys::is_ready;
use super::object::{name, selector, uid};
use super::site::Site;
use crate::intercept::redirect::RedirectError;
use crate::k8s::Client;
use crate::k8s::install::site::PODS;

/// How long a pod's successor may take to be ready.
const SUCCESSOR: Duration = Duration::from_secs(180);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);

/// Evicts the pods that the Service led to before, each after the successor of the one before it
/// is ready; tells of each, and of what holds one up. `origin` is the Service that leads to them
/// now. Pods that nobody would make anew are left alone, and told. Dropping the future leaves the
/// rest as it is. Gives how many went.
///
/// # Errors
/// When the pods may not be listed or evicted, a PodDisruptionBudget does not allow it for minutes,
/// or a successor does not become ready.
pub async fn drain(
    client: &Client,
    origin: &str,
    mut tell: impl FnMut(&str),
) -> Result<usize, RedirectError> {
    let site = Site {
        client: client.clone(),
        namespace: client.namespace().to_owned(),
    };
    let Some(there) = site.service(origin).await? else {
        return Ok(0);
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
    let (made, alone): (Vec<&Value>, Vec<&Value>) = before.iter().partition(|pod| has_maker(pod));
    if !alone.is_empty() {
        let names: Vec<&str> = alone.into_iter().map(name).collect();
        tell(&format!(
            "pods that no controller would make anew stay, and connections to them too: {}",
            names.join(", ")
        ));
    }
    if made.is_empty() {
        return Ok(0);
    }
    let evictor = Evictor::new(&site).await?;
    // By UID: the successor of a StatefulSet's pod has its name.
    let (mut old, mut gone) = (BTreeSet::new(), 0);
    for pod in made {
        if evictor.evict(pod, &mut tell).await? {
            tell(&format!("pod {} is replaced", name(pod)));
            gone += 1;
        }
        old.insert(uid(pod));
        let until = Instant::now() + SUCCESSOR;
        loop {
            let now = ready().await?;
            if now.iter().filter(|pod| !old.contains(uid(pod))).count() >= before.len() {
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
    Ok(gone)
}

/// Whether a controller makes a new one.
fn has_maker(pod: &Value) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true))
}
