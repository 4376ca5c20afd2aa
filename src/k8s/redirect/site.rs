//! The requests that change Services in one namespace, and trying again where others change the
//! same.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::marks::FIELD_MANAGER;
use super::object::{label, name, selector, uid, version};
use super::origin::SELECTOR;
use crate::intercept::redirect::RedirectError;
use crate::k8s::install::shape::Shape;
use crate::k8s::install::site::{CONFIG_MAPS, DEPLOYMENTS, Kind, PODS};
use crate::k8s::install::trial::{self, Refusal};
use crate::k8s::install::{MANAGER, MANAGER_LABEL, NAME, NAME_LABEL, PORTS};
use crate::k8s::{Client, ClientError, access, relay};

/// How long a change is tried while others change the same object, or the API server restarts:
/// fifty at once take a second.
pub(super) const CHANGE_LIMIT: Duration = Duration::from_secs(20);
/// The first and the longest pause before the next try.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Services.
static SERVICES: Kind = Kind {
    api: "v1",
    plural: "services",
    kind: "Service",
};
static SLICES: Kind = Kind {
    api: "discovery.k8s.io/v1",
    plural: "endpointslices",
    kind: "EndpointSlice",
};

/// A namespace, as one user.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) client: Client,
    pub(super) namespace: String,
}

#[derive(Deserialize)]
struct List {
    /// Null where there are none, on some servers.
    items: Option<Vec<Value>>,
}

impl Site {
    /// Where Services are; with a name, that one.
    pub(super) fn services(&self, name: &str) -> String {
        SERVICES.path(&self.namespace, name)
    }

    /// Where the relay's pods are.
    pub(super) fn relay_pods_path(&self) -> String {
        let selector = relay::selector().replace('=', "%3D");
        format!(
            "{}?labelSelector={selector}",
            PODS.path(&self.namespace, "")
        )
    }

    /// A Service, where it exists.
    pub(super) async fn service(&self, name: &str) -> Result<Option<Value>, RedirectError> {
        self.find(&self.services(name), "get services").await
    }

    /// A Service's EndpointSlices; none where they may not be read, or the server has others.
    pub(super) async fn slices(&self, name: &str) -> Result<Option<Vec<Value>>, RedirectError> {
        let path = SLICES.path(&self.namespace, "");
        let path = format!("{path}?labelSelector=kubernetes.io%2Fservice-name%3D{name}");
        self.readable(&path, "list endpointslices.discovery.k8s.io")
            .await
    }

    /// The pods that a Service with this spec selects.
    pub(super) async fn pods_of(&self, spec: &Value) -> Result<Vec<Value>, RedirectError> {
        let terms =
            selector(spec).map(|(key, value)| format!("{}%3D{value}", key.replace('/', "%2F")));
        let terms = terms.collect::<Vec<_>>().join(",");
        let path = format!("{}?labelSelector={terms}", PODS.path(&self.namespace, ""));
        self.list(&path, "list pods").await
    }

    /// All origins of the namespace.
    pub(super) async fn origins(&self) -> Result<Vec<Value>, RedirectError> {
        let path = format!("{}?labelSelector={SELECTOR}", self.services(""));
        self.list(&path, "list services").await
    }

    /// The relay's pods.
    pub(super) async fn relay_pods(&self) -> Result<Vec<Value>, RedirectError> {
        self.list(&self.relay_pods_path(), "list pods").await
    }

    /// The relay's Deployment, where it exists.
    pub(super) async fn deployment(&self) -> Result<Option<Value>, RedirectError> {
        let path = DEPLOYMENTS.path(&self.namespace, NAME);
        self.find(&path, "get deployments.apps").await
    }

