//! What the policies of a cluster ask of objects and pods: labels, annotations, CPU and memory, where
//! pods may run. The user says it by flags and settings.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::limits::parse;
use super::{MANAGER_LABEL, NAME, NAME_LABEL, RESOURCES_ANNOTATION, VERSION_ANNOTATION};

/// Keys and values, in the order of keys.
pub type Pairs = BTreeMap<String, String>;

/// Longest prefix of a label's key, and longest name behind it and longest value, in bytes: what
/// Kubernetes takes.
const LONGEST_PREFIX: usize = 253;
const LONGEST_NAME: usize = 63;
/// What `kdev.dev/…` marks is kdev's to write.
const OWN_PREFIX: &str = "kdev.dev/";
/// Labels and annotations that controllers set on Deployments and their pods, or that mean something
/// to them.
const CONTROLLERS: [&str; 4] = [
    "deployment.kubernetes.io/",
    "kubectl.kubernetes.io/",
    "pod-template-hash",
    SAFE_TO_EVICT,
];
/// An emptyDir would keep autoscalers from ever moving the pod.
pub(super) const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// What a toleration tolerates.
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// CPU and memory that each container asks for and may use at most: the keys of [`Shape::sizes`].
pub const SIZES: [&str; 4] = ["cpu-request", "cpu-limit", "memory-request", "memory-limit"];

/// What objects and pods look like beside what the relay itself needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Labels of all objects and of the pods.
    pub labels: Pairs,
    /// Annotations of all objects and of the pods.
    pub annotations: Pairs,
    /// Quantities by [`SIZES`]; for those that are not there kdev works one out.
    pub sizes: Pairs,
    /// Labels of nodes that the pods may run on.
    pub node_selector: Pairs,
    /// Tolerations of the pods, as they stand in a manifest.
    pub tolerations: Vec<Value>,
    /// The pods' priority class; empty for none.
    pub priority_class: String,
    /// The pods' runtime class; empty for none.
    pub runtime_class: String,
    /// Secrets with which the images are pulled.
    pub pull_secrets: Vec<String>,
}

/// What the user says about it; what is `None` stays as it was installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// See [`Shape::labels`].
    pub labels: Option<Pairs>,
    /// See [`Shape::annotations`].
    pub annotations: Option<Pairs>,
    /// Each of [`SIZES`] that is said; an empty one is kdev's to work out again.
    pub sizes: Pairs,
    /// See [`Shape::node_selector`].
    pub node_selector: Option<Pairs>,
    /// See [`Shape::tolerations`].
    pub tolerations: Option<Vec<Value>>,
    /// See [`Shape::priority_class`].
    pub priority_class: Option<String>,
    /// See [`Shape::runtime_class`].
    pub runtime_class: Option<String>,
    /// See [`Shape::pull_secrets`].
    pub pull_secrets: Option<Vec<String>>,
}

impl Asked {
    /// What is said here, over what `shape` has.
    pub fn over(&self, shape: &mut Shape) {
        fn take<T: Clone>(into: &mut T, said: Option<&T>) {
            if let Some(said) = said {
                into.clone_from(said);
            }
        }
        take(&mut shape.labels, self.labels.as_ref());
        take(&mut shape.annotations, self.annotations.as_ref());
        take(&mut shape.node_selector, self.node_selector.as_ref());
        take(&mut shape.tolerations, self.tolerations.as_ref());
        take(&mut shape.priority_class, self.priority_class.as_ref());
        take(&mut shape.runtime_class, self.runtime_class.as_ref());
        take(&mut shape.pull_secrets, self.pull_secrets.as_ref());
        shape.sizes.extend(self.sizes.clone());
        shape.sizes.retain(|_, quantity| !quantity.is_empty());
    }
}

