//! Applying and deleting the relay's objects, each with what became of it.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::manifest::Manifest;
use super::marks::{kept, marks};
use super::netpolicy::{self, POLICIES};
use super::shape::pairs;
use super::site::{
    BUDGETS, CONFIG_MAPS, DEPLOYMENTS, Found, InstallError, Kind, PODS, REPLICA_SETS, SECRETS,
    Site, name_of,
};
use super::trial::{Refusal, advice, refusal};
use super::undo::{END_LIMIT, Made};
use super::{INTERCEPT_SECRET, MANAGER, NAME, NAME_LABEL};
use crate::k8s::ClientError;
use crate::k8s::access::Permission;

/// How often it is looked whether what was deleted is gone.
const LOOK: Duration = Duration::from_millis(300);

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Created,
    /// It was there and is another now.
    Changed,
    /// It was there and is the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// An object and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What became of it.
    pub action: Action,
}

/// The permissions that applying takes; `budget`, whether there is to be one.
#[must_use]
pub fn permissions(site: &Site, budget: bool) -> Vec<Permission> {
    let of = |kind: &Kind, verbs: &[&str]| -> Vec<Permission> {
        let verbs = verbs.iter();
        verbs
            .map(|verb| kind.permission(verb, &site.namespace))
            .collect()
    };
    let budgets: &[&str] = match budget {
        true => &["get", "create", "patch"],
        false => &["get"],
    };
    [
        of(&SECRETS, &["get", "create"]),
        of(&CONFIG_MAPS, &["list", "create", "delete"]),
        of(&DEPLOYMENTS, &["get", "create", "patch"]),
        of(&BUDGETS, budgets),
        of(&PODS, &["list"]),
    ]
    .concat()
}

/// The permissions that removing takes.
#[must_use]
pub fn removing_permissions(site: &Site) -> Vec<Permission> {
    let kinds = [&DEPLOYMENTS, &BUDGETS, &CONFIG_MAPS, &SECRETS];
    let both = kinds
        .into_iter()
        .flat_map(|kind| ["list", "delete"].map(|verb| kind.permission(verb, &site.namespace)));
    both.chain([PODS.permission("list", &site.namespace)])
        .collect()
}

/// The objects that are to be there, with what is there already in place of a new secret.
///
/// # Errors
/// When the system has no randomness.
pub fn objects(manifest: &Manifest, found: &Found) -> Result<Vec<Value>, InstallError> {
    let mut all = Vec::new();
    for (name, there) in [NAME, INTERCEPT_SECRET].into_iter().zip(&found.secrets) {
        let mut secret = manifest.secret(name)?;
        if let Some(there) = there {
            secret["data"] = there["data"].clone();
        }
        all.push(secret);
    }
    all.extend(manifest.parts());
    all.push(manifest.ports());
    all.extend(manifest.budget());
    all.extend(manifest.network_policy(&found.policies));
    all.push(manifest.deployment());
    Ok(all)
}

/// What goes on while objects are put there.
#[derive(Debug)]
pub enum Put {
    /// An object was seen to.
    Done(Done),
    /// What is waited for.
    Waiting(String),
}

/// What became of an object, or would.
pub(super) struct Sent {
    pub(super) kind: &'static Kind,
    pub(super) action: Action,
    pub(super) object: Value,
}

impl Site {
    /// Puts `objects` there, in their order: what pods need comes before the pods. Can be
    /// repeated from any point where it was broken off. What is new is added to `made`; `unanswered` names the
    /// object that was sent last until the answer to it comes. Gives the Deployment as it is then.
    ///
    /// # Errors
    /// When the API server refuses one. What came before it stays.
    pub async fn put(
        &self,
        objects: &[Value],
        found: &Found,
        force: bool,
        made: &mut Vec<Made>,
        unanswered: &mut Option<String>,
        told: &mut (dyn FnMut(Put) + Send),
    ) -> Result<Value, InstallError> {
        let mut deployment = Value::Null;
        for object in objects {
            *unanswered = Some(shown(object));
            let send = || async {
                let sent = self.send(object, found, force, false).await;
                sent.map_err(|error| refused(shown(object), error))
            };
            let mut sent = send().await?;
            // A Deployment that is being deleted takes the change and goes all the same, so it is made
            // anew once it is gone.
            if *sent.kind == DEPLOYMENTS && !sent.object["metadata"]["deletionTimestamp"].is_null()
            {
                told(Put::Waiting(format!(
                    "the old {} is being deleted; waiting up to {} s until it is gone",
                    shown(object),
                    END_LIMIT.as_secs()
                )));
                let ends = tokio::time::Instant::now() + END_LIMIT;
                let gone = self.gone(ends, END_LIMIT).await;
                gone.map_err(|error| self.held(shown(object), error))?;
                sent = send().await?;
            }
            *unanswered = None;
            if sent.action == Action::Created {
                made.push(Made::of(sent.kind, &sent.object));
            }
            told(Put::Done(Done {
                kind: sent.kind.kind,
                name: name_of(object).to_owned(),
                action: sent.action,
            }));
            if *sent.kind == DEPLOYMENTS {
                deployment = sent.object;
            }
        }
        // One pod is no budget's to keep.
        let budget = objects.iter().any(|object| object["kind"] == BUDGETS.kind);
        if !budget && found.budget.is_some() {
            self.delete(found.budgets, NAME, "Background").await?;
            told(Put::Done(deleted(found.budgets, NAME)));
        }
        let policy = objects.iter().any(|object| object["kind"] == POLICIES.kind);
        if !policy && found.policies.iter().any(netpolicy::is_own) {
            self.delete(&POLICIES, NAME, "Background").await?;
            told(Put::Done(deleted(&POLICIES, NAME)));
        }
        Ok(deployment)
    }

