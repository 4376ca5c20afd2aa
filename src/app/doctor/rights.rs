//! Whether the user may intercept and install: the rights that these ask for themselves.

use std::time::Duration;

use tokio::time::Instant;

use super::check::Check;
use super::within;
use crate::k8s::access::{self, Permission, Verdict, phrase};
use crate::k8s::install::change;
use crate::k8s::install::site::Site;
use crate::k8s::{Client, ClientError, redirect};

/// How long the two dozen questions may take, eight at a time.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) const INTERCEPT: (&str, &str) = ("permission.intercept", "rights for intercepts");
pub(super) const INSTALL: (&str, &str) = ("permission.install", "rights for `kdev install`");

/// What came of asking about the rights for one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// All are there.
    Yes,
    /// These are not.
    Lacking(Vec<Permission>),
    /// Why that is not known.
    Unknown(String),
}

/// The rights for intercepts and those for an install.
pub(super) struct Rights {
    pub(super) intercept: Allowed,
    pub(super) install: Allowed,
}

/// Why the user cannot do what takes `missing`, as the end of a sentence.
pub(super) fn lacking<'a>(
    missing: impl IntoIterator<Item = &'a Permission>,
    namespace: &str,
) -> String {
    let what = phrase(missing);
    format!("you may not {what} in namespace {namespace}")
}

/// What helps who lacks rights for intercepts.
fn role_to_intercept(namespace: &str) -> String {
    format!(
        "ask whoever runs the cluster for the built-in role `edit` in namespace {namespace}, or for \
         the smaller `kdev-use` and `kdev-intercept` of kdev's cluster/rbac"
    )
}

/// What helps who lacks rights for an install.
pub(super) fn role_to_install(namespace: &str) -> String {
    format!(
        "ask whoever runs the cluster for the built-in role `edit` in namespace {namespace}, or \
         somebody who has it for `kdev install -n {namespace}`"
    )
}

pub(super) fn skipped(why: &str) -> Vec<Check> {
    let both = [INTERCEPT, INSTALL].map(|(id, title)| Check::skipped(id, title, why));
    both.into()
}

/// Asks for what each of them takes.
pub(super) async fn ask(client: &Client, until: Instant) -> Rights {
    let site = Site {
        client: client.clone(),
        namespace: client.namespace().to_owned(),
    };
    let mut questions = redirect::permissions(client.namespace());
    let of_intercept = questions.len();
    questions.extend(change::permissions(&site, true));
    let asked = within(LIMIT, until, access::review(client, questions)).await;
    let Ok(mut intercept) = asked else {
        let why = format!("the API server did not answer within {} s", LIMIT.as_secs());
        return Rights {
            intercept: Allowed::Unknown(why.clone()),
            install: Allowed::Unknown(why),
        };
    };
    let install = intercept.split_off(of_intercept);
    Rights {
        intercept: allowed(intercept),
        install: allowed(install),
    }
}

/// What is denied counts more than what is not known.
fn allowed(answers: Vec<Result<Verdict, ClientError>>) -> Allowed {
    let (mut missing, mut unknown) = (Vec::new(), None);
    for answer in answers {
        match answer {
            Ok(verdict) if verdict.allowed => {}
            Ok(verdict) => missing.push(verdict.permission),
            Err(error) => unknown = unknown.or(Some(error)),
        }
    }
    match unknown {
        _ if !missing.is_empty() => Allowed::Lacking(missing),
        // The error itself is told once, with the rights that everything takes.
        Some(_) => Allowed::Unknown("the API server did not say what you may do".to_owned()),
        None => Allowed::Yes,
    }
}

impl Rights {
    pub(super) fn checks(&self, namespace: &str) -> Vec<Check> {
        let check = |(id, title): (&str, &str), allowed: &Allowed, role: String| match allowed {
            Allowed::Yes => Check::ok(id, title, format!("all allowed in namespace {namespace}")),
            Allowed::Lacking(missing) => {
                Check::warn(id, title, lacking(missing, namespace)).fix(role)
            }
            Allowed::Unknown(why) => Check::skipped(id, title, why),
        };
        vec![
            check(INTERCEPT, &self.intercept, role_to_intercept(namespace)),
            check(INSTALL, &self.install, role_to_install(namespace)),
        ]
    }
}
