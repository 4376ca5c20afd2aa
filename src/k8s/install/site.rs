//! The namespace that the relay goes into: what is there already, what may be done, and what the
//! cluster is like.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

pub use super::error::InstallError;
use super::manifest::Manifest;
use super::netpolicy::POLICIES;
use super::settings::Settings;
use super::shape;
use super::{INTERCEPT_SECRET, MANAGER, MANAGER_LABEL, NAME, NAME_LABEL, VERSION_ANNOTATION};
use crate::k8s::access::{self, Permission};
use crate::k8s::{Client, ClientError};

/// Keys of selectors whose values change with each version of what they select.
pub const HASH_KEYS: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];
/// Labels that the relay's pods get for selectors: many times what is usual, since nearly all of a
/// namespace's Services select by the same keys.
const MOST_KEYS: usize = 64;

/// A kind of object.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its `apiVersion`.
    pub api: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    /// Its `kind`.
    pub kind: &'static str,
}

/// Where the secrets are.
pub static SECRETS: Kind = Kind::new("v1", "secrets", "Secret");
/// Where the program is.
pub static CONFIG_MAPS: Kind = Kind::new("v1", "configmaps", "ConfigMap");
/// What runs the pods.
pub static DEPLOYMENTS: Kind = Kind::new("apps/v1", "deployments", "Deployment");
/// What a Deployment makes of itself.
pub static REPLICA_SETS: Kind = Kind::new("apps/v1", "replicasets", "ReplicaSet");
/// The pods.
pub static PODS: Kind = Kind::new("v1", "pods", "Pod");
/// What keeps one of them.
pub static BUDGETS: Kind = Kind::new("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget");
/// The same on servers before 1.21.
pub static BUDGETS_BETA: Kind = Kind::new("policy/v1beta1", BUDGETS.plural, BUDGETS.kind);

impl Kind {
    const fn new(api: &'static str, plural: &'static str, kind: &'static str) -> Self {
        Self { api, plural, kind }
    }

    fn group(&self) -> &'static str {
        self.api.split_once('/').map_or("", |(group, _)| group)
    }

    /// Its path in a namespace; with a name, that object's.
    #[must_use]
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let root = if self.group().is_empty() {
            "api"
        } else {
            "apis"
        };
        let (api, plural) = (self.api, self.plural);
        let slash = if name.is_empty() { "" } else { "/" };
        format!("/{root}/{api}/namespaces/{namespace}/{plural}{slash}{name}")
    }

    /// The path of those that are the relay's.
    #[must_use]
    pub fn own(&self, namespace: &str) -> String {
        let path = self.path(namespace, "");
        format!("{path}?labelSelector={NAME_LABEL}%3D{NAME},{MANAGER_LABEL}%3D{MANAGER}")
    }

    /// The permission to do `verb` with it in a namespace.
    #[must_use]
    pub fn permission(&self, verb: &str, namespace: &str) -> Permission {
        Permission {
            verb: verb.to_owned(),
            group: self.group().to_owned(),
            resource: self.plural.to_owned(),
            subresource: String::new(),
            namespace: namespace.to_owned(),
            name: String::new(),
        }
    }
}

/// The namespace, and a way to it.
#[derive(Clone, Debug)]
pub struct Site {
    /// The cluster.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

/// What is in the namespace, and what the cluster is like.
#[derive(Clone, Debug)]
pub struct Found {
    /// The Deployment.
    pub deployment: Option<Value>,
    /// Both Secrets, in their order of names.
    pub secrets: [Option<Value>; 2],
    /// The PodDisruptionBudget.
    pub budget: Option<Value>,
    /// What kdev's ConfigMaps carry, without what is in them.
    pub parts: Vec<Value>,
    /// PodDisruptionBudgets, in the version that the server has.
    pub budgets: &'static Kind,
    /// Whether the cluster gives each namespace a user of its own (OpenShift).
    pub assigns_user: bool,
    /// ResourceQuotas, as far as they may be seen.
    pub quotas: Vec<Value>,
    /// LimitRanges, as far as they may be seen.
    pub ranges: Vec<Value>,
    /// Services, as far as they may be seen.
    pub services: Vec<Value>,
    /// NetworkPolicies, as far as they may be seen.
    pub policies: Vec<Value>,
}

#[derive(Deserialize)]
struct List {
    /// Null where there are none, on some servers.
    items: Option<Vec<Value>>,
}

impl Site {
    /// Fails where one of `permissions` is missing, naming each that is.
    ///
    /// # Errors
    /// What is missing.
    pub async fn permit(&self, permissions: Vec<Permission>) -> Result<(), InstallError> {
        let missing = access::missing(&self.client, permissions).await;
        if missing.is_empty() {
            return Ok(());
        }
        Err(InstallError::Denied {
            what: access::phrase(&missing),
            namespace: self.namespace.clone(),
        })
    }

