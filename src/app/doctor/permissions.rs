//! What the user may do: each right by its verb and resource, asked of the API server.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::check::Check;
use super::role::{role, subject};
use super::within;
use crate::k8s::access::{self, Permission, Verdict};
use crate::k8s::discovery::{self, refuses_impersonation};
use crate::k8s::identity::Identity;
use crate::k8s::portforward::named_pods;
use crate::k8s::{Client, ClientError};

/// How long the dozen questions may take, eight at a time.
const LIMIT: Duration = Duration::from_secs(5);
/// Names of pods that are shown of a rule.
const SHOWN_PODS: usize = 5;

/// A right and what it is for.
struct Right {
    permission: Permission,
    needed: bool,
    /// What goes without it, as the end of a sentence.
    without: &'static str,
    /// Verbs on the same resource that make up for it, where all of them are allowed.
    instead: &'static [&'static str],
}

/// The first server that asks for `create` on port-forward whatever the method.
const CREATE_ALONE: u32 = 35;

/// What was asked about rights, and answered.
pub(super) struct Asked(Option<Answers>);

struct Answers {
    rights: Vec<(Right, Answer)>,
    cluster_wide: Vec<Answer>,
    /// The only pods that may be forwarded to, where a rule names them.
    pods: BTreeSet<String>,
}

type Answer = Result<Verdict, ClientError>;

/// What was found about rights.
pub(super) struct Found {
    pub(super) checks: Vec<Check>,
    /// What is needed and missing.
    pub(super) missing: Vec<Permission>,
    /// The Role to ask for, where something is.
    pub(super) role: Option<String>,
}

/// What the ids of checks of single rights begin with.
pub(super) const PREFIX: &str = "permission.";

pub(super) fn skipped(why: &str) -> Check {
    Check::skipped("permissions", "permissions", why).needed()
}

/// Asks for each right in the client's namespace.
pub(super) async fn ask(client: &Client, until: Instant) -> Asked {
    let namespace = client.namespace();
    let asked = within(LIMIT, until, async {
        let slices = discovery::has_slices(client).await.ok().flatten();
        let rights = rights(namespace, slices.unwrap_or(true));
        let everywhere = everywhere();
        let questions = rights.iter().map(|r| r.permission.clone());
        let questions = questions.chain(everywhere).collect();
        let mut answers = access::review(client, questions).await;
        let cluster_wide = answers.split_off(rights.len());
        let rights: Vec<_> = rights.into_iter().zip(answers).collect();
        let denied = |(right, answer): &(Right, Answer)| is_forward(right) && is_denied(answer);
        let pods = match rights.iter().any(denied) {
            true => named_pods(client, namespace).await,
            false => BTreeSet::new(),
        };
        Answers {
            rights,
            cluster_wide,
            pods,
        }
    });
    Asked(asked.await.ok())
}

impl Asked {
    /// Judges each right, by what the server needs and whether port-forward works.
    pub(super) fn judge(
        self,
        client: &Client,
        identity: Option<&Identity>,
        minor: Option<u32>,
        forwards: Option<bool>,
    ) -> Found {
        let Some(answers) = self.0 else {
            let why = format!("the API server did not answer within {} s", LIMIT.as_secs());
            let check = Check::warn("permissions", "permissions", why).needed();
            return Found {
                checks: vec![check.fix("try again; the other checks say how slow the way is")],
                missing: Vec::new(),
                role: None,
            };
        };
        let mut checks: Vec<Check> = unanswered(&answers.rights).into_iter().collect();
        let known = answers.rights.iter();
        let mut missing = Vec::new();
        checks.extend(known.filter_map(|(right, answer)| {
            let verdict = answer.as_ref().ok()?;
            let made_up = answers.made_up(right, minor, forwards);
            let check = judge(right, verdict, made_up, &answers.pods);
            if check.is_fatal() {
                missing.push(right.permission.clone());
            }
            Some(check)
        }));
        checks.extend(judge_everywhere(&answers.cluster_wide));
        let subject = subject(identity, &client.about().user);
        let role = (!missing.is_empty()).then(|| role(client.namespace(), &subject));
        Found {
            checks,
            missing,
            role,
        }
    }
}

impl Answers {
    fn allows(&self, resource: &str, verb: &str) -> bool {
        self.rights.iter().any(|(right, answer)| {
            right.permission.full_resource() == resource
                && right.permission.verb == verb
                && answer.as_ref().is_ok_and(|verdict| verdict.allowed)
        })
    }

