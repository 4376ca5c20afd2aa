//! Whether there is a relay in the namespace, which tunnels to it work, and what it reaches.

use std::time::Duration;

use tokio::time::Instant;

use super::check::Check;
use super::{millis, reach, shorten, within};
use crate::dial::DialError;
use crate::k8s::install::NAME;
use crate::k8s::portforward::{KnownForm, PortForward};
use crate::k8s::relay::{self, Carrier};
use crate::k8s::{Client, ClientError};
use crate::tunnel::pool::{Probe, Trouble};

/// How long one question may take.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// How long one carrier may take: TCP, TLS, the API server's way to the pod, and the proof.
const TRY_LIMIT: Duration = Duration::from_secs(6);
/// How long connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(200);

pub(super) const RELAY: (&str, &str) = ("relay", "relay");
const SECRET: (&str, &str) = ("relay.secret", "secret of the relay");
const TUNNEL: (&str, &str) = ("relay.tunnel", "tunnel to the relay");

pub(super) fn skipped(why: &str) -> Check {
    Check::skipped(RELAY.0, RELAY.1, why)
}

/// What was found about the relay.
pub(super) struct Found {
    pub(super) checks: Vec<Check>,
    pub(super) state: State,
}

/// Whether intercepts have a relay to go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// They have.
    Usable,
    /// None is installed.
    Absent,
    /// The check of this id says why not.
    Unusable(&'static str),
    /// Why that is not known.
    Unknown(String),
}

impl Found {
    fn only(check: Check, state: State) -> Self {
        Self {
            checks: vec![check],
            state,
        }
    }

    fn unknown(why: &str) -> Self {
        Self::only(skipped(why), State::Unknown(why.to_owned()))
    }
}

/// Looks for a relay, tries each carrier to one of its pods, and has that one dial.
pub(super) async fn checks(client: &Client, until: Instant) -> Found {
    let namespace = client.namespace();
    let pods = match within(ASK_LIMIT, until, relay::pods(client)).await {
        Ok(Ok(pods)) => pods,
        Ok(Err(ClientError::Status { code: 403, .. })) => {
            return Found::unknown(&format!("without list pods in {namespace} none is found"));
        }
        Ok(Err(error)) => return Found::unknown(&error.to_string()),
        Err(_) => return Found::unknown("the API server is too slow"),
    };
    let ready: Vec<_> = pods.iter().filter(|pod| pod.ready).collect();
    let short = pods.is_empty() || ready.len() < pods.len();
    let standing = match short {
        true => {
            let asked = within(ASK_LIMIT, until, relay::standing(client)).await;
            asked.ok().and_then(Result::ok).flatten()
        }
        false => None,
    };
    if pods.is_empty()
        && let Some(standing) = &standing
    {
        let detail = format!("in namespace {namespace} it is {standing}");
        let check = Check::warn(RELAY.0, RELAY.1, detail).fix(relay::again(namespace));
        return Found::only(check, State::Unusable(RELAY.0));
    }
    if pods.is_empty() {
        let detail = format!(
            "none in namespace {namespace}, and none needed: kdev forwards ports of pods; \
             `kdev install` adds Services without pods, UDP, and what else pods reach"
        );
        return Found::only(Check::ok(RELAY.0, RELAY.1, detail), State::Absent);
    }
    let mut detail = format!(
        "{} of {} pods ready in {namespace}",
        ready.len(),
        pods.len()
    );
    if let Some(standing) = standing.filter(|standing| standing.why.is_some()) {
        detail = format!("in namespace {namespace} it is {standing}");
    }
    let mut checks = vec![match ready.len() == pods.len() {
        true => Check::ok(RELAY.0, RELAY.1, detail),
        false => Check::warn(RELAY.0, RELAY.1, detail).fix(relay::describe(namespace)),
    }];
    let readable = within(ASK_LIMIT, until, relay::readable(client)).await;
    let secret = match readable {
        Ok(Ok(())) => Check::ok(SECRET.0, SECRET.1, "may be read, which admits tunnels"),
        Ok(Err(error)) => unreadable(&error, namespace),
        Err(_) => Check::warn(SECRET.0, SECRET.1, "the API server is too slow"),
    };
    let usable = secret.status == super::Status::Ok;
    checks.push(secret);
    let (tried, state) = match ready.first() {
        Some(pod) if usable => through(client, &pod.name, until).await,
        Some(_) => untried("the secret cannot be read", State::Unusable(SECRET.0)),
        None => untried("no pod is ready", State::Unusable(RELAY.0)),
    };
    checks.extend(tried);
    Found { checks, state }
}