impl Shape {
    /// Reads it from a Deployment. A label or an annotation is the user's where the Deployment and
    /// its pods have the same: controllers write to one of them only.
    #[must_use]
    pub fn of(deployment: &Value) -> Self {
        let (metadata, template) = (&deployment["metadata"], &deployment["spec"]["template"]);
        let pod = &template["spec"];
        let both = |field: &str| -> Pairs {
            let inner = &template["metadata"][field];
            let own = pairs(&metadata[field]).into_iter();
            own.filter(|(key, value)| inner[key] == *value && !is_kept(key))
                .collect()
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let secrets = pod["imagePullSecrets"].as_array().into_iter().flatten();
        let sizes = text(&metadata["annotations"][RESOURCES_ANNOTATION]);
        let sizes = sizes.split(',').filter_map(|size| size.split_once('='));
        Self {
            labels: both("labels"),
            annotations: both("annotations"),
            sizes: sizes
                .filter(|(key, quantity)| SIZES.contains(key) && parse(quantity).is_some())
                .map(|(key, quantity)| (key.to_owned(), quantity.to_owned()))
                .collect(),
            node_selector: pairs(&pod["nodeSelector"]),
            tolerations: pod["tolerations"].as_array().cloned().unwrap_or_default(),
            priority_class: text(&pod["priorityClassName"]),
            runtime_class: text(&pod["runtimeClassName"]),
            pull_secrets: secrets.map(|secret| text(&secret["name"])).collect(),
        }
    }

    /// The quantity that the user wants for `name` (`cpu`, `memory`), as `what` (`request`, `limit`).
    #[must_use]
    pub fn size(&self, name: &str, what: &str) -> Option<&str> {
        self.sizes
            .get(&format!("{name}-{what}"))
            .map(String::as_str)
    }

    /// What is wrong with sizes that are right each by itself, if anything.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        ["cpu", "memory"].into_iter().find_map(|name| {
            let (request, limit) = (self.size(name, "request")?, self.size(name, "limit")?);
            (parse(request) > parse(limit)).then(|| {
                format!(
                    "--{name}-request {request} is more than --{name}-limit {limit}; no pod may ask \
                     for more than it may use"
                )
            })
        })
    }

    /// Adds labels and annotations to `metadata`; what stands there already is the relay's own.
    pub(in crate::k8s) fn mark(&self, metadata: &mut Value) {
        for (field, pairs) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            for (key, value) in pairs {
                if metadata[field].get(key).is_none() {
                    metadata[field][key] = json!(value);
                }
            }
        }
    }

    /// Adds what pods have of it.
    pub(super) fn place(&self, pod: &mut Value) {
        if !self.node_selector.is_empty() {
            pod["nodeSelector"] = json!(self.node_selector);
        }
        if !self.tolerations.is_empty() {
            pod["tolerations"] = json!(self.tolerations);
        }
        for (field, class) in [
            ("priorityClassName", &self.priority_class),
            ("runtimeClassName", &self.runtime_class),
        ] {
            if !class.is_empty() {
                pod[field] = json!(class);
            }
        }
        if !self.pull_secrets.is_empty() {
            let secrets = self.pull_secrets.iter();
            let secrets: Vec<Value> = secrets.map(|name| json!({"name": name})).collect();
            pod["imagePullSecrets"] = json!(secrets);
        }
    }

    /// What the Deployment says of sizes, so that an upgrade tells the user's from kdev's.
    pub(super) fn noted_sizes(&self) -> Option<String> {
        let sizes = self.sizes.iter();
        let sizes: Vec<String> = sizes.map(|(key, text)| format!("{key}={text}")).collect();
        (!sizes.is_empty()).then(|| sizes.join(","))
    }
}

/// The strings of an object.
pub(super) fn pairs(object: &Value) -> Pairs {
    let all = object.as_object().into_iter().flatten();
    all.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// Whether the relay or a controller writes a label or an annotation with this key.
fn is_kept(key: &str) -> bool {
    [NAME_LABEL, MANAGER_LABEL, VERSION_ANNOTATION].contains(&key)
        || key.starts_with(OWN_PREFIX)
        || CONTROLLERS.iter().any(|kept| key.starts_with(kept))
}

/// Reads labels, each `KEY=VALUE`.
///
/// # Errors
/// What is wrong with one.
pub fn labels(texts: &[String]) -> Result<Pairs, String> {
    let all = read(texts, "label")?;
    for (key, value) in &all {
        check_own(key)?;
        check_value(key, value)?;
    }
    Ok(all)
}

/// Reads annotations, each `KEY=VALUE`.
///
/// # Errors
/// What is wrong with one.
pub fn annotations(texts: &[String]) -> Result<Pairs, String> {
    let all = read(texts, "annotation")?;
    all.keys().try_for_each(|key| check_own(key))?;
    Ok(all)
}

/// Reads labels of nodes, each `KEY=VALUE`.
///
/// # Errors
/// What is wrong with one.
pub fn node_labels(texts: &[String]) -> Result<Pairs, String> {
    let all = read(texts, "label")?;
    for (key, value) in &all {
        check_value(key, value)?;
    }
    Ok(all)
}

fn read(texts: &[String], what: &str) -> Result<Pairs, String> {
    let mut all = Pairs::new();
    for text in texts {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            format!(r"{text:?} is no {what} KEY=VALUE; a comma within a value is written \,")
        })?;
        check_key(key)?;
        all.insert(key.to_owned(), value.to_owned());
    }
    Ok(all)
}

