//! Which wire forms of port-forward work, tried on a pod that is ready.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::check::{Check, Status};
use super::{millis, shorten, within};
use crate::dial::{DialError, PodPort};
use crate::k8s::portforward::{
    Form, MAX_DENIED, PING_LIMIT, Probe, ProbeError, named_pods, probe, ready_pods,
};
use crate::k8s::{Client, ClientError, UpgradeError};
use crate::task::Tasks;

/// How long finding a pod may take.
const FIND_LIMIT: Duration = Duration::from_secs(3);
/// How long one form may take: the API server connects to the node meanwhile.
const LIMIT: Duration = Duration::from_secs(6);
/// Pods that are tried where something fails: the first may be on a node that is gone.
const PODS: usize = 2;

pub(super) const ID: &str = "port-forward";
const TITLE: &str = "port-forward";

pub(super) fn skipped(why: &str) -> Check {
    Check::skipped(ID, TITLE, why).needed()
}

/// What came of trying.
pub(super) struct Forwarded {
    pub(super) checks: Vec<Check>,
    /// Whether some form works on some pod; unknown where none was tried.
    pub(super) works: Option<bool>,
}

impl Forwarded {
    fn untried(check: Check) -> Self {
        Self {
            checks: vec![check],
            works: None,
        }
    }
}

/// Tries every form on ready pods of the client's namespace, until one works.
pub(super) async fn checks(client: &Client, until: Instant, tasks: &Tasks) -> Forwarded {
    let namespace = client.namespace();
    let found = within(FIND_LIMIT, until, ready_pods(client, namespace)).await;
    let mut pods = match found {
        Ok(Ok(pods)) => pods,
        Ok(Err(ClientError::Status { code: 403, .. })) => {
            return Forwarded::untried(skipped(&format!(
                "without list pods in {namespace} there is no pod to try it on"
            )));
        }
        Ok(Err(error)) => {
            return Forwarded::untried(skipped(&format!("no pod to try it on: {error}")));
        }
        Err(_) => {
            let why = "no pod to try it on: the API server is too slow";
            return Forwarded::untried(skipped(why));
        }
    };
    if pods.is_empty() {
        return Forwarded::untried(no_pod(client, until).await);
    }
    let mut denied: Vec<String> = Vec::new();
    let mut failed = Vec::new();
    for next in 0..pods.len() {
        let tried = try_all(client, &pods[next], until, tasks).await;
        let check = judge(&pods[next], &tried);
        if !check.is_fatal() {
            return Forwarded {
                checks: vec![not_all(check, &denied)],
                works: Some(true),
            };
        }
        if !any(&tried, is_denied) {
            failed.push(check);
            if failed.len() == PODS {
                break;
            }
            continue;
        }
        denied.push(pods[next].pod.name.clone());
        failed.push(check);
        if denied.len() == MAX_DENIED {
            break;
        }
        if denied.len() == 1 {
            // A Role may name the pods that are allowed.
            let named = named_pods(client, namespace).await;
            pods[next + 1..].sort_by_key(|pod| !named.contains(&pod.pod.name));
        }
    }
    failed.truncate(1);
    Forwarded {
        checks: failed,
        works: Some(false),
    }
}

/// The check of a pod that works, where others are forbidden.
fn not_all(mut check: Check, denied: &[String]) -> Check {
    if denied.is_empty() {
        return check;
    }
    check.detail = format!("{}; not allowed on {}", check.detail, denied.join(", "));
    if check.status == Status::Ok {
        check.status = Status::Warn;
        return check.fix(
            "kdev takes the pods that are allowed; for all of them, ask for pods/portforward in a \
             rule without resourceNames",
        );
    }
    check
}

type Tried = (Form, Result<Probe, ProbeError>);

async fn try_all(client: &Client, pod: &PodPort, until: Instant, tasks: &Tasks) -> Vec<Tried> {
    let one = |form| async move {
        let tried = within(LIMIT, until, probe(client, pod, form, tasks)).await;
        let tried = tried.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", LIMIT.as_secs());
            Err(UpgradeError::Network(text).into())
        });
        (form, tried)
    };
    let mut all = Vec::new();
    let mut forms = Form::ALL.into_iter();
    // The form that kdev will take is measured alone.
    for form in forms.by_ref() {
        all.push(one(form).await);
        if matches!(all.last(), Some((_, Ok(_)))) {
            break;
        }
    }
    all.extend(futures_util::future::join_all(forms.map(one)).await);
    all
}

