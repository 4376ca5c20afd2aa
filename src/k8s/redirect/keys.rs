//! The labels that the relay's pods need: one for each key of the selector of a Service that is to
//! lead to them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::marks::relay_value;
use super::object::{label, selector};
use super::site::Site;
use crate::intercept::redirect::{RedirectError, Say, Told};
use crate::k8s::install::rollout::Before;
use crate::k8s::install::{MANAGER, MANAGER_LABEL, NAME, site as install};
use crate::k8s::relay;

/// How long the relay's pods may take to be replaced by ones with another label.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(120);

/// The relay's pods that are ready; the first look at whether there is a relay at all.
pub(super) async fn relays(site: &Site) -> Result<Vec<Value>, RedirectError> {
    let pods = site.relay_pods().await?;
    let namespace = &site.namespace;
    let count = pods.len();
    let ready: Vec<Value> = pods.into_iter().filter(is_ready).collect();
    if !ready.is_empty() {
        return Ok(ready);
    }
    let place = install::Site {
        client: site.client.clone(),
        namespace: namespace.clone(),
    };
    // Whoever may not look at Deployments is told what the pods say.
    if let Ok(Some(standing)) = place.standing().await {
        let unready = relay::unready(namespace, &standing);
        return Err(RedirectError::Cluster(unready.to_string()));
    }
    Err(match count {
        0 => RedirectError::Missing {
            what: format!("a relay in namespace {namespace}, where the Service is,"),
            fix: format!("`kdev install -n {namespace}` puts one there"),
        },
        _ => RedirectError::Missing {
            what: format!("a ready pod of the relay in namespace {namespace} ({count} there)"),
            fix: relay::describe(namespace),
        },
    })
}

/// Sees to it that the relay's pods carry what a Service with this spec will select, by a rolling
/// update where they do not yet. Gives those that are ready then.
pub(super) async fn carried(
    site: &Site,
    plain: &Value,
    ready: Vec<Value>,
    say: &Say,
) -> Result<Vec<Value>, RedirectError> {
    if missing(plain, &ready).is_empty() {
        return Ok(ready);
    }
    let wanted = missing(plain, &ready);
    let text = wanted.keys().cloned().collect::<Vec<_>>().join(", ");
    say(Told::Step(format!(
        "waiting for relay pods with the labels {text}"
    )));
    let Some(deployment) = site.deployment().await? else {
        return Err(RedirectError::Missing {
            what: format!("the Deployment {NAME} in namespace {}", site.namespace),
            fix: format!(
                "its pods need the labels {text}; `kdev install` makes one that kdev can give them to"
            ),
        });
    };
    let template = &deployment["spec"]["template"];
    if wanted
        .iter()
        .any(|(key, value)| *value != label(template, key))
    {
        tracing::info!(
            labels = text,
            "the relay's pods are replaced by ones with the labels of this Service"
        );
        let patch = json!({"spec": {"template": {"metadata": {"labels": wanted}}}});
        let patched = site.patch_deployment(&patch).await;
        patched.map_err(|error| match error {
            RedirectError::Denied { .. } => lacking(site, &deployment, &wanted),
            error => error,
        })?;
    }
    let place = install::Site {
        client: site.client.clone(),
        namespace: site.namespace.clone(),
    };
    let rolled = place
        .rolled_out(ROLLOUT_LIMIT, &Before::default(), &mut |_| {})
        .await;
    rolled.map_err(|error| RedirectError::Cluster(error.to_string()))?;
    let ready = relays(site).await?;
    match missing(plain, &ready).is_empty() {
        true => Ok(ready),
        false => Err(RedirectError::Missing {
            what: format!("the labels {text} on the relay's pods"),
            fix: format!("somebody took them off the Deployment {NAME}; try again"),
        }),
    }
}

/// What is said to whoever may not give the relay's pods these labels: that is as much as to read each
/// Secret of the namespace, so the role for intercepts has no right to it.
fn lacking(site: &Site, deployment: &Value, wanted: &Map<String, Value>) -> RedirectError {
    let namespace = &site.namespace;
    let keys: Vec<&str> = wanted.keys().map(String::as_str).collect();
    let fix = match label(deployment, MANAGER_LABEL) {
        MANAGER => format!(
            "you may not change the Deployment {NAME}, so ask somebody with the built-in role `edit` \
             for `kdev upgrade -n {namespace}`, which gives them to the pods"
        ),
        _ => {
            let labels = wanted
                .iter()
                .map(|(key, value)| format!("{key}: {}", value.as_str().unwrap_or_default()));
            format!(
                "you may not change the Deployment {NAME}, so ask whoever installed it to add them \
                 to its pods (`podLabels` of the chart): {}",
                labels.collect::<Vec<_>>().join(", ")
            )
        }
    };
    RedirectError::Missing {
        what: format!(
            "the label {}, by which the Service selects its pods and has to select the relay's, on \
             the relay's pods in namespace {namespace}",
            keys.join(", ")
        ),
        fix,
    }
}

/// The labels that some of these pods lack.
fn missing(plain: &Value, pods: &[Value]) -> Map<String, Value> {
    let lacks = |key: &str| pods.iter().any(|pod| label(pod, key) != relay_value(key));
    let keys = selector(plain).filter(|(key, _)| lacks(key));
    keys.map(|(key, _)| (key.to_owned(), json!(relay_value(key))))
        .collect()
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut conditions = conditions.into_iter();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}