    /// What is said where an object that is being deleted does not go.
    fn held(&self, what: String, error: InstallError) -> InstallError {
        let InstallError::TimedOut {
            because, seconds, ..
        } = error
        else {
            return error;
        };
        let left = because.unwrap_or_default();
        InstallError::Refused {
            what,
            message: format!("the old one is still being deleted after {seconds} s ({left})"),
            fix: format!(
                "see what holds it with `kubectl -n {} get deployment,pod -l {NAME_LABEL}={NAME} -o yaml` \
                 (finalizers), then run the same command again",
                self.namespace
            ),
        }
    }

    /// Sends one object as it is to be; `dry`, without anything being done.
    pub(super) async fn send(
        &self,
        object: &Value,
        found: &Found,
        force: bool,
        dry: bool,
    ) -> Result<Sent, ClientError> {
        let name = name_of(object);
        let dry = if dry { "&dryRun=All" } else { "" };
        if let Some(kind) = kept(object) {
            let Some(there) = found.kept(kind, name) else {
                return self.create(kind, object, dry).await;
            };
            let Some(patch) = marks(there, object, found) else {
                return Ok(Sent {
                    kind,
                    action: Action::Unchanged,
                    object: there.clone(),
                });
            };
            let path = kind.path(&self.namespace, name);
            let path = format!("{path}?fieldManager={MANAGER}{dry}");
            return Ok(Sent {
                kind,
                action: Action::Changed,
                object: self.client.merge(&path, &patch).await?,
            });
        }
        let (kind, there) = match object["kind"].as_str().unwrap_or_default() {
            "Deployment" => (&DEPLOYMENTS, found.deployment.as_ref()),
            "NetworkPolicy" => {
                let there = found.policies.iter().find(|policy| name_of(policy) == name);
                (&POLICIES, there)
            }
            _ => (found.budgets, found.budget.as_ref()),
        };
        let path = kind.path(&self.namespace, name);
        let path = format!("{path}?fieldManager={MANAGER}&force={force}{dry}");
        let (applied, created): (Value, bool) = self.client.apply_told(&path, object).await?;
        let action = match there {
            _ if created => Action::Created,
            Some(before) if is_same(before, &applied, object, found) => Action::Unchanged,
            _ => Action::Changed,
        };
        Ok(Sent {
            kind,
            action,
            object: applied,
        })
    }

    /// Creates what never changes; somebody who created the same meanwhile did it as well.
    async fn create(
        &self,
        kind: &'static Kind,
        object: &Value,
        dry: &str,
    ) -> Result<Sent, ClientError> {
        let path = kind.path(&self.namespace, "");
        let path = format!("{path}?fieldManager={MANAGER}{dry}");
        let (action, object) = match self.client.post::<Value>(&path, object).await {
            Ok(created) => (Action::Created, created),
            Err(ClientError::Status {
                code: 409, reason, ..
            }) if reason == "AlreadyExists" => (Action::Unchanged, object.clone()),
            Err(error) => return Err(error),
        };
        Ok(Sent {
            kind,
            action,
            object,
        })
    }

