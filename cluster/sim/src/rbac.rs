//! Who a token is and what it may do.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// One allowance: these verbs on these resources, in one namespace or everywhere.
#[derive(Clone, Debug)]
pub struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    namespace: Option<String>,
}

impl Rule {
    /// Allows `verbs` on `resources` (`pods`, `pods/portforward`, `*`) in every namespace and
    /// API group.
    #[must_use]
    pub fn new(verbs: &[&str], resources: &[&str]) -> Self {
        Self {
            verbs: owned(verbs),
            groups: vec!["*".into()],
            resources: owned(resources),
            names: Vec::new(),
            namespace: None,
        }
    }

    /// Limits the rule to one namespace, as a RoleBinding does.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Limits the rule to API groups (the core group is the empty string).
    #[must_use]
    pub fn groups(mut self, groups: &[&str]) -> Self {
        self.groups = owned(groups);
        self
    }

    /// Limits the rule to objects of these names.
    #[must_use]
    pub fn names(mut self, names: &[&str]) -> Self {
        self.names = owned(names);
        self
    }

    /// What the built-in `edit` role means for kdev, in one namespace.
    #[must_use]
    pub fn edit(namespace: &str) -> Vec<Self> {
        let write = [
            "get", "list", "watch", "create", "update", "patch", "delete",
        ];
        vec![
            Self::new(&write, &["pods", "services", "configmaps", "secrets"]).namespace(namespace),
            Self::new(&write, &["pods/portforward", "pods/exec"]).namespace(namespace),
            Self::new(
                &write,
                &[
                    "deployments",
                    "replicasets",
                    "poddisruptionbudgets",
                    "networkpolicies",
                ],
            )
            .namespace(namespace),
            Self::new(&READ, &["endpoints", "endpointslices", "namespaces"]).namespace(namespace),
            Self::new(&READ, &["events", "limitranges", "resourcequotas"]).namespace(namespace),
        ]
    }

    /// What the built-in `view` role means for kdev: everything but the streams.
    #[must_use]
    pub fn view(namespace: &str) -> Vec<Self> {
        let resources = [
            "pods",
            "services",
            "configmaps",
            "endpoints",
            "endpointslices",
            "networkpolicies",
        ];
        vec![
            Self::new(&READ, &resources).namespace(namespace),
            Self::new(&READ, &["namespaces"]).namespace(namespace),
        ]
    }

    fn allows(&self, ask: &Ask) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|v| v == "*" || v == value);
        has(&self.verbs, &ask.verb)
            && has(&self.groups, &ask.group)
            && has(&self.resources, &ask.full_resource())
            && (self.names.is_empty() || self.names.contains(&ask.name))
            && self
                .namespace
                .as_ref()
                .is_none_or(|ns| *ns == ask.namespace)
    }

    fn object(&self) -> Value {
        let mut rule = json!({
            "verbs": self.verbs,
            "apiGroups": self.groups,
            "resources": self.resources,
        });
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }
}

const READ: [&str; 3] = ["get", "list", "watch"];

/// Somebody with a bearer token.
#[derive(Clone, Debug)]
pub struct User {
    name: String,
    token: String,
    groups: Vec<String>,
    rules: Vec<Rule>,
}

impl User {
    /// A user without any right; the token is `NAME-token` until [`User::token`] says otherwise.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            token: format!("{name}-token"),
            groups: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Sets the bearer token.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = token.to_owned();
        self
    }

    /// Adds a group, for display and impersonation.
    #[must_use]
    pub fn group(mut self, group: &str) -> Self {
        self.groups.push(group.to_owned());
        self
    }

    /// Adds a right.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Adds several rights.
    #[must_use]
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }
}

/// What a request wants to do, in the authorizer's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Ask {
    pub(crate) fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// Who a request comes from, after impersonation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

impl Identity {
    pub(crate) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
        }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == "system:anonymous"
    }
}

/// The users, and the tokens that still stand for them.
#[derive(Default)]
pub(crate) struct Rbac {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    users: HashMap<String, User>,
    tokens: HashMap<String, String>,
    certificates: HashMap<Vec<u8>, String>,
}

impl Rbac {
    pub(crate) fn add(&self, user: User) {
        let mut inner = self.lock();
        inner.tokens.insert(user.token.clone(), user.name.clone());
        inner.users.insert(user.name.clone(), user);
    }

    pub(crate) fn set_rules(&self, name: &str, rules: Vec<Rule>) {
        if let Some(user) = self.lock().users.get_mut(name) {
            user.rules = rules;
        }
    }

    pub(crate) fn revoke(&self, token: &str) {
        self.lock().tokens.remove(token);
    }

    pub(crate) fn token_of(&self, name: &str) -> Option<String> {
        self.lock().users.get(name).map(|user| user.token.clone())
    }

    pub(crate) fn identify(&self, token: &str) -> Option<Identity> {
        let inner = self.lock();
        let name = inner.tokens.get(token)?;
        Some(inner.identity(name, None))
    }

    pub(crate) fn add_certificate(&self, der: Vec<u8>, name: &str) {
        self.lock().certificates.insert(der, name.to_owned());
    }

    /// Whose certificate this is; any other that the authority signed is nobody's.
    pub(crate) fn certified(&self, der: &[u8]) -> Option<Identity> {
        let inner = self.lock();
        let name = inner.certificates.get(der)?;
        Some(inner.identity(name, None))
    }

    /// The identity that an allowed impersonation gives.
    pub(crate) fn impersonated(&self, name: &str, groups: Vec<String>) -> Identity {
        self.lock()
            .identity(name, (!groups.is_empty()).then_some(groups))
    }

    pub(crate) fn allows(&self, who: &Identity, ask: &Ask) -> bool {
        let reviews = [
            "selfsubjectaccessreviews",
            "selfsubjectrulesreviews",
            "selfsubjectreviews",
        ];
        let asks_itself = ["authorization.k8s.io", "authentication.k8s.io"]
            .contains(&ask.group.as_str())
            && ask.verb == "create"
            && reviews.contains(&ask.resource.as_str());
        if asks_itself && !who.is_anonymous() {
            return true;
        }
        let inner = self.lock();
        inner
            .users
            .get(&who.name)
            .is_some_and(|user| user.rules.iter().any(|r| r.allows(ask)))
    }

    /// Whether a user may do everything, paths outside of resources included.
    pub(crate) fn is_admin(&self, who: &Identity) -> bool {
        let everything = |rule: &Rule| {
            let any = |list: &[String]| list.iter().any(|item| item == "*");
            any(&rule.verbs) && any(&rule.resources) && rule.namespace.is_none()
        };
        self.lock()
            .users
            .get(&who.name)
            .is_some_and(|user| user.rules.iter().any(everything))
    }

    /// The rules that hold in a namespace, as a SelfSubjectRulesReview lists them.
    pub(crate) fn rules_in(&self, who: &Identity, namespace: &str) -> Vec<Value> {
        let inner = self.lock();
        let rules = inner
            .users
            .get(&who.name)
            .map_or(&[][..], |user| &user.rules);
        let holds = |rule: &&Rule| rule.namespace.as_ref().is_none_or(|ns| ns == namespace);
        rules.iter().filter(holds).map(Rule::object).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn identity(&self, name: &str, groups: Option<Vec<String>>) -> Identity {
        let own = || {
            self.users
                .get(name)
                .map(|user| user.groups.clone())
                .unwrap_or_default()
        };
        let mut groups = groups.unwrap_or_else(own);
        groups.push("system:authenticated".into());
        Identity {
            name: name.to_owned(),
            groups,
        }
    }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|&item| item.to_owned()).collect()
}
