//! What the user may do, asked beforehand or read from a refusal.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Client, ClientError};
use crate::dial::DialError;

/// How many questions are asked at once: a doctor's dozen, in two rounds.
const CONCURRENT: usize = 8;

/// One thing that a user may or may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The verb, for example `create`.
    pub verb: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The resource, for example `pods`.
    pub resource: String,
    /// The subresource, for example `portforward`; may be empty.
    pub subresource: String,
    /// The namespace; empty for all of them.
    pub namespace: String,
    /// The only object that it is about; empty for all of them.
    pub name: String,
}

impl Permission {
    /// A permission in the core group: `resource` may carry a subresource (`pods/portforward`).
    #[must_use]
    pub fn core(verb: &str, resource: &str, namespace: &str) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Self {
            verb: verb.to_owned(),
            group: String::new(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: String::new(),
        }
    }

    /// The same, about one object.
    #[must_use]
    pub fn of(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Resource and subresource, as RBAC writes them.
    #[must_use]
    pub fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// Permissions as the end of "not allowed to": verbs on one thing stand together.
#[must_use]
pub fn phrase<'a>(permissions: impl IntoIterator<Item = &'a Permission>) -> String {
    let mut all: Vec<(String, Vec<&str>)> = Vec::new();
    for permission in permissions {
        let Permission {
            verb, group, name, ..
        } = permission;
        let mut thing = permission.full_resource();
        if !group.is_empty() {
            thing = format!("{thing}.{group}");
        }
        if !name.is_empty() {
            thing = format!("{thing}/{name}");
        }
        match all.iter_mut().find(|(of, _)| *of == thing) {
            Some((_, verbs)) => verbs.push(verb),
            None => all.push((thing, vec![verb])),
        }
    }
    let texts = all
        .iter()
        .map(|(thing, verbs)| format!("{} {thing}", listed(verbs)));
    texts.collect::<Vec<_>>().join("; ")
}

/// `get`, `get and list`, `get, list and watch`.
fn listed(verbs: &[&str]) -> String {
    match verbs.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => String::new(),
    }
}

/// Those of `permissions` that the user lacks. One that the API server does not answer for is none of
/// them: it says so to the request itself.
pub async fn missing(client: &Client, permissions: Vec<Permission>) -> Vec<Permission> {
    let answers = review(client, permissions).await.into_iter().flatten();
    let denied = answers.filter(|verdict| !verdict.allowed);
    denied.map(|verdict| verdict.permission).collect()
}

/// The API server's verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What was asked.
    pub permission: Permission,
    /// Whether it is allowed.
    pub allowed: bool,
    /// The API server's reason; mostly empty.
    pub reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: &'static str,
    kind: &'static str,
    spec: ReviewSpec,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewSpec {
    resource_attributes: Attributes,
}

