//! Callers who are cut off in the middle of an intercept: the relay does not reach the original pods
//! any more, though these are ready and listen.
//!
//! An app that is down looks the same from the relay. So it counts only where every replica fails with
//! every pod for a while, and the policies say why, or the pods themselves say that they listen.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::behind::{Ready, behind};
use super::object::{name, port_label, port_name, port_number, ports};
use super::policies::{self, Known};
use super::site::Site;
use super::ways::{Replica, Ways};
use super::{keys, rights, swap};
use crate::addr::{Host, Target};
use crate::dial::DialError;
use crate::intercept::redirect::RedirectError;

/// How long nothing may come through: a rollout or a restart leaves ready pods that nobody answers in
/// for less, and callers get errors meanwhile.
const AT_LEAST: Duration = Duration::from_secs(3);
/// How long one connection may take.
const TRY: Duration = Duration::from_secs(1);
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(300);

/// Why callers of `landing` get nowhere, with what mends it; none where they do, or where it is the
/// app's own fault.
pub(super) async fn why(
    site: &Site,
    ways: &dyn Ways,
    service: &str,
    origin: &str,
    landing: u16,
) -> Option<String> {
    match look(site, ways, service, origin, landing).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, service, "it cannot be said why callers get nowhere");
            None
        }
    }
}

async fn look(
    site: &Site,
    ways: &dyn Ways,
    service: &str,
    origin: &str,
    landing: u16,
) -> Result<Option<String>, RedirectError> {
    let relays = keys::relays(site).await?;
    let (live, there) = tokio::try_join!(site.service(service), site.service(origin))?;
    let (Some(live), Some(there)) = (live, there) else {
        return Ok(None);
    };
    let Some(port) = ports(&there["spec"]).find(|port| port_number(port) == landing) else {
        return Ok(None);
    };
    let own = ports(&live["spec"]).find(|own| port_name(own) == port_name(port));
    let label = own.map_or_else(
        || format!("the pods of {service}"),
        |own| port_label(own, service),
    );
    let plain = swap::plain(&live, &there);
    let opening = relays.iter().map(|relay| ways.to(name(relay)));
    // One without a tunnel says nothing; its callers are the others' as well.
    let opened: Vec<_> = join_all(opening).await.into_iter().flatten().collect();
    let target = Target::new(Host::Name(origin.into()), landing);
    let namespace = rights::namespace(site).await;
    let until = Instant::now() + AT_LEAST;
    let found = loop {
        let ready = ready(site, &there, port_name(port)).await?;
        let failed = match opened.is_empty() || ready.is_empty() {
            true => None,
            false => failures(&opened, &target).await,
        };
        let Some(failures) = failed else {
            break None;
        };
        let known = policies::known(site, &live, &plain, &relays, namespace.as_ref()).await;
        if let Some((by, rule)) = known.and_then(|known| forbidden(&known, &ready)) {
            break Some(format!(
                "the relay does not reach {label} any more, because of {by}; {rule}"
            ));
        }
        if Instant::now() >= until {
            let listening = listening(ways, &ready).await;
            let silent = failures
                .iter()
                .all(|error| matches!(error, DialError::TimedOut { .. }));
            break listening.unwrap_or(silent).then(|| {
                format!(
                    "the relay does not reach {label} any more, though {} of its pods are ready; a \
                     network policy may keep it from them: allow what the label \
                     app.kubernetes.io/name=kdev-relay marks",
                    ready.len()
                )
            });
        }
        sleep(PAUSE).await;
    };
    join_all(opened.iter().map(|replica| replica.close())).await;
    Ok(found)
}

/// Pods that are ready for the port of this name, and where.
async fn ready(
    site: &Site,
    origin: &Value,
    port: &str,
) -> Result<Vec<(Ready, u16)>, RedirectError> {
    let all = behind(site, name(origin), &origin["spec"])
        .await?
        .into_iter();
    let at = all.filter_map(|ready| {
        let own = ready.ports.iter().find(|(name, _)| name == port);
        let number = own.map(|(_, number)| *number)?;
        Some((ready, number))
    });
    Ok(at.collect())
}

/// How each replica fails; none where one does not, or the network is not to blame.
async fn failures(
    opened: &[std::sync::Arc<dyn Replica>],
    target: &Target,
) -> Option<Vec<DialError>> {
    let tries = opened.iter().map(|replica| async move {
        match timeout(TRY, replica.dial(target)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::TimedOut {
                target: target.to_string(),
                after: TRY,
            }),
        }
    });
    let outcomes = join_all(tries).await.into_iter();
    let blamed = outcomes.map(|outcome| match outcome {
        Err(
            error @ (DialError::Refused { .. }
            | DialError::TimedOut { .. }
            | DialError::Unreachable { .. }),
        ) => Some(error),
        _ => None,
    });
    blamed.collect()
}

/// The policies that keep the relay from each of these pods, if they do.
fn forbidden(known: &Known, ready: &[(Ready, u16)]) -> Option<(String, String)> {
    let each = ready
        .iter()
        .map(|(ready, number)| known.passage(&ready.pod, *number));
    let each: Option<Vec<_>> = each.collect();
    each?.into_iter().next()
}

/// Whether one of these pods listens; none where nobody can say.
async fn listening(ways: &dyn Ways, ready: &[(Ready, u16)]) -> Option<bool> {
    let asked = ready
        .iter()
        .map(|(ready, number)| ways.listens(&ready.pod, &ready.uid, *number));
    let answers = join_all(asked).await;
    if answers.iter().any(Result::is_ok) {
        return Some(true);
    }
    let down = |answer: &Result<(), DialError>| matches!(answer, Err(DialError::Refused { .. }));
    answers.iter().any(down).then_some(false)
}
