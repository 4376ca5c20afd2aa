//! Waiting until the relay's pods are ready, and why they are not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::NAME;
use super::site::{DEPLOYMENTS, InstallError, PODS, REPLICA_SETS, Site, name_of};
use super::trouble::{self, Trouble};

/// How often it is looked: a reason is to be known within 3 s, most of which the kubelet takes.
const LOOK: Duration = Duration::from_millis(250);
/// How long a reason that waiting does not change has to stand until it is believed: a quota or an
/// admission may refuse a pod once while another one ends.
const BELIEVED: Duration = Duration::from_secs(2);
/// The same of a ReplicaSet that could make no pod before this run already: what it says stays until
/// it succeeds, and the API server may know for a second of a policy that is gone.
const OLD_BELIEVED: Duration = Duration::from_secs(8);
/// How often such a ReplicaSet is made to try again: by itself it waits up to a quarter of an hour.
const NUDGE: Duration = Duration::from_secs(1);
/// How long a pod may be silent before its events are looked at.
const SILENT: Duration = Duration::from_secs(2);
/// Lines of its log that are shown of a pod that does not get ready.
const LOG_LINES: usize = 3;
/// The annotation by which a Deployment numbers its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The annotation by whose change a ReplicaSet is made to try again.
const NUDGED: &str = "kdev.dev/nudged";

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pods that are wanted.
    pub wanted: u64,
    /// Pods of this version that are ready.
    pub ready: u64,
    /// Pods of an older version that are still there.
    pub old: u64,
    /// What is in the way.
    pub trouble: Option<String>,
}

/// What was there before this run, and says nothing about it.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// UIDs of pods of another template.
    pods: BTreeSet<String>,
    /// Versions of events, by UID: one that happens again has another.
    pub(super) events: BTreeMap<String, String>,
    /// The UID of a ReplicaSet that could make no pod.
    stuck: Option<String>,
}

/// An installed relay at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Pods that are wanted.
    pub wanted: u64,
    /// Pods that are ready.
    pub ready: u64,
    /// Why the others are not, as far as it is known.
    pub why: Option<String>,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wanted, ready, why } = self;
        match (wanted, why) {
            (0, _) => write!(f, "installed, scaled to no pods"),
            (_, Some(why)) => write!(f, "installed, {ready} of {wanted} pods ready: {why}"),
            (_, None) => write!(f, "installed, {ready} of {wanted} pods ready"),
        }
    }
}

/// What one look gave.
struct Look {
    progress: Progress,
    done: bool,
    trouble: Option<Trouble>,
    /// The ReplicaSet that makes no pod, where that is the trouble.
    stuck: Option<Value>,
}

