//! A server-side dry run of all objects and of one pod, before anything is made: a policy, a webhook
//! or a limit that would refuse one is found while nothing is there that would have to go again.

use serde_json::{Value, json};

use super::change::Sent;
use super::site::{CONFIG_MAPS, DEPLOYMENTS, Found, InstallError, PODS, Site, name_of};
use super::{MANAGER, NAME, shape};
use crate::k8s::ClientError;
use crate::k8s::access;

/// What is between a ReplicaSet's name and its pods' names, of the length that real ones have.
const SET: &str = "kdev-relay-0000000000";
/// What a webhook says, on servers before 1.22, that would do something even if it is only asked.
const NO_DRY_RUN: &str = "does not support dry run";
/// What the API server says where it could not ask a webhook.
const SILENT_WEBHOOK: &str = "failed calling webhook";

/// What would be refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which object.
    pub what: String,
    /// The API server's words.
    pub message: String,
}

/// What came of a dry run.
#[derive(Debug, Default)]
pub struct Trial {
    /// What would be refused of the objects.
    pub objects: Vec<Refusal>,
    /// What would be refused of the pod.
    pub pod_refused: Option<Refusal>,
    /// The Deployment as it would be.
    pub deployment: Option<Value>,
    /// A pod as it would be, with what admission adds.
    pub pod: Option<Value>,
}

impl Site {
    /// Asks for all of `objects` and for a pod without any of it being done.
    ///
    /// # Errors
    /// When the API server cannot be asked, and where others have set fields to something else.
    pub async fn rehearse(
        &self,
        objects: &[Value],
        found: &Found,
        force: bool,
    ) -> Result<Trial, InstallError> {
        let light: Vec<Value> = objects.iter().map(light).collect();
        let asked = light
            .iter()
            .map(|object| self.send(object, found, force, true));
        let (sent, pod) = tokio::join!(
            futures_util::future::join_all(asked),
            self.rehearse_pod(objects)
        );
        let mut trial = Trial::default();
        for (object, sent) in light.iter().zip(sent) {
            let what = format!(
                "{} {}",
                object["kind"].as_str().unwrap_or_default(),
                name_of(object)
            );
            match sent {
                Ok(Sent { kind, object, .. }) => {
                    if *kind == DEPLOYMENTS {
                        trial.deployment = Some(object);
                    }
                }
                Err(error) => match verdict(&error) {
                    Verdict::Refused(message) => trial.objects.push(Refusal { what, message }),
                    Verdict::Unanswered => {}
                    Verdict::Failed => return Err(super::change::refused(what, error)),
                },
            }
        }
        match pod {
            Ok(pod) => trial.pod = pod,
            Err(error) => match verdict(&error) {
                Verdict::Refused(message) => {
                    trial.pod_refused = Some(Refusal {
                        what: format!("a pod of Deployment {NAME}"),
                        message,
                    });
                }
                Verdict::Unanswered => {}
                Verdict::Failed => return Err(error.into()),
            },
        }
        Ok(trial)
    }

    /// A pod as the ReplicaSet would make it; none where the user may not make pods, who then
    /// learns from the ReplicaSet what is wrong.
    async fn rehearse_pod(&self, objects: &[Value]) -> Result<Option<Value>, ClientError> {
        let mut deployments = objects.iter();
        let Some(deployment) = deployments.find(|object| object["kind"] == DEPLOYMENTS.kind) else {
            return Ok(None);
        };
        let create = PODS.permission("create", &self.namespace);
        let may = access::review(&self.client, vec![create]).await;
        if !may
            .iter()
            .all(|answer| answer.as_ref().is_ok_and(|verdict| verdict.allowed))
        {
            return Ok(None);
        }
        let path = PODS.path(&self.namespace, "");
        let path = format!("{path}?dryRun=All&fieldManager={MANAGER}");
        self.client.post(&path, &pod(deployment)).await.map(Some)
    }
}

/// The object without the program, which is large and means nothing to a policy.
fn light(object: &Value) -> Value {
    let mut light = object.clone();
    if light["kind"] == CONFIG_MAPS.kind {
        light["binaryData"] = json!({"part": ""});
    }
    light
}