    /// Whether kdev does without `right`, by others or as was seen.
    fn made_up(&self, right: &Right, minor: Option<u32>, forwards: Option<bool>) -> bool {
        let resource = right.permission.full_resource();
        let all = |verbs: &[&str]| {
            !verbs.is_empty() && verbs.iter().all(|verb| self.allows(&resource, verb))
        };
        let old = minor.is_some_and(|minor| minor < CREATE_ALONE);
        all(right.instead)
            || is_forward(right)
                && (forwards == Some(true) || old && (all(&["get"]) || all(&["create"])))
    }
}

fn is_forward(right: &Right) -> bool {
    right.permission.subresource == "portforward"
}

fn is_denied(answer: &Answer) -> bool {
    answer.as_ref().is_ok_and(|verdict| !verdict.allowed)
}

/// The rights that could not be asked about: most often all of them, for one reason.
fn unanswered(rights: &[(Right, Answer)]) -> Option<Check> {
    let failed = || rights.iter().filter(|(_, answer)| answer.is_err());
    let error = failed().find_map(|(_, answer)| answer.as_ref().err())?;
    let which = match failed().count() == rights.len() {
        true => String::new(),
        false => {
            let names = failed().map(|(right, _)| {
                format!("{} {}", right.permission.verb, named(&right.permission))
            });
            format!("{} ", names.collect::<Vec<_>>().join(", "))
        }
    };
    let detail = format!("{which}could not be asked about: {error}");
    let check = Check::warn("permissions", "permissions", detail).needed();
    Some(check.fix(match error {
        error if refuses_impersonation(error) => {
            "the other checks say what works; to see each right, ask for the verb \
             impersonate-on:user-info:create on selfsubjectaccessreviews.authorization.k8s.io"
        }
        ClientError::Busy { .. } => "try again later; the other checks say what works",
        _ => "the other checks say what works",
    }))
}

fn rights(namespace: &str, slices: bool) -> Vec<Right> {
    let right = |needed, verb, resource, without| Right {
        permission: Permission::core(verb, resource, namespace),
        needed,
        without,
        instead: match (verb, resource) {
            ("get", "pods") => &["list", "watch"],
            ("get", "services") => &["list"],
            ("list", "services") => &["get"],
            ("get", "pods/portforward") => &["create"],
            _ => &[],
        },
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
            "no port-forward in a WebSocket, which is asked for by GET and passes more proxies",
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

fn judge(right: &Right, verdict: &Verdict, made_up: bool, pods: &BTreeSet<String>) -> Check {
    let Permission {
        verb,
        group,
        namespace,
        ..
    } = &right.permission;
    let resource = named(&right.permission);
    let bare = right.permission.full_resource();
    let id = format!("{PREFIX}{verb}.{bare}");
    let title = format!("{verb} {resource} in {namespace}");
    if verdict.allowed {
        let check = Check::ok(&id, &title, "allowed");
        return if right.needed { check.needed() } else { check };
    }
    let reason = match verdict.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    let rule = format!(
        "ask whoever runs the cluster for this rule in a Role of {namespace}: \
         {{apiGroups: [{group:?}], resources: [{bare:?}], verbs: [{verb:?}]}}"
    );
    if is_forward(right) && !pods.is_empty() {
        let names: Vec<&str> = pods.iter().map(String::as_str).take(SHOWN_PODS).collect();
        let more = if pods.len() > SHOWN_PODS { ", …" } else { "" };
        let detail = format!("allowed on these pods only: {}{more}", names.join(", "));
        return Check::warn(&id, &title, detail).fix(rule);
    }
    let detail = format!("not allowed{reason}: {}", right.without);
    let check = match right.needed && !made_up {
        true => Check::fail(&id, &title, detail),
        false => Check::warn(&id, &title, detail),
    };
    check.fix(rule)
}

/// Nothing that anybody needs: it is only said what there is.
fn judge_everywhere(answers: &[Answer]) -> Option<Check> {
    if answers.iter().all(Result::is_err) {
        // As for the rights before, which say why.
        return None;
    }
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
    Some(Check::ok("permission.cluster-wide", title, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_asked_for_endpoints() {
        let last = |slices| named(&rights("shop", slices).pop().unwrap().permission);
        assert_eq!(last(true), "endpointslices.discovery.k8s.io");
        assert_eq!(last(false), "endpoints");
    }
}
