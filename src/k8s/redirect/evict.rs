//! Evicting one pod: as `kubectl drain` does it, so that PodDisruptionBudgets are heeded.

use std::time::Duration;

use hyper::Request;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::object::{name, uid};
use super::site::{Site, Tries};
use crate::intercept::redirect::RedirectError;
use crate::k8s::client::retry_after;
use crate::k8s::install::site::PODS;
use crate::k8s::{ClientError, discovery};

/// How long a budget may hold a pod up: a rollout of the same pods by somebody else takes less.
const HELD_LIMIT: Duration = Duration::from_secs(300);
/// How long it is asked again without a word: a budget learns of a new pod a moment late.
const UNSAID: Duration = Duration::from_secs(2);
/// Pause before a pod is asked for again where the server names none, first and longest. A refusal
/// by a budget comes without one; `kubectl drain` takes the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause that the server may name.
const LONGEST_NAMED: Duration = Duration::from_secs(30);

/// What evicts pods of one namespace.
pub(super) struct Evictor<'a> {
    site: &'a Site,
    /// What the server calls an eviction.
    version: String,
}

/// What one request came to.
enum Asked {
    Evicted,
    /// The pod is gone, or another one has its name.
    Gone,
    /// Not now, in the server's words; with the pause that it names.
    Later(String, Option<Duration>),
}

impl<'a> Evictor<'a> {
    /// Looks how the server wants to be asked.
    ///
    /// # Errors
    /// When the server has no evictions.
    pub(super) async fn new(site: &'a Site) -> Result<Self, RedirectError> {
        match discovery::eviction(&site.client).await {
            Ok(Some(version)) => Ok(Self { site, version }),
            Ok(None) => Err(RedirectError::Cluster(
                "this API server has no pods/eviction, and a pod that is merely deleted is one \
                 that no PodDisruptionBudget protects; `kubectl rollout restart` replaces them"
                    .to_owned(),
            )),
            // Who may not look takes what every server since 1.22 has.
            Err(_) => Ok(Self {
                site,
                version: "policy/v1".to_owned(),
            }),
        }
    }

    /// Evicts a pod, and waits as long as a budget holds it up; calls `tell` once with why. Gives
    /// false where the pod went by itself.
    ///
    /// # Errors
    /// When the user may not, or the budget allows it too late.
    pub(super) async fn evict(
        &self,
        pod: &Value,
        mut tell: impl FnMut(&str),
    ) -> Result<bool, RedirectError> {
        let (begun, mut pause, mut said) = (Instant::now(), FIRST_PAUSE, false);
        let mut tries = Tries::new();
        loop {
            let (why, named) = match self.ask(pod).await {
                Ok(Asked::Evicted) => return Ok(true),
                Ok(Asked::Gone) => return Ok(false),
                Ok(Asked::Later(why, named)) => (why, named),
                Err(error) if error.is_passing() && tries.again().await => continue,
                Err(error) => return Err(self.site.explain(error, "create pods/eviction")),
            };
            tries = Tries::new();
            let held = begun.elapsed();
            if held >= HELD_LIMIT {
                return Err(RedirectError::Cluster(format!(
                    "pod {} may not go after {} s: {why}; the pods after it stay too",
                    name(pod),
                    held.as_secs()
                )));
            }
            if !said && held >= UNSAID {
                said = true;
                tell(&format!(
                    "pod {} stays for now: {why}; it is asked for again for up to {} min",
                    name(pod),
                    HELD_LIMIT.as_secs() / 60
                ));
            }
            sleep(named.unwrap_or(pause).min(HELD_LIMIT.saturating_sub(held))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask(&self, pod: &Value) -> Result<Asked, ClientError> {
        // A budget's refusal is waited for here, with the budget's words.
        let client = self.site.client.impatient();
        let path = PODS.path(&self.site.namespace, name(pod));
        let eviction = json!({
            "apiVersion": self.version,
            "kind": "Eviction",
            "metadata": {"name": name(pod), "namespace": self.site.namespace},
            "deleteOptions": {"preconditions": {"uid": uid(pod)}},
        });
        let request = Request::post(format!("{path}/eviction"))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(eviction.to_string().into_bytes()))
            .map_err(|error| client.not_understood(&error))?;
        let response = client.send(request).await?;
        let named = named(response.headers());
        let Err(error) = client.body(response).await else {
            return Ok(Asked::Evicted);
        };
        match error {
            ClientError::Status {
                code: 429, message, ..
            } => Ok(Asked::Later(message, named)),
            ClientError::Status { code: 404, .. } => Ok(Asked::Gone),
            // Another pod has its name, or it was changed at that moment.
            ClientError::Status {
                code: 409, message, ..
            } => Ok(match self.is_there(pod).await? {
                true => Asked::Later(message, named),
                false => Asked::Gone,
            }),
            error => Err(error),
        }
    }

    /// Whether it is still the pod of this name.
    async fn is_there(&self, pod: &Value) -> Result<bool, ClientError> {
        let path = PODS.path(&self.site.namespace, name(pod));
        match self.site.client.get::<Value>(&path).await {
            Ok(there) => Ok(uid(&there) == uid(pod)),
            Err(error) if error.code() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The pause that the server names, within bounds.
fn named(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers).map(|pause| pause.clamp(FIRST_PAUSE, LONGEST_NAMED))
}

#[cfg(test)]
mod tests {
    use hyper::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn the_pause_that_a_server_names_is_bounded() {
        let named = |text: &str| {
            let headers = [(RETRY_AFTER, text.parse().unwrap())];
            named(&headers.into_iter().collect())
        };
        assert_eq!(named("10"), Some(Duration::from_secs(10)));
        assert_eq!(named("0"), Some(FIRST_PAUSE));
        assert_eq!(named("86400"), Some(LONGEST_NAMED));
    }
}