fn untried(why: &str, state: State) -> (Vec<Check>, State) {
    let tunnel = Check::skipped(TUNNEL.0, TUNNEL.1, why);
    (vec![tunnel, reach::skipped(why)], state)
}

/// The tunnels to a pod, and what it reaches.
async fn through(client: &Client, pod: &str, until: Instant) -> (Vec<Check>, State) {
    let forward = PortForward::new(client.clone(), KnownForm::default());
    let (tunnel, works) = tunnel(client, &forward, pod, until).await;
    let (reach, state) = match works {
        true => match reach::check(client, &forward, pod, until).await {
            (reach, Some(false)) => (reach, State::Unusable(reach::ID)),
            (reach, _) => (reach, State::Usable),
        },
        false => (
            reach::skipped("no tunnel to it works"),
            State::Unusable(TUNNEL.0),
        ),
    };
    forward.close(GOODBYE).await;
    (vec![tunnel, reach], state)
}

fn unreadable(error: &DialError, namespace: &str) -> Check {
    let check = Check::warn(SECRET.0, SECRET.1, error.to_string());
    match error {
        DialError::Denied { .. } => check.fix(format!(
            "kdev goes without the relay; to use it, ask for this rule in a Role of {namespace}: \
             {{apiGroups: [\"\"], resources: [\"secrets\"], resourceNames: [{NAME:?}], \
             verbs: [\"get\"]}}"
        )),
        _ => check,
    }
}

type Tried = (Carrier, Result<Probe, Trouble>);

/// Tries all carriers, one after the other, since each is measured. Gives as well whether any works.
async fn tunnel(
    client: &Client,
    forward: &PortForward,
    pod: &str,
    until: Instant,
) -> (Check, bool) {
    let mut tried: Vec<Tried> = Vec::new();
    for carrier in Carrier::ALL {
        let probe = relay::probe(client, forward, pod, carrier);
        let result = within(TRY_LIMIT, until, probe).await.unwrap_or_else(|_| {
            Err(Trouble::passing(DialError::TimedOut {
                target: format!("relay {pod}"),
                after: TRY_LIMIT,
            }))
        });
        tried.push((carrier, result));
    }
    let works = tried.iter().any(|(_, result)| result.is_ok());
    (judge(pod, &tried), works)
}

fn judge(pod: &str, tried: &[Tried]) -> Check {
    let refused: Vec<String> = tried
        .iter()
        .filter_map(|(carrier, result)| {
            let why = result.as_ref().err()?.error.to_string();
            Some(format!("{carrier}: {}", shorten(&why)))
        })
        .collect();
    let works = tried
        .iter()
        .filter_map(|(c, r)| Some((c, r.as_ref().ok()?)));
    let works: Vec<String> = works
        .map(|(carrier, probe)| {
            let round_trip = probe.round_trip.map(millis);
            let round_trip =
                round_trip.map_or_else(String::new, |ms| format!(", {ms} there and back"));
            format!("{carrier} (open in {}{round_trip})", millis(probe.took))
        })
        .collect();
    let mut detail = format!("to pod {pod}: {}", works.join(", "));
    if !refused.is_empty() {
        detail.push_str(&format!("; refused: {}", refused.join("; ")));
    }
    let program = tried
        .iter()
        .find_map(|(_, r)| Some(&r.as_ref().ok()?.program));
    let Some(program) = program else {
        let detail = format!("none to pod {pod}: {}", refused.join("; "));
        return Check::warn(TUNNEL.0, TUNNEL.1, detail)
            .fix("kdev goes without the relay; `kdev upgrade` mends a relay that was changed");
    };
    let own = env!("CARGO_PKG_VERSION");
    if program != own {
        return Check::warn(
            TUNNEL.0,
            TUNNEL.1,
            format!("{detail}; the relay is of version {program}, kdev of {own}"),
        )
        .fix("they work together as far as both go; `kdev upgrade` brings the relay to kdev's");
    }
    Check::ok(TUNNEL.0, TUNNEL.1, format!("{detail}; version {program}"))
}