fn check_own(key: &str) -> Result<(), String> {
    match is_kept(key) {
        true => Err(format!("{key} is for kdev or for Kubernetes to set")),
        false => Ok(()),
    }
}

/// `[PREFIX/]NAME`, as Kubernetes has it.
fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let label = |text: &str| is_name(text) && !text.contains(['_', '.']);
    let is_domain = |text: &str| {
        text.len() <= LONGEST_PREFIX
            && text.to_ascii_lowercase() == text
            && text.split('.').all(label)
    };
    match is_name(name) && prefix.is_none_or(is_domain) {
        true => Ok(()),
        false => Err(format!(
            "{key:?} is no key: NAME or DOMAIN/NAME, with at most {LONGEST_NAME} letters, digits, \
             - _ and . in the name"
        )),
    }
}

fn check_value(key: &str, value: &str) -> Result<(), String> {
    match value.is_empty() || is_name(value) {
        true => Ok(()),
        false => Err(format!(
            "{value:?} cannot be the value of label {key}: at most {LONGEST_NAME} letters, digits, \
             - _ and ., with a letter or a digit at both ends"
        )),
    }
}

fn is_name(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= LONGEST_NAME
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Reads tolerations, each `KEY[=VALUE][:EFFECT]`, or `*[:EFFECT]` for all keys.
///
/// # Errors
/// What is wrong with one.
pub fn tolerations(texts: &[String]) -> Result<Vec<Value>, String> {
    texts.iter().map(|text| toleration(text)).collect()
}

fn toleration(text: &str) -> Result<Value, String> {
    let (taint, effect) = match text.split_once(':') {
        Some((taint, effect)) => (taint, Some(effect)),
        None => (text, None),
    };
    if let Some(effect) = effect.filter(|effect| !EFFECTS.contains(effect)) {
        return Err(format!("{effect:?} is none of {}", EFFECTS.join(", ")));
    }
    let mut toleration = match taint.split_once('=') {
        Some((key, value)) => {
            check_key(key)?;
            check_value(key, value)?;
            json!({"key": key, "operator": "Equal", "value": value})
        }
        None if taint == "*" => json!({"operator": "Exists"}),
        None => {
            check_key(taint)?;
            json!({"key": taint, "operator": "Exists"})
        }
    };
    if let Some(effect) = effect {
        toleration["effect"] = json!(effect);
    }
    Ok(toleration)
}

/// Takes a quantity such as `50m` or `64Mi`, or nothing.
///
/// # Errors
/// When it is none.
pub fn quantity(text: &str) -> Result<String, String> {
    match text.is_empty() || parse(text).is_some_and(|amount| amount > 0) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is no quantity above zero, such as 50m of CPU or 64Mi of memory"
        )),
    }
}

/// Takes the name of a class or a Secret, or nothing.
///
/// # Errors
/// When no object can have that name.
pub fn object_name(text: &str) -> Result<String, String> {
    let label = |part: &str| is_name(part) && !part.contains(['_', '.']);
    let is_domain = text.len() <= LONGEST_PREFIX
        && text.to_ascii_lowercase() == text
        && text.split('.').all(label);
    match text.is_empty() || is_domain {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no name that an object can have")),
    }
}

