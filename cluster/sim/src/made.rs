//! What a pod that a Deployment made looks like on its way from the template to running.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::pod::{NODE, NODE_IP, Phase, Pod, condition};

/// Where a container is.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Waiting(&'static str, String),
    Running,
    Ended(i32, String),
}

/// One container: where it is, how it ended before, and how often it was started again.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) state: State,
    pub(crate) last: Option<(i32, String)>,
    pub(crate) restarts: u32,
}

/// A pod made from a template.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) annotations: Value,
    pub(crate) owner: Value,
    pub(crate) spec: Value,
    /// Why no node takes it.
    pub(crate) unscheduled: Option<String>,
    pub(crate) containers: BTreeMap<String, Status>,
    /// It is asked to end.
    pub(crate) stop: CancellationToken,
    /// It is gone.
    pub(crate) gone: CancellationToken,
}

impl Made {
    pub(crate) fn new(template: &Value, owner: Value) -> Self {
        let kinds = ["initContainers", "containers"];
        let containers = kinds
            .iter()
            .flat_map(|kind| template["spec"][kind].as_array().into_iter().flatten());
        let initial = |container: &Value| {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            let status = Status {
                state: State::Waiting("PodInitializing", String::new()),
                last: None,
                restarts: 0,
            };
            (name, status)
        };
        Self {
            annotations: template["metadata"]["annotations"].clone(),
            owner,
            spec: template["spec"].clone(),
            unscheduled: None,
            containers: containers.map(initial).collect(),
            stop: CancellationToken::new(),
            gone: CancellationToken::new(),
        }
    }

    /// The pod as the API shows it.
    pub(crate) fn object(
        &self,
        pod: &Pod,
        ip: &str,
        started: &str,
        terminating: Option<u64>,
    ) -> Value {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod.name,
                "namespace": pod.namespace,
                "labels": pod.labels,
                "annotations": self.annotations,
                "ownerReferences": [self.owner],
            },
            "spec": self.spec,
            "status": {"phase": format!("{:?}", pod.phase), "qosClass": "Burstable"},
        });
        if let Some(grace) = terminating {
            object["metadata"]["deletionTimestamp"] = json!(clock::in_seconds(grace));
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        let scheduled = self.unscheduled.is_none();
        let running = pod.phase == Phase::Running;
        let mut placed = condition("PodScheduled", scheduled, "Unschedulable", started);
        if let Some(message) = &self.unscheduled {
            placed["message"] = json!(message);
        }
        object["status"]["conditions"] = json!([
            condition("Initialized", running, "ContainersNotInitialized", started),
            condition("Ready", pod.ready, "ContainersNotReady", started),
            condition("ContainersReady", pod.ready, "ContainersNotReady", started),
            placed,
        ]);
        if scheduled {
            object["spec"]["nodeName"] = json!(NODE);
            object["status"]["hostIP"] = json!(NODE_IP);
            object["status"]["podIP"] = json!(ip);
            object["status"]["podIPs"] = json!([{"ip": ip}]);
            object["status"]["startTime"] = json!(started);
            for (kind, field) in [
                ("initContainers", "initContainerStatuses"),
                ("containers", "containerStatuses"),
            ] {
                let containers = self.spec[kind].as_array().into_iter().flatten();
                let statuses: Vec<Value> = containers
                    .map(|container| self.status(container, pod.ready, started))
                    .collect();
                if !statuses.is_empty() {
                    object["status"][field] = json!(statuses);
                }
            }
        }
        object
    }

    fn status(&self, container: &Value, ready: bool, started: &str) -> Value {
        let name = container["name"].as_str().unwrap_or_default();
        let mut shown = json!({
            "name": name,
            "image": container["image"],
            "imageID": "",
            "ready": false,
            "restartCount": 0,
            "lastState": {},
            "state": {},
        });
        let Some(status) = self.containers.get(name) else {
            return shown;
        };
        shown["restartCount"] = json!(status.restarts);
        if let Some((code, message)) = &status.last {
            shown["lastState"] = json!({"terminated": ended(*code, message, started)});
        }
        shown["state"] = match &status.state {
            State::Waiting(reason, message) if message.is_empty() => {
                json!({"waiting": {"reason": reason}})
            }
            State::Waiting(reason, message) => {
                json!({"waiting": {"reason": reason, "message": message}})
            }
            State::Running => {
                shown["ready"] = json!(ready);
                json!({"running": {"startedAt": started}})
            }
            State::Ended(code, message) => json!({"terminated": ended(*code, message, started)}),
        };
        shown
    }
}

fn ended(code: i32, message: &str, when: &str) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    let mut state = json!({"exitCode": code, "reason": reason, "finishedAt": when});
    if !message.is_empty() {
        state["message"] = json!(message);
    }
    state
}
