//! Which replicas of the relay there are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::dial::DialError;
use crate::k8s::catalog::{Labelled, LabelledPod};
use crate::k8s::install::rollout::Standing;
use crate::k8s::install::site::InstallError;
use crate::k8s::install::{NAME, NAME_LABEL};
use crate::k8s::{Catalog, Client, ClientError, access};
use crate::tunnel::pool::{Replicas, Trouble};

/// How often the pods are listed where they may not be watched: a replica that was replaced is
/// found within this.
const LIST_INTERVAL: Duration = Duration::from_secs(3);
/// The same where they may not be listed either: rights may have been given.
const DENIED_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is asked why there is no pod.
const REASON_INTERVAL: Duration = Duration::from_secs(5);
/// The same where there is no Deployment, and then only when something in the cluster has changed: most sessions have
/// no relay, and an idle one asks nothing.
const ABSENT_INTERVAL: Duration = Duration::from_secs(60);

/// Keeps `replicas` as the pods are, until nobody follows them any more.
pub(super) async fn follow(
    client: Client,
    catalog: Catalog,
    namespace: String,
    replicas: watch::Sender<Replicas>,
    fit: Fit,
) {
    let mut changes = catalog.changes();
    let mut asked = None;
    loop {
        changes.mark_unchanged();
        let pause = match catalog.labelled(&namespace, (NAME_LABEL, NAME)) {
            Labelled::Syncing => None,
            Labelled::Pods(pods) => {
                let mut found = choose(&pods, &namespace, fit);
                let mut pause = None;
                if found.none.is_some() {
                    pause = explain(&client, pods.len(), &mut found, &mut asked).await;
                } else {
                    asked = None;
                }
                tell(&replicas, found);
                pause
            }
            Labelled::Forbidden => {
                let (found, pause) = list(&client, fit).await;
                if let Some(found) = found {
                    tell(&replicas, found);
                }
                Some(pause)
            }
        };
        match pause {
            Some(pause) => tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = changes.changed() => if changed.is_err() { return },
                () = replicas.closed() => return,
            },
            None => tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = replicas.closed() => return,
            },
        }
    }
}

fn tell(replicas: &watch::Sender<Replicas>, found: Replicas) {
    replicas.send_if_modified(|known| {
        let text = |r: &Replicas| r.none.as_ref().map(|none| none.error.to_string());
        let news = known.names != found.names || text(known) != text(&found);
        if news {
            *known = found;
        }
        news
    });
}

/// Which pods get a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Those that are ready; where none is, those that run: a kubelet that restarts calls all of
    /// its pods not ready for a while.
    Ready,
    /// All that run: a new one shall know the claims before callers come to it.
    Running,
}

/// The pods that are fit.
pub(super) fn choose(pods: &[LabelledPod], namespace: &str, fit: Fit) -> Replicas {
    let names = |fits: fn(&LabelledPod) -> bool| -> BTreeSet<Arc<str>> {
        let fit = pods.iter().filter(|pod| fits(pod));
        fit.map(|pod| pod.name.clone()).collect()
    };
    let mut chosen = match fit {
        Fit::Ready => names(|pod| pod.ready),
        Fit::Running => BTreeSet::new(),
    };
    if chosen.is_empty() {
        chosen = names(|pod| pod.runs);
    }
    match (chosen.is_empty(), pods.len()) {
        (false, _) => Replicas::of(chosen),
        (true, 0) => Replicas::none(Trouble::lasting(super::missing(namespace))),
        (true, count) => Replicas::none(Trouble::passing(DialError::Unreachable {
            target: format!("the relay in namespace {namespace}"),
            reason: format!("none of its pods runs ({count} there)"),
            fix: super::describe(namespace),
        })),
    }
}

/// What the relay's Deployment says about pods that are not there.
enum Reason {
    /// It is there.
    Standing(Standing),
    /// There is none, or the user may not look.
    Absent,
    /// The API server gave no answer.
    Unknown,
}

/// Why there is no pod, or none that runs, as far as the relay's Deployment says. Gives when to ask again, if nothing
/// changes before.
async fn explain(
    client: &Client,
    pods: usize,
    found: &mut Replicas,
    asked: &mut Option<(Instant, Reason)>,
) -> Option<Duration> {
    let known = asked.take().filter(|(at, reason)| {
        let limit = match (reason, pods) {
            (Reason::Absent, 0) => ABSENT_INTERVAL,
            _ => REASON_INTERVAL,
        };
        at.elapsed() < limit
    });
    let (at, reason) = match known {
        Some(known) => known,
        None => {
            let reason = match super::standing(client).await {
                Ok(Some(standing)) => Reason::Standing(standing),
                Ok(None) => Reason::Absent,
                Err(InstallError::Client(ClientError::Status { code: 403, .. })) => Reason::Absent,
                Err(error) => {
                    tracing::debug!(%error, "the relay's Deployment could not be looked at");
                    Reason::Unknown
                }
            };
            (Instant::now(), reason)
        }
    };
    if let Reason::Standing(standing) = &reason {
        let error = super::unready(client.namespace(), standing);
        // Where no pod is made, none comes by waiting.
        found.none = Some(match pods {
            0 => Trouble::lasting(error),
            _ => Trouble::passing(error),
        });
    }
    let absent = matches!(reason, Reason::Absent) && pods == 0;
    *asked = Some((at, reason));
    (!absent).then_some(REASON_INTERVAL)
}

/// Asks once; what there is, if that could be said, and when to ask again.
async fn list(client: &Client, fit: Fit) -> (Option<Replicas>, Duration) {
    let namespace = client.namespace();
    match super::pods(client).await {
        Ok(pods) => {
            let mut found = choose(&pods, namespace, fit);
            if found.none.is_some() {
                explain(client, pods.len(), &mut found, &mut None).await;
            }
            (Some(found), LIST_INTERVAL)
        }
        Err(ClientError::Status {
            code: 403, message, ..
        }) => {
            let denied = access::denied(&message, "list", "pods", namespace);
            (
                Some(Replicas::none(Trouble::lasting(denied))),
                DENIED_INTERVAL,
            )
        }
        Err(error) => {
            tracing::debug!(%error, "the relay's pods could not be listed");
            (None, LIST_INTERVAL)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool, runs: bool) -> LabelledPod {
        LabelledPod {
            name: name.into(),
            ready,
            runs,
        }
    }

    fn names(replicas: &Replicas) -> Vec<&str> {
        replicas.names.iter().map(|name| &**name).collect()
    }

    #[test]
    fn ready_pods_are_taken_and_running_ones_where_none_is_ready() {
        let both = [
            pod("a", true, true),
            pod("b", false, true),
            pod("c", false, false),
        ];
        assert_eq!(names(&choose(&both, "shop", Fit::Ready)), ["a"]);
        assert_eq!(names(&choose(&both[1..], "shop", Fit::Ready)), ["b"]);
        assert_eq!(names(&choose(&both, "shop", Fit::Running)), ["a", "b"]);
    }

    #[test]
    fn nothing_installed_lasts_and_nothing_running_passes() {
        let none = choose(&[], "shop", Fit::Ready).none.unwrap();
        let text = none.error.to_string();
        assert!(!none.passing && text.contains("kdev install"), "{text}");
        let none = choose(&[pod("a", false, false)], "shop", Fit::Ready)
            .none
            .unwrap();
        let text = none.error.to_string();
        assert!(none.passing && text.contains("kubectl -n shop"), "{text}");
    }
}