/// A pod of the Deployment's template, with an owner: some policies refuse pods that have none.
fn pod(deployment: &Value) -> Value {
    let template = &deployment["spec"]["template"];
    let mut metadata = template["metadata"].clone();
    metadata["generateName"] = json!(format!("{SET}-"));
    metadata["namespace"] = deployment["metadata"]["namespace"].clone();
    metadata["labels"]["pod-template-hash"] = json!("0000000000");
    metadata["ownerReferences"] = json!([{
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": SET,
        "uid": "00000000-0000-4000-8000-000000000000",
        "controller": true,
    }]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// What an answer says about whether an object would be taken.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It would not.
    Refused(String),
    /// The one who decides cannot be asked without doing it.
    Unanswered,
    /// The question itself failed.
    Failed,
}

fn verdict(error: &ClientError) -> Verdict {
    match (refusal(error), error) {
        (Some(message), _) if message.contains(NO_DRY_RUN) => Verdict::Unanswered,
        (Some(message), _) => Verdict::Refused(message),
        (None, _) => Verdict::Failed,
    }
}

/// The API server's words, where it refuses an object for what it is: the code is whatever the
/// policy or the webhook chose.
pub(super) fn refusal(error: &ClientError) -> Option<String> {
    let ClientError::Status { code, message, .. } = error else {
        return None;
    };
    let refused = match code {
        401 | 404 | 408 | 409 | 429 => false,
        500 => message.contains(SILENT_WEBHOOK),
        code => (400..500).contains(code),
    };
    refused.then(|| message.clone())
}

/// The same, where it is neither a missing right nor a quota that speaks.
#[must_use]
pub fn refused_by_policy(error: &ClientError) -> Option<String> {
    refusal(error).filter(|message| {
        let is_right = message.contains(" cannot ") && message.contains(" resource \"");
        !is_right && (message.contains("denied") || message.contains("webhook"))
    })
}

/// Refusals as the end of a sentence: objects for which the same is said stand together.
#[must_use]
pub fn told(refusals: &[Refusal]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for Refusal { what, message } in refusals {
        // `secrets "kdev-relay" is forbidden: …` names the object once more.
        let why = message
            .split_once(" is forbidden: ")
            .map_or(message.as_str(), |(_, why)| why);
        match groups.iter_mut().find(|(said, _)| *said == why) {
            Some((_, all)) => all.push(what),
            None => groups.push((why, vec![what])),
        }
    }
    let lines = groups
        .iter()
        .map(|(why, what)| format!("\n  {}: {}", what.join(", "), why.trim()));
    lines.collect()
}

/// What a message is about, in lower case, and the flag by which objects comply.
const FLAGS: [(&[&str], &str); 11] = [
    (&["cpu"], "--cpu-request and --cpu-limit QUANTITY"),
    (&["memory"], "--memory-request and --memory-limit QUANTITY"),
    (
        &["nodeselector", "node selector", "node-selector"],
        "--node-selector KEY=VALUE",
    ),
    (&["toleration", "taint"], "--toleration KEY"),
    (&["priority"], "--priority-class NAME"),
    (&["runtimeclass", "runtime class"], "--runtime-class NAME"),
    (
        &["imagepullsecret", "image pull secret", "pull secret"],
        "--image-pull-secret NAME",
    ),
    (&["registr", "image"], "--base-image or --image IMAGE"),
    (&["replicas"], "--replicas N"),
    (&["ephemeral"], ""),
    (
        &["limits", "resources"],
        "--cpu-limit and --memory-limit QUANTITY",
    ),
];

/// What to do about refusals: the flags that what they say is about.
#[must_use]
pub fn advice(refusals: &[Refusal]) -> String {
    let mut flags: Vec<String> = Vec::new();
    let mut add = |flag: String| {
        if !flag.is_empty() && !flags.contains(&flag) {
            flags.push(flag);
        }
    };
    for Refusal { message, .. } in refusals {
        let message = own_words(message);
        let text = message.to_lowercase();
        let mut known = false;
        for (word, flag) in [("label", "--label"), ("annotation", "--annotation")] {
            if text.contains(word) {
                known = true;
                let key = key_after(message, word).unwrap_or("KEY");
                add(format!("{flag} {key}=VALUE"));
            }
        }
        for (words, flag) in FLAGS {
            // The last ones only where nothing else is meant.
            if words.contains(&"limits") && known {
                continue;
            }
            // Of a pull secret both words speak.
            if words.contains(&"image") && text.contains("pull") && known {
                continue;
            }
            if words.iter().any(|word| text.contains(word)) {
                known = true;
                add(flag.to_owned());
            }
        }
    }
    match flags.is_empty() {
        true => "`kdev install --help` lists the flags that change objects and pods, and \
                 `kdev install --dry-run` shows what was asked for"
            .to_owned(),
        false => format!("comply with {}", flags.join(", with ")),
    }
}

/// What a policy or a webhook says itself: before it stand their names, which may be about anything.
fn own_words(message: &str) -> &str {
    let ends = ["denied request: ", "denied the request: "];
    let mut said = ends.iter().filter_map(|end| message.split_once(end));
    said.next()
        .map(|(_, words)| words)
        .filter(|words| !words.trim().is_empty())
        .unwrap_or(message)
}

/// The key that a message names behind `word`: `label team is required`, `labels: {"team"}`.
fn key_after<'a>(message: &'a str, word: &str) -> Option<&'a str> {
    /// What stands between the word and a key, or in a key's place.
    const BETWEEN: &[&str] = &[
        "a", "all", "an", "and", "are", "be", "called", "every", "for", "has", "have", "in", "is",
        "key", "keys", "missing", "must", "named", "not", "of", "on", "or", "required", "set",
        "that", "the", "this", "to", "value", "values", "with",
    ];
    let mut rest = message;
    loop {
        let at = rest.to_lowercase().find(word)?;
        // Lower case may have another length where a message is not ASCII.
        rest = rest.get(at + word.len()..)?;
        let rest = rest.strip_prefix('s').unwrap_or(rest);
        let divides = |c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c));
        if !rest.starts_with(divides) {
            continue;
        }
        let mut words = rest.split(divides).filter(|word| !word.is_empty());
        let found = words.find(|word| !BETWEEN.contains(&word.to_lowercase().as_str()));
        let found = found.map(|word| word.trim_end_matches('.'));
        let is_key = |key: &&str| shape::labels(&[format!("{key}=")]).is_ok();
        if let Some(key) = found.filter(is_key) {
            return Some(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(what: &str, message: &str) -> Refusal {
        Refusal {
            what: what.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_same_word_about_several_objects_is_said_once() {
        let policy = "ValidatingAdmissionPolicy 'team' with binding 'team' denied request: label \
                      team is required";
        let said = told(&[
            refused("Secret a", &format!("secrets \"a\" is forbidden: {policy}")),
            refused("Secret b", &format!("secrets \"b\" is forbidden: {policy}")),
            refused("a pod", "no"),
        ]);
        assert_eq!(
            said,
            format!("\n  Secret a, Secret b: {policy}\n  a pod: no")
        );
    }

    #[test]
    fn the_flag_follows_from_what_is_said() {
        for (message, flag) in [
            ("label team is required", "--label team=VALUE"),
            (
                "you must provide labels: {\"cost-center\"}",
                "--label cost-center=VALUE",
            ),
            (
                "The label `app.kubernetes.io/part-of` is required.",
                "--label app.kubernetes.io/part-of=VALUE",
            ),
            ("annotation 'owner' must be set", "--annotation owner=VALUE"),
            (
                "maximum cpu usage per Container is 100m, but limit is 500m",
                "--cpu-request and --cpu-limit",
            ),
            (
                "all containers need limits",
                "--cpu-limit and --memory-limit",
            ),
            (
                "image must come from registry.example.com",
                "--base-image or --image",
            ),
            ("pods need a priorityClassName", "--priority-class"),
            ("imagePullSecrets are required", "--image-pull-secret NAME"),
            ("spec.tolerations: x", "--toleration"),
            ("something else", "`kdev install --help`"),
        ] {
            let text = advice(&[refused("x", message)]);
            assert!(text.contains(flag), "{message}: {text}");
            assert!(!text.contains("; "), "{text}");
        }
        let both = advice(&[refused("x", "label zone"), refused("y", "image")]);
        assert!(
            both.contains("--label zone=VALUE, with --base-image"),
            "{both}"
        );
        let named =
            "ValidatingAdmissionPolicy 'labels' with binding 'images' denied request: no cpu";
        let text = advice(&[refused("x", named)]);
        assert!(
            text.contains("--cpu-limit") && !text.contains("--label"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_refusal() {
        let status = |code, message: &str| ClientError::Status {
            code,
            reason: String::new(),
            message: message.to_owned(),
        };
        for code in [404, 409, 429, 500, 503] {
            assert_eq!(verdict(&status(code, "no")), Verdict::Failed, "{code}");
        }
        for code in [400, 403, 413, 422] {
            assert!(matches!(verdict(&status(code, "no")), Verdict::Refused(_)));
        }
        let webhook = "admission webhook \"x\" does not support dry run";
        assert_eq!(verdict(&status(400, webhook)), Verdict::Unanswered);
        let silent = "Internal error occurred: failed calling webhook \"x\": no endpoints";
        assert!(matches!(verdict(&status(500, silent)), Verdict::Refused(_)));
    }
}