    /// The namespace, where it exists and may be seen.
    pub(super) async fn namespace(&self) -> Result<Option<Value>, ClientError> {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        match self.client.get(&path).await {
            Ok(namespace) => Ok(Some(namespace)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a Service.
    pub(super) async fn create(&self, service: &Value) -> Result<Changed, RedirectError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}", self.services(""));
        let made = self.client.post::<Value>(&path, service).await;
        let refused = made.as_ref().err().and_then(trial::refused_by_policy);
        if let Some(message) = refused {
            let what = format!("Service {}, which an intercept takes,", name(service));
            let refusal = Refusal { what, message };
            return Err(RedirectError::Cluster(format!(
                "{} was refused: {}; {}",
                refusal.what,
                refusal.message,
                trial::advice(std::slice::from_ref(&refusal)),
            )));
        }
        self.changed(made, "create services")
    }

    /// Changes a Service by a merge patch that says from which version on.
    pub(super) async fn patch(&self, name: &str, patch: &Value) -> Result<Changed, RedirectError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}", self.services(name));
        let made = self.client.merge::<Value>(&path, patch).await;
        self.changed(made, "patch services")
    }

    /// Whose the relay's ports are and were, by the first port of a block.
    pub(super) async fn ports(&self) -> Result<Value, RedirectError> {
        let path = CONFIG_MAPS.path(&self.namespace, PORTS);
        let record = self.find(&path, "get configmaps").await?;
        Ok(record.map_or(Value::Null, |mut record| record["data"].take()))
    }

    /// Adds to the record of the relay's ports.
    pub(super) async fn note_ports(&self, notes: &Value) -> Result<(), RedirectError> {
        let noted = self.merge_ports(notes).await;
        noted.map_err(|error| self.explain(error, "patch configmaps"))
    }

    /// As [`Site::note_ports`], and makes the record where an earlier kdev has installed the relay.
    pub(super) async fn begin_ports(
        &self,
        notes: &Value,
        deployment: &Value,
    ) -> Result<(), RedirectError> {
        let explain = |error| self.explain(error, "patch configmaps");
        match self.merge_ports(notes).await {
            Err(error) if error.code() == Some(404) => {}
            noted => return noted.map_err(explain),
        }
        // What another program made, that one would not own.
        let made = match label(deployment, MANAGER_LABEL) {
            MANAGER => {
                let labels = json!({NAME_LABEL: NAME, MANAGER_LABEL: MANAGER});
                let mut record = json!({
                    "apiVersion": "v1",
                    "kind": CONFIG_MAPS.kind,
                    "metadata": {"name": PORTS, "labels": labels},
                });
                Shape::of(deployment).mark(&mut record["metadata"]);
                let path = CONFIG_MAPS.path(&self.namespace, "");
                let path = format!("{path}?fieldManager={FIELD_MANAGER}");
                match self.client.post::<Value>(&path, &record).await {
                    Ok(_) => true,
                    // Somebody was faster.
                    Err(error) if error.code() == Some(409) => true,
                    Err(error) if error.code() == Some(403) => false,
                    Err(error) => return Err(self.explain(error, "create configmaps")),
                }
            }
            _ => false,
        };
        if !made {
            return Err(RedirectError::Missing {
                what: format!("ConfigMap {PORTS} in namespace {}", self.namespace),
                fix: renewal(deployment, &self.namespace),
            });
        }
        self.merge_ports(notes).await.map_err(explain)
    }

    async fn merge_ports(&self, notes: &Value) -> Result<(), ClientError> {
        let path = CONFIG_MAPS.path(&self.namespace, PORTS);
        let path = format!("{path}?fieldManager={FIELD_MANAGER}");
        let merged = self
            .client
            .merge::<Value>(&path, &json!({"data": notes}))
            .await;
        merged.map(drop)
    }

    /// Changes the relay's Deployment by a merge patch.
    pub(super) async fn patch_deployment(&self, patch: &Value) -> Result<(), RedirectError> {
        let path = DEPLOYMENTS.path(&self.namespace, NAME);
        let path = format!("{path}?fieldManager={FIELD_MANAGER}");
        match self.client.merge::<Value>(&path, patch).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error, "patch deployments.apps")),
        }
    }

    /// Deletes a Service as it is now.
    pub(super) async fn delete(&self, service: &Value) -> Result<Changed, RedirectError> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid(service), "resourceVersion": version(service)},
        });
        let gone = self
            .client
            .delete(&self.services(name(service)), &options)
            .await;
        self.changed(gone, "delete services")
    }

    async fn find(&self, path: &str, what: &str) -> Result<Option<Value>, RedirectError> {
        let mut tries = Tries::new();
        loop {
            match self.client.get(path).await {
                Ok(object) => return Ok(Some(object)),
                Err(error) if error.code() == Some(404) => return Ok(None),
                Err(error) if error.is_passing() && tries.again().await => {}
                Err(error) => return Err(self.explain(error, what)),
            }
        }
    }

    /// A list, whole.
    pub(super) async fn list(&self, path: &str, what: &str) -> Result<Vec<Value>, RedirectError> {
        let mut tries = Tries::new();
        loop {
            match self.client.get::<List>(path).await {
                Ok(list) => return Ok(list.items.unwrap_or_default()),
                Err(error) if error.is_passing() && tries.again().await => {}
                Err(error) => return Err(self.explain(error, what)),
            }
        }
    }

    /// A list, whole; none where it may not be read or there is no such resource.
    pub(super) async fn readable(
        &self,
        path: &str,
        what: &str,
    ) -> Result<Option<Vec<Value>>, RedirectError> {
        let mut tries = Tries::new();
        loop {
            match self.client.get::<List>(path).await {
                Ok(list) => return Ok(Some(list.items.unwrap_or_default())),
                Err(error) if matches!(error.code(), Some(403 | 404)) => return Ok(None),
                Err(error) if error.is_passing() && tries.again().await => {}
                Err(error) => return Err(self.explain(error, what)),
            }
        }
    }

    fn changed(
        &self,
        result: Result<Value, ClientError>,
        what: &str,
    ) -> Result<Changed, RedirectError> {
        match result {
            Ok(object) => Ok(Changed::Done(object)),
            Err(error) => match error.code() {
                Some(409) => Ok(Changed::Stale),
                Some(404) => Ok(Changed::Gone),
                // Nobody knows whether it was done; whoever looks again sees it.
                _ if error.is_passing() => Ok(Changed::Unsure(self.explain(error, what))),
                _ => Err(self.explain(error, what)),
            },
        }
    }

    pub(super) fn explain(&self, error: ClientError, what: &str) -> RedirectError {
        match error {
            ClientError::Status {
                code: 403, message, ..
            } if !message.contains("exceeded quota") => {
                let (verb, resource) = what.split_once(' ').unwrap_or((what, ""));
                let denied = access::denied(&message, verb, resource, &self.namespace);
                let crate::dial::DialError::Denied { verb, resource, .. } = &denied else {
                    return RedirectError::Cluster(denied.to_string());
                };
                RedirectError::Denied {
                    what: format!("{verb} {resource}"),
                    namespace: self.namespace.clone(),
                }
            }
            error => RedirectError::Cluster(error.to_string()),
        }
    }
}

