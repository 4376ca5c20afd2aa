//! Whether there is a relay in the namespace, and which tunnels to it work.

use std::time::Duration;

use tokio::time::Instant;

use super::check::Check;
use super::{millis, shorten, within};
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

const RELAY: (&str, &str) = ("relay", "relay");
const SECRET: (&str, &str) = ("relay.secret", "secret of the relay");
const TUNNEL: (&str, &str) = ("relay.tunnel", "tunnel to the relay");

pub(super) fn skipped(why: &str) -> Check {
    Check::skipped(RELAY.0, RELAY.1, why)
}

/// Looks for a relay, and tries each carrier to one of its pods.
pub(super) async fn checks(client: &Client, until: Instant) -> Vec<Check> {
    let namespace = client.namespace();
    let pods = match within(ASK_LIMIT, until, relay::pods(client)).await {
        Ok(Ok(pods)) => pods,
        Ok(Err(ClientError::Status { code: 403, .. })) => {
            return vec![skipped(&format!(
                "without list pods in {namespace} none is found"
            ))];
        }
        Ok(Err(error)) => return vec![skipped(&error.to_string())],
        Err(_) => return vec![skipped("the API server is too slow")],
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
        return vec![Check::warn(RELAY.0, RELAY.1, detail).fix(relay::again(namespace))];
    }
    if pods.is_empty() {
        let detail = format!(
            "none in namespace {namespace}, and none needed: kdev forwards ports of pods; \
             `kdev install` adds Services without pods, UDP, and what else pods reach"
        );
        return vec![Check::ok(RELAY.0, RELAY.1, detail)];
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
    checks.push(match ready.first() {
        Some(pod) if usable => tunnel(client, &pod.name, until).await,
        Some(_) => Check::skipped(TUNNEL.0, TUNNEL.1, "the secret cannot be read"),
        None => Check::skipped(TUNNEL.0, TUNNEL.1, "no pod is ready"),
    });
    checks
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

/// Tries all carriers, one after the other, since each is measured.
async fn tunnel(client: &Client, pod: &str, until: Instant) -> Check {
    let forward = PortForward::new(client.clone(), KnownForm::default());
    let mut tried: Vec<Tried> = Vec::new();
    for carrier in Carrier::ALL {
        let probe = relay::probe(client, &forward, pod, carrier);
        let result = within(TRY_LIMIT, until, probe).await.unwrap_or_else(|_| {
            Err(Trouble::passing(DialError::TimedOut {
                target: format!("relay {pod}"),
                after: TRY_LIMIT,
            }))
        });
        tried.push((carrier, result));
    }
    forward.close(GOODBYE).await;
    judge(pod, &tried)
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