    /// Looks at what is there.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn look(&self) -> Result<Found, InstallError> {
        let budgets = self.budgets().await?;
        let (deployment, forward, intercept, budget, parts, assigns_user, quotas, ranges, services) =
            tokio::try_join!(
                self.object(&DEPLOYMENTS, NAME),
                self.object(&SECRETS, NAME),
                self.object(&SECRETS, INTERCEPT_SECRET),
                self.object(budgets, NAME),
                self.own_marks(&CONFIG_MAPS),
                self.has_group("security.openshift.io"),
                self.visible("resourcequotas"),
                self.visible("limitranges"),
                self.visible("services"),
            )?;
        let policies = self.visible_at(&POLICIES.path(&self.namespace, "")).await?;
        Ok(Found {
            deployment,
            secrets: [forward, intercept],
            budget,
            parts,
            budgets,
            assigns_user,
            quotas,
            ranges,
            services,
            policies,
        })
    }

    /// PodDisruptionBudgets, in the version that the server has.
    pub(super) async fn budgets(&self) -> Result<&'static Kind, ClientError> {
        #[derive(Deserialize)]
        struct Group {
            versions: Vec<Version>,
        }
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        match self.client.get::<Group>("/apis/policy").await {
            Ok(group) if group.versions.iter().any(|v| v.version == "v1") => Ok(&BUDGETS),
            Ok(_) => Ok(&BUDGETS_BETA),
            Err(error) if matches!(error.code(), Some(403 | 404)) => Ok(&BUDGETS),
            Err(error) => Err(error),
        }
    }

    async fn has_group(&self, group: &str) -> Result<bool, ClientError> {
        match self.client.get::<Value>(&format!("/apis/{group}")).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.code(), Some(403 | 404)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All of a core resource, or none of it where the user may not look: what it demands then
    /// shows when the pods are made.
    async fn visible(&self, plural: &str) -> Result<Vec<Value>, ClientError> {
        self.visible_at(&format!("/api/v1/namespaces/{}/{plural}", self.namespace))
            .await
    }

    async fn visible_at(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        match self.client.get::<List>(path).await {
            Ok(list) => Ok(list.items.unwrap_or_default()),
            Err(error) if matches!(error.code(), Some(403 | 404)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// One object, where it exists.
    pub(super) async fn object(
        &self,
        kind: &Kind,
        name: &str,
    ) -> Result<Option<Value>, ClientError> {
        match self.client.get(&kind.path(&self.namespace, name)).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What carries the relay's labels.
    pub(super) async fn own(&self, kind: &Kind) -> Result<Vec<Value>, ClientError> {
        let list: List = self.client.get(&kind.own(&self.namespace)).await?;
        Ok(list.items.unwrap_or_default())
    }

    /// The metadata of what carries the relay's labels, without what is in it.
    pub(super) async fn own_marks(&self, kind: &Kind) -> Result<Vec<Value>, ClientError> {
        let list: List = self.client.metadata(&kind.own(&self.namespace)).await?;
        Ok(list.items.unwrap_or_default())
    }

    /// The names of what carries the relay's labels.
    pub(super) async fn own_names(&self, kind: &Kind) -> Result<Vec<String>, ClientError> {
        let items = self.own_marks(kind).await?;
        Ok(items.iter().map(|item| name_of(item).to_owned()).collect())
    }
}

impl Found {
    /// Refuses where an object of the relay's names is not kdev's.
    ///
    /// # Errors
    /// Which, and whose.
    pub fn check_owner(&self, namespace: &str) -> Result<(), InstallError> {
        let [forward, intercept] = &self.secrets;
        let all = [
            (DEPLOYMENTS.kind, &self.deployment),
            (SECRETS.kind, forward),
            (SECRETS.kind, intercept),
            (BUDGETS.kind, &self.budget),
        ];
        let foreign: Vec<(&str, &Value)> = all
            .into_iter()
            .filter_map(|(kind, object)| Some((kind, object.as_ref()?)))
            .filter(|(_, object)| !is_own(object))
            .collect();
        let Some((_, first)) = foreign.first() else {
            return Ok(());
        };
        let by = match label(first, MANAGER_LABEL) {
            "" => "was not made by kdev".to_owned(),
            other => format!("is managed by {other}, not by kdev"),
        };
        let names = foreign
            .iter()
            .map(|(kind, object)| format!("{kind} {}", name_of(object)));
        Err(InstallError::Foreign {
            what: names.collect::<Vec<_>>().join(", "),
            namespace: namespace.to_owned(),
            by,
        })
    }

    /// Keys for which the relay's pods are to carry a label: those of the namespace's selectors, so
    /// that an intercept need not replace the pods, and those that they have for earlier ones.
    /// Selectors that follow each version of something are never intercepted.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<String> {
        let selectors = self
            .services
            .iter()
            .map(|service| &service["spec"]["selector"]);
        let keys = selectors.filter_map(Value::as_object).flatten();
        let keys = keys.map(|(key, _)| key);
        let deployment = self.deployment.as_ref();
        let labels = deployment.map(|d| &d["spec"]["template"]["metadata"]["labels"]);
        let labels = labels.and_then(Value::as_object).into_iter().flatten();
        let kept = labels
            .filter(|(_, value)| *value == NAME)
            .map(|(key, _)| key);
        let all = keys
            .chain(kept)
            .filter(|key| !HASH_KEYS.contains(&key.as_str()));
        all.take(MOST_KEYS).cloned().collect()
    }

    /// The Secret or the ConfigMap of this name, where it is there.
    pub(super) fn kept(&self, kind: &Kind, name: &str) -> Option<&Value> {
        let named = |object: &&Value| name_of(object) == name;
        match *kind == SECRETS {
            true => self.secrets.iter().flatten().find(named),
            false => self.parts.iter().find(named),
        }
    }

    /// Those among `objects` that are not there.
    pub fn new_among<'a>(&self, objects: &'a [Value]) -> impl Iterator<Item = &'a Value> {
        objects.iter().filter(|object| {
            let kind = object["kind"].as_str().unwrap_or_default();
            match kind {
                _ if kind == DEPLOYMENTS.kind => self.deployment.is_none(),
                _ if kind == SECRETS.kind => self.kept(&SECRETS, name_of(object)).is_none(),
                _ if kind == CONFIG_MAPS.kind => self.kept(&CONFIG_MAPS, name_of(object)).is_none(),
                _ => self.budget.is_none(),
            }
        })
    }

    /// How many pods come at most on top of those that are there, when the Deployment is as `next`.
    #[must_use]
    pub fn more_pods(&self, next: Option<&Value>) -> u64 {
        let Some(next) = next else { return 0 };
        let number = |at: &Value| at.as_u64().unwrap_or_default();
        let wanted = number(&next["spec"]["replicas"]);
        let Some(now) = &self.deployment else {
            return wanted;
        };
        let there = number(&now["status"]["replicas"]);
        let rolls = there > 0 && now["spec"]["template"] != next["spec"]["template"];
        // One new pod comes before an old one goes.
        wanted.saturating_sub(there) + u64::from(rolls)
    }

    /// The Service that would select the relay's pods because of labels that the user chose.
    #[must_use]
    pub fn taken_in(&self, manifest: &Manifest) -> Option<&str> {
        let deployment = manifest.deployment();
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        shape::selected_by(&self.services, labels, &manifest.settings.shape.labels)
    }

    /// What the user chose at an earlier install.
    #[must_use]
    pub fn settings(&self) -> Option<Settings> {
        self.deployment.as_ref().map(Settings::of)
    }

    /// The version of the relay that is installed.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.deployment.as_ref()?["metadata"]["annotations"][VERSION_ANNOTATION].as_str()
    }
}

/// Whether an object carries kdev's labels.
pub(super) fn is_own(object: &Value) -> bool {
    label(object, MANAGER_LABEL) == MANAGER && label(object, NAME_LABEL) == NAME
}

fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"]["labels"][name]
        .as_str()
        .unwrap_or_default()
}

/// An object's name.
pub(super) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