#[derive(Serialize)]
struct Attributes {
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

#[derive(Deserialize)]
struct Reviewed {
    #[serde(default)]
    status: ReviewStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    allowed: bool,
    reason: String,
}

/// Asks the API server about each of `permissions`, a few at a time; the answers are in order.
pub async fn review(
    client: &Client,
    permissions: Vec<Permission>,
) -> Vec<Result<Verdict, ClientError>> {
    futures_util::stream::iter(permissions)
        .map(|permission| review_one(client, permission))
        .buffered(CONCURRENT)
        .collect()
        .await
}

async fn review_one(client: &Client, permission: Permission) -> Result<Verdict, ClientError> {
    let asked = permission.clone();
    let review = Review {
        api_version: "authorization.k8s.io/v1",
        kind: "SelfSubjectAccessReview",
        spec: ReviewSpec {
            resource_attributes: Attributes {
                verb: permission.verb,
                group: permission.group,
                resource: permission.resource,
                subresource: permission.subresource,
                namespace: permission.namespace,
                name: permission.name,
            },
        },
    };
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer: Reviewed = client.post(path, &review).await?;
    Ok(Verdict {
        permission: asked,
        allowed: answer.status.allowed,
        reason: answer.status.reason,
    })
}

/// The names of objects for which rules with `resourceNames` allow `permission`, as far as the API
/// server tells: a webhook's rules it does not know.
///
/// # Errors
/// When the API server does not tell the rules.
pub async fn named(
    client: &Client,
    permission: &Permission,
) -> Result<BTreeSet<String>, ClientError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": permission.namespace},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer: Rules = client.post(path, &review).await?;
    let rules = answer.status.resource_rules.into_iter();
    let fit = rules.filter(|rule| rule.allows(permission));
    Ok(fit.flat_map(|rule| rule.resource_names).collect())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rules {
    status: RulesStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RulesStatus {
    resource_rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Rule {
    fn allows(&self, permission: &Permission) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|it| it == "*" || it == value);
        // `*/scale` means that subresource of everything.
        let of_any = format!("*/{}", permission.subresource);
        has(&self.verbs, &permission.verb)
            && has(&self.api_groups, &permission.group)
            && (has(&self.resources, &permission.full_resource())
                || self.resources.contains(&of_any))
    }
}

/// The error for a 403 with the API server's `message`, which names what is missing; `verb` and
/// `resource` are what was asked for, where it does not.
#[must_use]
pub fn denied(message: &str, verb: &str, resource: &str, namespace: &str) -> DialError {
    let (verb, resource, namespace) = parse(message)
        .unwrap_or_else(|| (verb.to_owned(), resource.to_owned(), namespace.to_owned()));
    DialError::Denied {
        verb,
        resource,
        namespace,
        message: message.to_owned(),
    }
}

/// Whether a 403 with `message` says neither what is missing nor why: an API server's own check
/// behind the authorizer's, such as that for `create` on a port-forward by GET (1.35 and later).
#[must_use]
pub fn is_unexplained(message: &str) -> bool {
    message.trim_end().ends_with(" is forbidden:")
}

/// Reads `… cannot VERB resource "RESOURCE" in API group "GROUP" in the namespace "NAMESPACE"`.
fn parse(message: &str) -> Option<(String, String, String)> {
    let (_, rest) = message.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let quoted = |after: &str| {
        let (_, rest) = rest.split_once(after)?;
        rest.split_once('"').map(|(text, _)| text)
    };
    let group = quoted("API group \"").unwrap_or_default();
    let namespace = quoted("namespace \"").unwrap_or_default();
    let resource = if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    };
    Some((verb.to_owned(), resource, namespace.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_on_the_same_thing_stand_together() {
        let core = |verb, resource| Permission::core(verb, resource, "shop");
        let mut deployment = core("get", "deployments").of("kdev-relay");
        "apps".clone_into(&mut deployment.group);
        let all = [
            core("get", "pods/portforward"),
            deployment,
            core("create", "pods/portforward"),
        ];
        assert_eq!(
            phrase(&all),
            "get and create pods/portforward; get deployments.apps/kdev-relay"
        );
    }

    #[test]
    fn refusals_name_the_missing_verb() {
        let message = "pods \"web-0\" is forbidden: User \"system:serviceaccount:shop:dev\" \
                       cannot create resource \"pods/portforward\" in API group \"\" in the \
                       namespace \"shop\"";
        let DialError::Denied {
            verb,
            resource,
            namespace,
            ..
        } = denied(message, "get", "pods/portforward", "other")
        else {
            panic!();
        };
        assert_eq!(
            (&*verb, &*resource, &*namespace),
            ("create", "pods/portforward", "shop")
        );
        let grouped = "x is forbidden: User \"u\" cannot list resource \"endpointslices\" in API \
                       group \"discovery.k8s.io\" in the namespace \"shop\"";
        assert_eq!(parse(grouped).unwrap().1, "endpointslices.discovery.k8s.io");
        let DialError::Denied { verb, .. } = denied("no", "get", "pods", "shop") else {
            panic!();
        };
        assert_eq!(verb, "get", "a webhook's own words name nothing");
    }
}