    /// Deletes the relay's ConfigMaps that are not among `kept`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn sweep(
        &self,
        kept: &[Value],
        done: &mut (dyn FnMut(Done) + Send),
    ) -> Result<(), InstallError> {
        for name in self.own_names(&CONFIG_MAPS).await? {
            let is_kept = kept
                .iter()
                .any(|object| object["kind"] == CONFIG_MAPS.kind && name_of(object) == name);
            if !is_kept {
                self.delete(&CONFIG_MAPS, &name, "Background").await?;
                done(deleted(&CONFIG_MAPS, &name));
            }
        }
        Ok(())
    }

    /// What carries kdev's labels, as kind and name.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn installed(&self) -> Result<Vec<(&'static Kind, String)>, InstallError> {
        let mut all = Vec::new();
        // The pods first, so that none misses what it reads from the others.
        for kind in [&DEPLOYMENTS, self.budgets().await?, &CONFIG_MAPS, &SECRETS] {
            let names = self.own_names(kind).await?;
            all.extend(names.into_iter().map(|name| (kind, name)));
        }
        match self.own_names(&POLICIES).await {
            Ok(names) => all.extend(names.into_iter().map(|name| (&POLICIES, name))),
            // Who may not look at them has made none.
            Err(error) if matches!(error.code(), Some(403 | 404)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(all)
    }

    /// Deletes `objects` and waits until they and the pods are gone.
    ///
    /// # Errors
    /// When the API server refuses it, or what is left when `limit` has passed.
    pub async fn remove(
        &self,
        objects: &[(&'static Kind, String)],
        limit: Duration,
        done: &mut (dyn FnMut(Done) + Send),
    ) -> Result<(), InstallError> {
        let ends = tokio::time::Instant::now() + limit;
        for (kind, name) in objects {
            if **kind == DEPLOYMENTS {
                // It is there until its pods are gone, so that `kubectl` shows the truth meanwhile.
                self.delete(kind, name, "Foreground").await?;
                self.gone(ends, limit).await?;
            } else {
                self.delete(kind, name, "Background").await?;
            }
            done(deleted(kind, name));
        }
        self.gone(ends, limit).await
    }

    /// Waits until no Deployment and no pod of the relay is left.
    pub(super) async fn gone(
        &self,
        ends: tokio::time::Instant,
        limit: Duration,
    ) -> Result<(), InstallError> {
        loop {
            let mut left = Vec::new();
            for kind in [&DEPLOYMENTS, &REPLICA_SETS, &PODS] {
                match self.own_names(kind).await {
                    Ok(names) => {
                        left.extend(names.iter().map(|name| format!("{} {name}", kind.kind)));
                    }
                    // Who may not see ReplicaSets sees the pods.
                    Err(error) if error.code() == Some(403) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= ends {
                return Err(InstallError::TimedOut {
                    what: "the relay's pods did not end".to_owned(),
                    seconds: limit.as_secs(),
                    because: Some(format!("left: {}", left.join(", "))),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn delete(&self, kind: &Kind, name: &str, how: &str) -> Result<(), InstallError> {
        let deleted = self.delete_as(kind, name, how, None).await;
        deleted.map_err(|error| refused(format!("{} {name}", kind.kind), error))
    }

    /// Deletes an object, with `uid` no other one of its name; one that is gone is as good.
    pub(super) async fn delete_as(
        &self,
        kind: &Kind,
        name: &str,
        how: &str,
        uid: Option<&str>,
    ) -> Result<(), ClientError> {
        let mut options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": how,
        });
        if let Some(uid) = uid {
            options["preconditions"] = json!({"uid": uid});
        }
        let path = kind.path(&self.namespace, name);
        match self.client.delete(&path, &options).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(404) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether an apply changed nothing. The whole object may differ all the same: controllers write
/// its status and annotations of their own at any time.
fn is_same(before: &Value, after: &Value, sent: &Value, found: &Found) -> bool {
    let chosen = found.settings().unwrap_or_default().shape.annotations;
    let sent = pairs(&sent["metadata"]["annotations"]);
    let ours = |object: &Value| {
        let metadata = &object["metadata"];
        let keys = sent.keys().chain(chosen.keys());
        let annotations = keys.map(|key| metadata["annotations"][key].clone());
        // The generation counts the changes of the spec.
        let fields = [metadata["generation"].clone(), metadata["labels"].clone()];
        fields.into_iter().chain(annotations).collect::<Vec<_>>()
    };
    ours(before) == ours(after)
}

fn deleted(kind: &Kind, name: &str) -> Done {
    Done {
        kind: kind.kind,
        name: name.to_owned(),
        action: Action::Deleted,
    }
}

fn shown(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    format!("{kind} {}", name_of(object))
}

/// What it means that a request about the object `what` failed.
pub(super) fn refused(what: String, error: ClientError) -> InstallError {
    if let ClientError::Status {
        code: 409, message, ..
    } = error
    {
        return InstallError::Conflict { what, message };
    }
    let Some(message) = refusal(&error) else {
        return error.into();
    };
    let fix = match message.contains("exceeded quota") {
        true => "ask whoever runs the cluster for a larger quota, or choose another namespace"
            .to_owned(),
        false => advice(&[Refusal {
            what: what.clone(),
            message: message.clone(),
        }]),
    };
    InstallError::Refused { what, message, fix }
}