impl Site {
    /// Waits until all pods are of the Deployment as it stands now, and ready. Tells each change.
    ///
    /// # Errors
    /// When a pod cannot start for a reason that waiting does not change, or `limit` has passed.
    pub async fn rolled_out(
        &self,
        limit: Duration,
        before: &Before,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<u64, InstallError> {
        let begun = Instant::now();
        let mut told = Progress::default();
        let mut since: Option<Instant> = None;
        let mut nudged: Option<Instant> = None;
        let mut because = None;
        loop {
            match self.look_at_pods(begun.elapsed(), before).await {
                Ok(look) => {
                    let old = look.stuck.as_ref().filter(|set| {
                        let uid = set["metadata"]["uid"].as_str();
                        uid.is_some() && uid == before.stuck.as_deref()
                    });
                    if let Some(set) = old
                        && nudged.is_none_or(|at| at.elapsed() >= NUDGE)
                    {
                        self.nudge(set).await;
                        nudged = Some(Instant::now());
                    }
                    let believed = if old.is_some() {
                        OLD_BELIEVED
                    } else {
                        BELIEVED
                    };
                    let mut progress = look.progress;
                    if old.is_some() && begun.elapsed() < believed {
                        // It may be what an earlier run has left.
                        progress.trouble = None;
                    }
                    if progress != told {
                        tell(&progress);
                        told = progress.clone();
                    }
                    if look.done {
                        return Ok(progress.ready);
                    }
                    let lasting = look.trouble.as_ref().is_some_and(|t| t.lasting);
                    since = lasting.then(|| since.unwrap_or_else(Instant::now));
                    because = look.trouble;
                    if let Some(trouble) = &because
                        && since.is_some_and(|since| since.elapsed() >= believed)
                    {
                        return Err(InstallError::Stuck {
                            reason: trouble.text.clone(),
                            fix: trouble.fix.clone(),
                        });
                    }
                }
                // The API server may restart meanwhile.
                Err(InstallError::Client(error)) if error.is_passing() => {}
                Err(error) => return Err(error),
            }
            if begun.elapsed() >= limit {
                let said = self.said_by_unready().await;
                let because = [because.map(|trouble| trouble.text), said];
                let because: Vec<String> = because.into_iter().flatten().collect();
                return Err(InstallError::TimedOut {
                    what: format!("{} of {} relay pods got ready", told.ready, told.wanted),
                    seconds: limit.as_secs(),
                    because: (!because.is_empty()).then(|| because.join("; ")),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What an earlier run has left: to be looked at before anything is changed.
    pub async fn before(&self) -> Before {
        let uid = |object: &Value| object["metadata"]["uid"].as_str().map(str::to_owned);
        let (pods, set) = tokio::join!(self.own(&PODS), self.newest_set());
        let (pods, set) = (pods.unwrap_or_default(), set.ok().flatten());
        let events = pods.iter().chain(&set).filter_map(uid);
        let events = events.map(|uid| async move { self.events_of(&uid).await });
        let events = futures_util::future::join_all(events).await;
        let events = events.into_iter().flatten().filter_map(|event| {
            let version = event["metadata"]["resourceVersion"].as_str()?;
            Some((uid(&event)?, version.to_owned()))
        });
        let stuck = set.filter(|set| trouble::of_set(set).is_some());
        Before {
            pods: pods.iter().filter_map(uid).collect(),
            events: events.collect(),
            stuck: stuck.as_ref().and_then(uid),
        }
    }

    /// Has what an earlier run left behind try again: pods that cannot start are made anew. `was` is
    /// the Deployment of before; with another template now, its pods go anyway.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn renewed(
        &self,
        mut before: Before,
        was: Option<&Value>,
        now: &Value,
    ) -> Result<Before, InstallError> {
        let same = was.is_some_and(|was| was["spec"]["template"] == now["spec"]["template"]);
        if !same {
            return Ok(before);
        }
        // Those are this run's pods, too.
        let known = std::mem::take(&mut before.pods);
        let stuck = |pod: &Value| {
            !is_ready(pod)
                && pod["metadata"]["deletionTimestamp"].is_null()
                && trouble::of_pod(pod).is_some_and(|trouble| trouble.lasting)
        };
        for pod in self.own(&PODS).await?.iter().filter(|pod| stuck(pod)) {
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            if !known.contains(uid) {
                continue;
            }
            let deleted = self
                .delete_as(&PODS, name_of(pod), "Background", Some(uid))
                .await;
            match deleted {
                Ok(()) => {
                    before.pods.insert(uid.to_owned());
                }
                // Then it says what it said.
                Err(error) => tracing::debug!(%error, "a pod that cannot start stays"),
            }
        }
        Ok(before)
    }

    /// The relay that is installed, as it stands now; none where there is none.
    ///
    /// # Errors
    /// When the API server cannot be asked, or the user may not look at Deployments.
    pub async fn standing(&self) -> Result<Option<Standing>, InstallError> {
        if self.object(&DEPLOYMENTS, NAME).await?.is_none() {
            return Ok(None);
        }
        let look = self.look_at_pods(SILENT, &Before::default()).await?;
        Ok(Some(Standing {
            wanted: look.progress.wanted,
            ready: look.progress.ready,
            why: look.progress.trouble,
        }))
    }

    /// One look, `after` what is waited for began.
    async fn look_at_pods(&self, after: Duration, before: &Before) -> Result<Look, InstallError> {
        let Some(deployment) = self.object(&DEPLOYMENTS, NAME).await? else {
            return Err(InstallError::Stuck {
                reason: "its Deployment was deleted meanwhile".to_owned(),
                fix: "run the same command again".to_owned(),
            });
        };
        let number = |at: &Value| at.as_u64().unwrap_or_default();
        let (spec, status) = (&deployment["spec"], &deployment["status"]);
        let wanted = number(&spec["replicas"]);
        let seen =
            number(&status["observedGeneration"]) >= number(&deployment["metadata"]["generation"]);
        let (all, updated) = (
            number(&status["replicas"]),
            number(&status["updatedReplicas"]),
        );
        let mut look = Look {
            progress: Progress {
                wanted,
                ..Progress::default()
            },
            done: seen
                && updated == wanted
                && all == wanted
                && number(&status["readyReplicas"]) == wanted,
            trouble: None,
            stuck: None,
        };
        if !seen {
            return Ok(look);
        }
        look.progress.old = all.saturating_sub(updated);
        let newest = self.newest_set().await?;
        let of_newest = |pod: &&Value| {
            let Some(set) = &newest else { return true };
            pod["metadata"]["ownerReferences"][0]["uid"] == set["metadata"]["uid"]
        };
        let of_run = |pod: &&Value| {
            let uid = pod["metadata"]["uid"].as_str();
            uid.is_none_or(|uid| !before.pods.contains(uid))
        };
        let pods = self.own(&PODS).await?;
        let pods: Vec<&Value> = pods
            .iter()
            .filter(of_newest)
            .filter(of_run)
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .collect();
        let ready = pods.iter().filter(|pod| is_ready(pod)).count() as u64;
        look.progress.ready = if look.done { wanted } else { ready };
        if look.done {
            return Ok(look);
        }
        let starting = || pods.iter().copied().filter(|pod| !is_ready(pod));
        look.trouble = starting().find_map(trouble::of_pod);
        if look.trouble.is_none()
            && let Some(set) = newest
            && let Some(trouble) = trouble::of_set(&set)
        {
            // What the set says of itself is as old as its first failure.
            let news = self.news(&set, before).await;
            look.trouble = Some(news.map_or(trouble, |event| trouble::of_set_event(&event)));
            look.stuck = Some(set);
        }
        if look.trouble.is_none() && after >= SILENT {
            for pod in starting() {
                let news = self.news(pod, before).await;
                let told = news.as_ref().and_then(trouble::of_event);
                look.trouble = look.trouble.or(told);
            }
        }
        look.progress.trouble = look.trouble.as_ref().map(|trouble| trouble.text.clone());
        Ok(look)
    }

    /// Has the ReplicaSet try again at once; where that is not allowed it tries when it does.
    async fn nudge(&self, set: &Value) {
        let path = REPLICA_SETS.path(&self.namespace, name_of(set));
        let now = format!("{:08x}", rand::random::<u32>());
        let patch = json!({"metadata": {"annotations": {NUDGED: now}}});
        if let Err(error) = self.client.merge::<Value>(&path, &patch).await {
            tracing::debug!(%error, "the ReplicaSet tries again when it does");
        }
    }

    /// The ReplicaSet of the Deployment as it stands; none where those may not be seen.
    async fn newest_set(&self) -> Result<Option<Value>, InstallError> {
        let sets = match self.own(&REPLICA_SETS).await {
            Ok(sets) => sets,
            Err(error) if error.code() == Some(403) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let revision = |set: &Value| {
            let text = set["metadata"]["annotations"][REVISION].as_str();
            text.and_then(|text| text.parse::<u64>().ok())
                .unwrap_or_default()
        };
        Ok(sets.into_iter().max_by_key(revision))
    }

    /// The end of what a relay that runs and is not ready has logged, where that may be read.
    async fn said_by_unready(&self) -> Option<String> {
        let pods = self.own(&PODS).await.ok()?;
        let running = |pod: &&Value| pod["status"]["phase"] == "Running" && !is_ready(pod);
        let name = name_of(pods.iter().find(running)?);
        let path = PODS.path(&self.namespace, name);
        let path = format!("{path}/log?container=relay&tailLines={LOG_LINES}");
        let said = self.client.text(&path).await.ok()?;
        let lines: Vec<&str> = said.lines().collect();
        (!lines.is_empty()).then(|| format!("pod {name} says: {}", lines.join(" | ")))
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
