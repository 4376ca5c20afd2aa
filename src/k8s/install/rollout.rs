//! Waiting until the relay's pods are ready, and why they are not.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::NAME;
use super::site::{DEPLOYMENTS, InstallError, Kind, PODS, REPLICA_SETS, Site, name_of};
use super::trouble::{self, Trouble};

/// How often it is looked: a reason is to be known within 3 s, most of which the kubelet takes.
const LOOK: Duration = Duration::from_millis(250);
/// How long a reason that waiting does not change has to stand until it is believed: a quota or an
/// admission may refuse a pod once while another one ends.
const BELIEVED: Duration = Duration::from_secs(2);
/// How long a pod may be silent before its events are looked at.
const SILENT: Duration = Duration::from_secs(2);
/// Lines of its log that are shown of a pod that does not get ready.
const LOG_LINES: usize = 3;
/// The annotation by which a Deployment numbers its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";

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

/// What one look gave.
struct Look {
    progress: Progress,
    done: bool,
    trouble: Option<Trouble>,
}

impl Site {
    /// Waits until all pods are of the Deployment as it stands now, and ready. Tells each change.
    ///
    /// # Errors
    /// When a pod cannot start for a reason that waiting does not change, or `limit` has passed.
    pub async fn rolled_out(
        &self,
        limit: Duration,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<u64, InstallError> {
        let begun = Instant::now();
        let mut told = Progress::default();
        let mut since: Option<Instant> = None;
        let mut because = None;
        loop {
            match self.look_at_pods(begun.elapsed() >= SILENT).await {
                Ok(look) => {
                    if look.progress != told {
                        tell(&look.progress);
                        told = look.progress.clone();
                    }
                    if look.done {
                        return Ok(look.progress.ready);
                    }
                    let lasting = look.trouble.as_ref().is_some_and(|t| t.lasting);
                    since = lasting.then(|| since.unwrap_or_else(Instant::now));
                    because = look.trouble;
                    if let Some(trouble) = &because
                        && since.is_some_and(|since| since.elapsed() >= BELIEVED)
                    {
                        return Err(InstallError::Stuck {
                            reason: trouble.text.clone(),
                            fix: trouble.fix.to_owned(),
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

    async fn look_at_pods(&self, events: bool) -> Result<Look, InstallError> {
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
        let pods = self.own(&PODS).await?;
        let pods: Vec<&Value> = pods
            .iter()
            .filter(of_newest)
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .collect();
        let ready = pods.iter().filter(|pod| is_ready(pod)).count() as u64;
        look.progress.ready = if look.done { wanted } else { ready };
        if look.done {
            return Ok(look);
        }
        let starting = || pods.iter().copied().filter(|pod| !is_ready(pod));
        look.trouble = starting()
            .find_map(trouble::of_pod)
            .or_else(|| newest.as_ref().and_then(trouble::of_set));
        if look.trouble.is_none() && events {
            for pod in starting() {
                look.trouble = look.trouble.or(self.told_by_events(name_of(pod)).await);
            }
        }
        look.progress.trouble = look.trouble.as_ref().map(|trouble| trouble.text.clone());
        Ok(look)
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

    /// The last warning about a pod, where events may be seen.
    async fn told_by_events(&self, pod: &str) -> Option<Trouble> {
        let path = EVENTS.path(&self.namespace, "");
        let path = format!("{path}?fieldSelector=involvedObject.name%3D{pod}&limit=50");
        let list: Value = self.client.get(&path).await.ok()?;
        let events = list["items"].as_array()?;
        let mut events: Vec<&Value> = events.iter().collect();
        events.sort_by_key(|event| event["lastTimestamp"].as_str().unwrap_or_default());
        let mut newest_first = events.into_iter().rev();
        newest_first.find_map(trouble::of_event)
    }
}

static EVENTS: Kind = Kind {
    api: "v1",
    plural: "events",
    kind: "Event",
};

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