/// How a relay gets what one of an earlier version lacks.
pub(super) fn renewal(deployment: &Value, namespace: &str) -> String {
    match label(deployment, MANAGER_LABEL) {
        MANAGER => format!(
            "ask somebody with the built-in role `edit` for `kdev upgrade -n {namespace}`, which \
             brings it"
        ),
        _ => "ask whoever installed the relay to upgrade it".to_owned(),
    }
}

/// What became of a change.
#[derive(Debug)]
pub(super) enum Changed {
    /// The object after it.
    Done(Value),
    /// Somebody else was faster.
    Stale,
    /// There is no such object.
    Gone,
    /// The answer got lost.
    Unsure(RedirectError),
}

/// Tries, with pauses that grow.
#[derive(Debug)]
pub(super) struct Tries {
    until: Instant,
    pause: Duration,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self {
            until: Instant::now() + CHANGE_LIMIT,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits for the next try; false when there is none.
    pub(super) async fn again(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        // Jitter, or fifty that lost together would lose together again.
        sleep(self.pause.mul_f64(rand::random::<f64>())).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }

    /// As [`Tries::again`], with an error when there is no next one.
    pub(super) async fn next(&mut self, what: &str) -> Result<(), RedirectError> {
        match self.again().await {
            true => Ok(()),
            false => Err(RedirectError::Contended {
                what: what.to_owned(),
                seconds: CHANGE_LIMIT.as_secs(),
            }),
        }
    }

    /// As [`Tries::next`], after a change that may not have been made.
    pub(super) async fn after(&mut self, unsure: RedirectError) -> Result<(), RedirectError> {
        match self.again().await {
            true => Ok(()),
            false => Err(unsure),
        }
    }
}