fn judge(pod: &PodPort, tried: &[Tried]) -> Check {
    let refused: Vec<String> = tried
        .iter()
        .filter_map(|(form, result)| {
            let why = reason(*form, result.as_ref().err()?, &pod.pod.namespace);
            Some(format!("{}: {why}", form.id()))
        })
        .collect();
    let mut works = tried
        .iter()
        .filter_map(|(f, r)| Some((f, r.as_ref().ok()?)));
    let on = &pod.pod.name;
    let Some((form, probe)) = works.next() else {
        let detail = format!("no form works on pod {on}: {}", refused.join("; "));
        return Check::fail(ID, TITLE, detail).fix(fix(tried));
    };
    let mut detail = format!("{form}: opened in {}", millis(probe.handshake));
    if let Some(round_trip) = probe.round_trip {
        detail.push_str(&format!(", round trip {}", millis(round_trip)));
    }
    detail.push_str(&format!(" (pod {on})"));
    let others: Vec<&str> = works.map(|(form, _)| form.id()).collect();
    if !others.is_empty() {
        detail.push_str(&format!("; {} would do as well", others.join(", ")));
    }
    if !refused.is_empty() {
        detail.push_str(&format!("; refused: {}", refused.join("; ")));
    }
    if probe.round_trip.is_none() && *form != Form::V4 {
        return Check::warn(ID, TITLE, format!("{detail}; pings are not answered"))
            .needed()
            .fix(format!(
                "something between here and the node holds answers back for more than {} s; kdev \
                 would take the connection for dead",
                PING_LIMIT.as_secs()
            ));
    }
    if *form == Form::V4 {
        return Check::warn(ID, TITLE, detail).needed().fix(
            "each stream costs a connection of its own in this form; have the proxy before the \
             API server let WebSockets with SPDY/3.1+portforward.k8s.io through",
        );
    }
    Check::ok(ID, TITLE, detail).needed()
}

/// Why a form does not work, in fewer words than the API server's.
fn reason(form: Form, error: &ProbeError, namespace: &str) -> String {
    match error {
        ProbeError::Upgrade(UpgradeError::Status {
            code: 403, message, ..
        }) => match form.denied(message, namespace) {
            DialError::Denied { verb, resource, .. } => format!("{verb} {resource} is not allowed"),
            other => other.to_string(),
        },
        ProbeError::Upgrade(
            UpgradeError::Bare { code: 400, .. } | UpgradeError::Status { code: 400, .. },
        ) if form == Form::Tunnel => "this server does not have it (1.31 and later do)".to_owned(),
        // What no Kubernetes says may be a page of HTML.
        error => shorten(&error.to_string()),
    }
}

fn any(tried: &[Tried], fits: impl Fn(&ProbeError) -> bool) -> bool {
    let mut errors = tried.iter().filter_map(|(_, r)| r.as_ref().err());
    errors.any(fits)
}

/// Whether the user lacks a right.
fn is_denied(error: &ProbeError) -> bool {
    matches!(
        error,
        ProbeError::Upgrade(UpgradeError::Status { code: 403, .. })
    )
}

/// What would help, by the commonest reasons.
fn fix(tried: &[Tried]) -> &'static str {
    let is_node = |e: &ProbeError| {
        matches!(
            e,
            ProbeError::Upgrade(
                UpgradeError::Status { code: 500.., .. } | UpgradeError::Bare { code: 500.., .. }
            )
        )
    };
    if any(tried, is_denied) {
        "get the rights on pods/portforward that are missing"
    } else if any(tried, is_node) {
        "the API server does not reach the pod's node: `kubectl get nodes` shows whether it is \
         ready; whoever runs the cluster can mend it"
    } else {
        "a proxy before the API server probably lets no upgrades through: `kubectl port-forward` \
         should fail the same way; whoever runs it has to allow WebSockets"
    }
}

/// Why there is no pod.
async fn no_pod(client: &Client, until: Instant) -> Check {
    #[derive(Deserialize)]
    struct Anything {}
    let namespace = client.namespace();
    let path = format!("/api/v1/namespaces/{namespace}");
    let asked = within(FIND_LIMIT, until, client.get::<Anything>(&path)).await;
    match asked {
        Ok(Err(ClientError::Status { code: 404, .. })) => {
            let detail = format!("there is no namespace {namespace}");
            Check::fail(ID, TITLE, detail).fix("pass --namespace NAME")
        }
        _ => skipped(&format!(
            "there is no ready pod in namespace {namespace} to try it on"
        ))
        .fix("pass the --namespace of a pod that runs"),
    }
}
