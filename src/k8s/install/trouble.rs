//! Why a pod does not start, in Kubernetes' own words.

use serde_json::Value;

use super::site::name_of;
use super::trial::{Refusal, advice};

/// What keeps a pod from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What is wrong, with Kubernetes' reason.
    pub(super) text: String,
    /// What to do about it.
    pub(super) fix: String,
    /// Whether waiting does not change it.
    pub(super) lasting: bool,
}

const FIX_IMAGE: &str =
    "pass an image that the cluster can pull: --base-image with sh and gunzip, or --image";
const FIX_QUOTA: &str = "ask for a larger quota, pass --replicas 1, or choose another namespace";
const FIX_CRASH: &str =
    "with --keep the pods stay for `kubectl logs`, and another --base-image may help";
const FIX_NODE: &str = "a node has to become free, or whoever runs the cluster can say more";

/// Longest text of Kubernetes' that is repeated, in bytes.
const MAX_TEXT: usize = 600;

/// Why a ReplicaSet has fewer pods than it should.
pub(super) fn of_set(set: &Value) -> Option<Trouble> {
    let failure = condition(set, "ReplicaFailure", "True")?;
    Some(no_pod(text(&failure["reason"]), text(&failure["message"])))
}

/// The same, from an event about it.
pub(super) fn of_set_event(event: &Value) -> Trouble {
    no_pod(text(&event["reason"]), text(&event["message"]))
}

fn no_pod(reason: &str, message: &str) -> Trouble {
    // Each try is for a pod of another name: `(combined …): Error creating: pods "x" is forbidden: …`.
    let last = message.rsplit("Error creating: ").next();
    let last = last.unwrap_or(message);
    let message = last
        .split_once(" is forbidden: ")
        .map_or(last, |(_, why)| why);
    let fix = match message.contains("quota") {
        true => FIX_QUOTA.to_owned(),
        false => advice(&[Refusal {
            what: String::new(),
            message: message.to_owned(),
        }]),
    };
    Trouble {
        text: format!("no pod can be made ({reason}): {}", short(message)),
        fix,
        lasting: true,
    }
}

/// Why a pod does not start.
pub(super) fn of_pod(pod: &Value) -> Option<Trouble> {
    let name = name_of(pod);
    if let Some(unscheduled) = condition(pod, "PodScheduled", "False") {
        return Some(Trouble {
            text: format!(
                "no node takes pod {name} ({}): {}",
                text(&unscheduled["reason"]),
                short(text(&unscheduled["message"]))
            ),
            fix: FIX_NODE.to_owned(),
            // A cluster that grows by itself takes minutes for a new node.
            lasting: false,
        });
    }
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let containers = statuses
        .iter()
        .flat_map(|kind| pod["status"][kind].as_array().into_iter().flatten());
    let trouble = containers
        .into_iter()
        .find_map(|status| of_container(name, status));
    trouble.or_else(|| of_ended(pod))
}

/// A pod that ended as a whole, for example evicted.
fn of_ended(pod: &Value) -> Option<Trouble> {
    (pod["status"]["phase"] == "Failed").then(|| Trouble {
        text: format!(
            "pod {} failed ({}): {}",
            name_of(pod),
            text(&pod["status"]["reason"]),
            short(text(&pod["status"]["message"]))
        ),
        fix: FIX_NODE.to_owned(),
        lasting: false,
    })
}