/// The Service among `services` that would select pods with these labels because of labels that the
/// user chose: its callers would come to the relay.
#[must_use]
pub(super) fn selected_by<'a>(
    services: &'a [Value],
    labels: &Value,
    chosen: &Pairs,
) -> Option<&'a str> {
    let selects = |service: &&Value| {
        let selector = pairs(&service["spec"]["selector"]);
        let chosen = |key: &String| chosen.get(key).is_some_and(|value| value != NAME);
        selector.keys().any(chosen) && selector.iter().all(|(key, value)| labels[key] == *value)
    };
    let service = services.iter().find(selects)?;
    service["metadata"]["name"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn labels_and_annotations_as_kubernetes_has_them() {
        let read = labels(&texts(&["team=a", "example.com/cost-center=", "v=1.2_b"])).unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(read["example.com/cost-center"], "");
        let note = annotations(&texts(&["note=a=b, c"])).unwrap();
        assert_eq!(note["note"], "a=b, c");
        let long = format!("a={}", "x".repeat(64));
        for wrong in [
            "team",
            "=a",
            "a b=c",
            "Example.com/a=b",
            "a/b/c=d",
            "-a=b",
            "a=b c",
            &long,
            "kdev.dev/version=1",
            "app.kubernetes.io/name=x",
            "app.kubernetes.io/managed-by=x",
            "pod-template-hash=x",
        ] {
            labels(&texts(&[wrong])).unwrap_err();
        }
        let comma = annotations(&texts(&["b@example.com"])).unwrap_err();
        assert!(comma.contains(r"\,"), "{comma}");
    }

    #[test]
    fn tolerations_as_kubectl_writes_taints() {
        for (text, toleration) in [
            ("a", json!({"key": "a", "operator": "Exists"})),
            (
                "x.io/a:NoSchedule",
                json!({"key": "x.io/a", "operator": "Exists", "effect": "NoSchedule"}),
            ),
            (
                "a=b:NoExecute",
                json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"}),
            ),
            (
                "a=b",
                json!({"key": "a", "operator": "Equal", "value": "b"}),
            ),
            ("*", json!({"operator": "Exists"})),
            (
                "*:NoSchedule",
                json!({"operator": "Exists", "effect": "NoSchedule"}),
            ),
        ] {
            assert_eq!(
                tolerations(&texts(&[text])).unwrap(),
                [toleration],
                "{text}"
            );
        }
        for wrong in ["", "a:Never", "a b", ":NoSchedule", "a=b c"] {
            tolerations(&texts(&[wrong])).unwrap_err();
        }
    }

    #[test]
    fn sizes_and_names() {
        for right in ["", "50m", "1", "0.5", "64Mi", "1e3"] {
            assert_eq!(quantity(right).unwrap(), right);
        }
        for wrong in ["0", "-1", "50 m", "much"] {
            quantity(wrong).unwrap_err();
        }
        object_name("system-node-critical").unwrap();
        object_name("regcred.v2").unwrap();
        for wrong in ["Reg", "a_b", "a/b", "-a"] {
            object_name(wrong).unwrap_err();
        }
        let sizes = [("cpu-request", "1"), ("cpu-limit", "500m")];
        let sizes = sizes.map(|(key, text)| (key.to_owned(), text.to_owned()));
        let shape = Shape {
            sizes: sizes.into(),
            ..Shape::default()
        };
        let why = shape.contradiction().unwrap();
        assert!(
            why.contains("--cpu-request 1") && why.contains("500m"),
            "{why}"
        );
    }

    #[test]
    fn what_is_said_stands_over_what_was() {
        let mut shape = Shape {
            labels: labels(&texts(&["team=a"])).unwrap(),
            priority_class: "low".to_owned(),
            sizes: [("cpu-limit".to_owned(), "1".to_owned())].into(),
            ..Shape::default()
        };
        let before = shape.clone();
        Asked::default().over(&mut shape);
        assert_eq!(shape, before);
        let asked = Asked {
            labels: Some(Pairs::new()),
            priority_class: Some(String::new()),
            sizes: [
                ("cpu-limit".to_owned(), String::new()),
                ("memory-limit".to_owned(), "64Mi".to_owned()),
            ]
            .into(),
            ..Asked::default()
        };
        asked.over(&mut shape);
        assert_eq!((shape.labels.len(), &*shape.priority_class), (0, ""));
        assert_eq!(shape.noted_sizes().unwrap(), "memory-limit=64Mi");
    }

    #[test]
    fn a_label_that_makes_the_pods_a_services_is_found() {
        let service = |name: &str, selector: Value| json!({"metadata": {"name": name}, "spec": {"selector": selector}});
        let services = [
            service("none", json!({})),
            service("relay", json!({"app": "kdev-relay"})),
            service("web", json!({"app": "web"})),
        ];
        let chosen = labels(&texts(&["app=web"])).unwrap();
        let by = |labels: Value, chosen: &Pairs| {
            selected_by(&services, &labels, chosen).map(str::to_owned)
        };
        assert_eq!(by(json!({"app": "web"}), &chosen).unwrap(), "web");
        let chosen = labels(&texts(&["team=a"])).unwrap();
        assert_eq!(by(json!({"app": "kdev-relay", "team": "a"}), &chosen), None);
    }
}
