//! What the user may do: each right by its verb and resource, asked of the API server.

use std::time::Duration;

use tokio::time::Instant;

use super::check::Check;
use super::within;
use crate::k8s::access::{self, Permission, Verdict};
use crate::k8s::identity::Identity;
use crate::k8s::{Client, ClientError, discovery};

/// How long the dozen questions may take, eight at a time.
const LIMIT: Duration = Duration::from_secs(5);

/// A right and what it is for.
struct Right {
    permission: Permission,
    needed: bool,
    /// What goes without it, as the end of a sentence.
    without: &'static str,
}

/// What was found about rights.
pub(super) struct Found {
    pub(super) checks: Vec<Check>,
    /// The Role to ask for, where one that is needed is missing.
    pub(super) role: Option<String>,
}

pub(super) fn skipped(why: &str) -> Check {
    Check::skipped("permissions", "permissions", why).needed()
}

/// Asks for each right in the client's namespace.
pub(super) async fn checks(client: &Client, identity: Option<&Identity>, until: Instant) -> Found {
    let asked = within(LIMIT, until, async {
        let slices = discovery::has_slices(client).await.unwrap_or(true);
        let rights = rights(client.namespace(), slices);
        let everywhere = everywhere();
        let questions = rights.iter().map(|r| r.permission.clone());
        let questions = questions.chain(everywhere).collect();
        (rights, access::review(client, questions).await)
    });
    let Ok((rights, mut answers)) = asked.await else {
        let why = format!("the API server did not answer within {} s", LIMIT.as_secs());
        let check = Check::warn("permissions", "permissions", why).needed();
        return Found {
            checks: vec![check.fix("try again; the other checks say how slow the way is")],
            role: None,
        };
    };
    let cluster_wide = answers.split_off(rights.len());
    let mut missing = false;
    let mut checks: Vec<Check> = rights
        .iter()
        .zip(&answers)
        .map(|(right, answer)| {
            missing |= right.needed && matches!(answer, Ok(verdict) if !verdict.allowed);
            judge(right, answer)
        })
        .collect();
    checks.push(judge_everywhere(&cluster_wide));
    let subject = subject(identity);
    Found {
        checks,
        role: missing.then(|| role(client.namespace(), &subject)),
    }
}

fn rights(namespace: &str, slices: bool) -> Vec<Right> {
    let right = |needed, verb, resource, without| Right {
        permission: Permission::core(verb, resource, namespace),
        needed,
        without,
    };
    let mut all = vec![
        right(
            true,
            "get",
            "pods",
            "addresses and names of single pods mean nothing where they cannot be watched",
        ),
        right(true, "list", "pods", "kdev finds no pod behind a Service"),
        right(
            true,
            "get",
            "services",
            "names mean nothing where Services cannot be watched",
        ),
        right(
            true,
            "list",
            "services",
            "kdev knows only Services that it is asked for by name",
        ),
        right(
            true,
            "get",
            "pods/portforward",
            "servers may refuse port-forward in a WebSocket, which is asked for by GET",
        ),
        right(
            true,
            "create",
            "pods/portforward",
            "no port-forward by POST, and none at all on servers from 1.35 on",
        ),
        right(
            false,
            "watch",
            "pods",
            "kdev asks again for each name, every few seconds while it is used",
        ),
        right(
            false,
            "watch",
            "services",
            "kdev asks again for each name, every few seconds while it is used",
        ),
    ];
    let mut written = right(
        false,
        if slices { "list" } else { "get" },
        if slices {
            "endpointslices"
        } else {
            "endpoints"
        },
        "Services without a selector cannot be reached",
    );
    if slices {
        "discovery.k8s.io".clone_into(&mut written.permission.group);
    }
    all.push(written);
    all
}

/// What lets kdev see all namespaces at once.
fn everywhere() -> Vec<Permission> {
    let pairs = ["list", "watch"].map(|v| ["pods", "services"].map(|r| (v, r)));
    let all = pairs.as_flattened().iter();
    all.map(|(verb, resource)| Permission::core(verb, resource, ""))
        .collect()
}