fn of_container(pod: &str, status: &Value) -> Option<Trouble> {
    let (state, last) = (&status["state"], &status["lastState"]);
    let waiting = &state["waiting"];
    let reason = text(&waiting["reason"]);
    match reason {
        // It goes on, or it has not begun.
        "" | "ContainerCreating" | "PodInitializing" => {}
        "CrashLoopBackOff" => return Some(crashed(pod, status, &last["terminated"])),
        _ => {
            let image = text(&status["image"]);
            let is_image = reason.contains("Image") || reason == "RegistryUnavailable";
            let (what, fix) = match is_image {
                true => (format!("image {image} cannot be pulled"), FIX_IMAGE),
                false => (
                    format!("container {} cannot start", text(&status["name"])),
                    FIX_CRASH,
                ),
            };
            return Some(Trouble {
                text: format!(
                    "pod {pod}: {what} ({reason}): {}",
                    short(text(&waiting["message"]))
                ),
                fix: fix.to_owned(),
                lasting: true,
            });
        }
    }
    let ended = &state["terminated"];
    let failed = |ended: &Value| ended["exitCode"].as_i64().is_some_and(|code| code != 0);
    if failed(ended) {
        return Some(crashed(pod, status, ended));
    }
    let again = status["ready"] != true && failed(&last["terminated"]);
    again.then(|| crashed(pod, status, &last["terminated"]))
}

fn crashed(pod: &str, status: &Value, ended: &Value) -> Trouble {
    let said = last_lines(text(&ended["message"]));
    let said = match said.is_empty() {
        true => "it said nothing".to_owned(),
        false => said,
    };
    Trouble {
        text: format!(
            "pod {pod}: container {} ended with code {} ({}): {said}",
            text(&status["name"]),
            ended["exitCode"],
            text(&ended["reason"]),
        ),
        fix: FIX_CRASH.to_owned(),
        lasting: true,
    }
}

/// How often a warning that belongs to a normal start may come until it is worth a word: a readiness
/// probe asks once a second, from before the program listens on.
const OF_A_START: u64 = 10;

/// Whether a warning belongs to a normal start, so far.
fn is_of_a_start(event: &Value) -> bool {
    let message = text(&event["message"]);
    let normal = match text(&event["reason"]) {
        "Unhealthy" => {
            message.starts_with("Readiness probe") || message.starts_with("Startup probe")
        }
        // The kubelet learns of a Secret a moment after the pod that mounts it.
        "FailedMount" => message.contains("failed to sync"),
        _ => false,
    };
    normal && event["count"].as_u64().unwrap_or(1) < OF_A_START
}

/// What events say about a pod that has not come so far that its status says anything.
pub(super) fn of_event(event: &Value) -> Option<Trouble> {
    if event["type"] != "Warning" || is_of_a_start(event) {
        return None;
    }
    Some(Trouble {
        text: format!(
            "pod {} ({}): {}",
            text(&event["involvedObject"]["name"]),
            text(&event["reason"]),
            short(text(&event["message"]))
        ),
        fix: FIX_NODE.to_owned(),
        lasting: false,
    })
}

fn condition<'a>(object: &'a Value, kind: &str, status: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind && condition["status"] == status)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn short(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim_end()
}

/// The end of what a container said, on one line.
fn last_lines(said: &str) -> String {
    const LINES: usize = 5;
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = lines.len().saturating_sub(LINES);
    short(&lines[from..].join(" | ")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_try_of_a_replica_set_reads_the_same() {
        let said = |message: &str| {
            let event = json!({"reason": "FailedCreate", "message": message});
            of_set_event(&event)
        };
        let first = said("Error creating: pods \"relay-a\" is forbidden: label team is required");
        let next = said(
            "(combined from similar events): Error creating: pods \"relay-b\" is forbidden: label \
             team is required",
        );
        assert_eq!(first, next);
        let text = "no pod can be made (FailedCreate): label team is required";
        assert_eq!(first.text, text);
        assert!(first.fix.contains("--label team=VALUE"), "{}", first.fix);
        let set = json!({"status": {"conditions": [{
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
            "message": "pods \"relay-a\" is forbidden: exceeded quota: few",
        }]}});
        let quota = of_set(&set).unwrap();
        assert!(
            quota.text.ends_with(": exceeded quota: few"),
            "{}",
            quota.text
        );
        assert_eq!(quota.fix, FIX_QUOTA);
    }
}
