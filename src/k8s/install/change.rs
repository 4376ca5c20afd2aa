//! Applying and deleting the relay's objects, each with what became of it.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::manifest::Manifest;
use super::netpolicy::{self, POLICIES};
use super::site::{
    BUDGETS, CONFIG_MAPS, DEPLOYMENTS, Found, InstallError, Kind, PODS, REPLICA_SETS, SECRETS,
    Site, name_of,
};
use super::{INTERCEPT_SECRET, MANAGER, NAME, VERSION_ANNOTATION};
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
    all.extend(manifest.budget());
    all.extend(manifest.network_policy(&found.policies));
    all.push(manifest.deployment());
    Ok(all)
}

impl Site {
    /// Puts `objects` there, in their order: what pods need comes before the pods. Can be
    /// repeated from any point where it was broken off.
    ///
    /// # Errors
    /// When the API server refuses one. What came before it stays.
    pub async fn put(
        &self,
        objects: &[Value],
        found: &Found,
        force: bool,
        done: &mut (dyn FnMut(Done) + Send),
    ) -> Result<(), InstallError> {
        for object in objects {
            done(self.put_one(object, found, force).await?);
        }
        // One pod is no budget's to keep.
        let budget = objects.iter().any(|object| object["kind"] == BUDGETS.kind);
        if !budget && found.budget.is_some() {
            self.delete(found.budgets, NAME, "Background").await?;
            done(deleted(found.budgets, NAME));
        }
        let policy = objects.iter().any(|object| object["kind"] == POLICIES.kind);
        if !policy && found.policies.iter().any(netpolicy::is_own) {
            self.delete(&POLICIES, NAME, "Background").await?;
            done(deleted(&POLICIES, NAME));
        }
        Ok(())
    }

    async fn put_one(
        &self,
        object: &Value,
        found: &Found,
        force: bool,
    ) -> Result<Done, InstallError> {
        let name = name_of(object);
        match object["kind"].as_str().unwrap_or_default() {
            "Secret" => {
                let secrets = found.secrets.iter().flatten();
                let there = secrets.into_iter().any(|secret| name_of(secret) == name);
                self.create(&SECRETS, object, there).await
            }
            "ConfigMap" => {
                let there = found.parts.iter().any(|part| part == name);
                self.create(&CONFIG_MAPS, object, there).await
            }
            "Deployment" => {
                let there = found.deployment.as_ref();
                self.apply(&DEPLOYMENTS, object, there, force).await
            }
            "NetworkPolicy" => {
                let there = found.policies.iter().find(|policy| name_of(policy) == name);
                self.apply(&POLICIES, object, there, force).await
            }
            _ => {
                let there = found.budget.as_ref();
                self.apply(found.budgets, object, there, force).await
            }
        }
    }

    /// Creates what never changes; somebody who created the same meanwhile did it as well.
    async fn create(
        &self,
        kind: &'static Kind,
        object: &Value,
        there: bool,
    ) -> Result<Done, InstallError> {
        let name = name_of(object).to_owned();
        let mut action = Action::Unchanged;
        if !there {
            let path = kind.path(&self.namespace, "");
            let path = format!("{path}?fieldManager={MANAGER}");
            match self.client.post::<Value>(&path, object).await {
                Ok(_) => action = Action::Created,
                Err(ClientError::Status {
                    code: 409, reason, ..
                }) if reason == "AlreadyExists" => {}
                Err(error) => return Err(refused(kind, &name, error)),
            }
        }
        Ok(Done {
            kind: kind.kind,
            name,
            action,
        })
    }

    async fn apply(
        &self,
        kind: &'static Kind,
        object: &Value,
        there: Option<&Value>,
        force: bool,
    ) -> Result<Done, InstallError> {
        let name = name_of(object).to_owned();
        let path = kind.path(&self.namespace, &name);
        let path = format!("{path}?fieldManager={MANAGER}&force={force}");
        let applied: Value = match self.client.apply(&path, object).await {
            Ok(applied) => applied,
            Err(error) => return Err(refused(kind, &name, error)),
        };
        let action = match there {
            None => Action::Created,
            Some(before) if is_same(before, &applied) => Action::Unchanged,
            Some(_) => Action::Changed,
        };
        Ok(Done {
            kind: kind.kind,
            name,
            action,
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
    async fn gone(&self, ends: tokio::time::Instant, limit: Duration) -> Result<(), InstallError> {
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
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": how,
        });
        let path = kind.path(&self.namespace, name);
        match self.client.delete(&path, &options).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(404) => Ok(()),
            Err(error) => Err(refused(kind, name, error)),
        }
    }
}

/// Whether an apply changed nothing. The whole object may differ all the same: controllers write
/// its status and annotations of their own at any time.
fn is_same(before: &Value, after: &Value) -> bool {
    let ours = |object: &Value| {
        let metadata = &object["metadata"];
        [
            // Counts the changes of the spec.
            metadata["generation"].clone(),
            metadata["labels"].clone(),
            metadata["annotations"][VERSION_ANNOTATION].clone(),
        ]
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

fn refused(kind: &Kind, name: &str, error: ClientError) -> InstallError {
    let what = format!("{} {name}", kind.kind);
    match error {
        ClientError::Status {
            code: 409, message, ..
        } => InstallError::Conflict { what, message },
        ClientError::Status {
            code: 403, message, ..
        } if message.contains("exceeded quota") => InstallError::Refused {
            what,
            message,
            fix: "ask whoever runs the cluster for a larger quota, or choose another namespace"
                .to_owned(),
        },
        ClientError::Status {
            code: 403 | 422,
            message,
            ..
        } => InstallError::Refused {
            what,
            message,
            fix: "`kdev install --dry-run` shows what was asked for".to_owned(),
        },
        other => other.into(),
    }
}