fn named(permission: &Permission) -> String {
    let resource = permission.full_resource();
    if permission.group.is_empty() {
        resource
    } else {
        format!("{resource}.{}", permission.group)
    }
}

fn judge(right: &Right, answer: &Result<Verdict, ClientError>) -> Check {
    let Permission {
        verb,
        group,
        namespace,
        ..
    } = &right.permission;
    let resource = named(&right.permission);
    let id = format!("permission.{verb}.{}", right.permission.full_resource());
    let title = format!("{verb} {resource} in {namespace}");
    let check = match answer {
        Ok(verdict) if verdict.allowed => Check::ok(&id, &title, "allowed"),
        Ok(verdict) => {
            let reason = match verdict.reason.as_str() {
                "" => String::new(),
                reason => format!(" ({reason})"),
            };
            let detail = format!("not allowed{reason}: {}", right.without);
            let check = if right.needed {
                Check::fail(&id, &title, detail)
            } else {
                Check::warn(&id, &title, detail)
            };
            let bare = right.permission.full_resource();
            check.fix(format!(
                "ask whoever runs the cluster for this rule in a Role of {namespace}: \
                 {{apiGroups: [{group:?}], resources: [{bare:?}], verbs: [{verb:?}]}}"
            ))
        }
        Err(error) => Check::warn(&id, &title, format!("could not be asked: {error}")),
    };
    if right.needed { check.needed() } else { check }
}

/// Nothing that anybody needs: it is only said what there is.
fn judge_everywhere(answers: &[Result<Verdict, ClientError>]) -> Check {
    let missing: Vec<String> = answers
        .iter()
        .filter_map(|answer| match answer {
            Ok(verdict) if verdict.allowed => None,
            Ok(verdict) => Some(&verdict.permission),
            Err(_) => None,
        })
        .map(|p| format!("{} {}", p.verb, named(p)))
        .collect();
    let unknown = answers.iter().any(Result::is_err);
    let detail = if unknown {
        "could not be asked".to_owned()
    } else if missing.is_empty() {
        "allowed: kdev knows the names and addresses of all namespaces at once".to_owned()
    } else {
        format!(
            "not allowed and not needed: kdev asks for other namespaces as they are named \
             (missing: {})",
            missing.join(", ")
        )
    };
    let title = "list and watch pods and services in all namespaces";
    Check::ok("permission.cluster-wide", title, detail)
}

/// Who the Role is bound to, as YAML.
fn subject(identity: Option<&Identity>) -> String {
    let name = identity.map_or("YOUR-USER-NAME", |i| &i.username);
    let account = name.strip_prefix("system:serviceaccount:");
    match account.and_then(|rest| rest.split_once(':')) {
        Some((namespace, name)) => {
            format!("{{kind: ServiceAccount, namespace: {namespace:?}, name: {name:?}}}")
        }
        None => format!("{{kind: User, apiGroup: rbac.authorization.k8s.io, name: {name:?}}}"),
    }
}

/// All that kdev needs or makes use of, in one namespace.
fn role(namespace: &str, subject: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: kdev, namespace: {namespace}}}
rules:
- {{apiGroups: [\"\"], resources: [pods, services], verbs: [get, list, watch]}}
- {{apiGroups: [\"\"], resources: [pods/portforward], verbs: [get, create]}}
- {{apiGroups: [\"\"], resources: [endpoints], verbs: [get]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: kdev, namespace: {namespace}}}
subjects: [{subject}]
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: kdev}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_bound_as_one() {
        let identity = |name: &str| Identity {
            username: name.to_owned(),
            groups: Vec::new(),
        };
        let bound = subject(Some(&identity("system:serviceaccount:shop:dev")));
        assert_eq!(
            bound,
            r#"{kind: ServiceAccount, namespace: "shop", name: "dev"}"#
        );
        assert!(subject(Some(&identity("me@example.com"))).contains("kind: User"));
    }

    #[test]
    fn old_servers_are_asked_for_endpoints() {
        let last = |slices| named(&rights("shop", slices).pop().unwrap().permission);
        assert_eq!(last(true), "endpointslices.discovery.k8s.io");
        assert_eq!(last(false), "endpoints");
    }
}
