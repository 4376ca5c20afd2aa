//! Who set which field: server-side apply, merge patches, and `metadata.managedFields`.
//!
//! Lists are taken as a whole, but for the ports of Services, which are taken apart by number and
//! protocol. Real servers do that with more lists, which matters only where two managers share one.

mod path;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use self::path::{Leaves, Path, at, collect, put, remove};
use crate::clock;

/// Set by the server, or what names the object: nobody owns these.
const NOBODYS: [&[&str]; 8] = [
    &["apiVersion"],
    &["kind"],
    &["status"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "creationTimestamp"],
];

/// An apply that would overwrite what others have set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conflict(pub(crate) String);

/// Applies `config` as `manager`: what it set before and has no more goes away.
pub(crate) fn apply(
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, Conflict> {
    let mut result = live.cloned().unwrap_or_else(|| json!({}));
    let mut managers = Managers::of(&result);
    let wanted = owned(config);
    let clashes = managers.clashes(&wanted, &result, manager);
    if !clashes.is_empty() && !force {
        return Err(conflict(&clashes, config));
    }
    for (_, path) in &clashes {
        managers.take(path);
    }
    let earlier = managers.applied(manager);
    for path in earlier.iter().filter(|path| !wanted.contains_key(*path)) {
        if !managers.others(manager).any(|set| set.contains(path)) {
            remove(&mut result, path);
        }
    }
    for (path, value) in &wanted {
        put(&mut result, path, (*value).clone());
    }
    for field in ["apiVersion", "kind"] {
        result[field] = config[field].clone();
    }
    for field in ["name", "namespace"] {
        if let Some(value) = config["metadata"].get(field) {
            result["metadata"][field] = value.clone();
        }
    }
    let fields: BTreeSet<Path> = wanted.into_keys().collect();
    if earlier != fields || !managers.has_applied(manager) {
        managers.set(manager, "Apply", &config["apiVersion"], fields);
    }
    managers.write(&mut result);
    Ok(result)
}

/// Notes that `manager` created or changed `after` from `before`, with another verb than apply.
pub(crate) fn updated(before: Option<&Value>, after: &mut Value, manager: &str) {
    let mut managers = Managers::of(after);
    if before.is_some() && managers.0.is_empty() {
        // What nobody is on record for stays so until somebody applies.
        return;
    }
    let empty = json!({});
    let old = owned(before.unwrap_or(&empty));
    let new = owned(after);
    let changed: BTreeSet<Path> = new
        .iter()
        .filter(|(path, value)| old.get(*path) != Some(value))
        .map(|(path, _)| path.clone())
        .collect();
    let gone: Vec<Path> = old
        .keys()
        .filter(|path| !new.contains_key(*path))
        .cloned()
        .collect();
    let api = after["apiVersion"].clone();
    if changed.is_empty() && gone.is_empty() {
        return;
    }
    for path in changed.iter().chain(&gone) {
        managers.take(path);
    }
    if !changed.is_empty() {
        let mut all = managers.updated(manager);
        all.extend(changed);
        managers.set(manager, "Update", &api, all);
    }
    managers.write(after);
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match target.as_object_mut() {
            Some(map) if value.is_null() => {
                map.remove(key);
            }
            _ => merge(&mut target[key.as_str()], value),
        }
    }
}

fn conflict(clashes: &[(String, Path)], config: &Value) -> Conflict {
    let api = config["apiVersion"].as_str().unwrap_or_default();
    let texts = clashes.iter().map(|(manager, path)| {
        let path = path.iter().map(|key| format!(".{key}")).collect::<String>();
        format!("conflict with \"{manager}\" using {api}: {path}")
    });
    let texts: Vec<String> = texts.collect();
    let plural = if texts.len() == 1 { "" } else { "s" };
    Conflict(format!(
        "Apply failed with {} conflict{plural}: {}",
        texts.len(),
        texts.join("\n")
    ))
}

/// The fields of an object that somebody can own.
fn owned(object: &Value) -> Leaves<'_> {
    let mut leaves = Leaves::new();
    collect(object, &mut Vec::new(), &mut leaves);
    leaves.retain(|path, _| {
        !NOBODYS
            .iter()
            .any(|not| path.iter().zip(*not).all(|(a, b)| a == b) && path.len() >= not.len())
            && path.get(1).map(String::as_str) != Some("managedFields")
            && path.get(1).map(String::as_str) != Some("generation")
    });
    leaves
}

/// One entry of `managedFields`.
struct Entry {
    manager: String,
    operation: String,
    api: Value,
    time: Value,
    fields: BTreeSet<Path>,
}

/// All of them.
struct Managers(Vec<Entry>);

impl Managers {
    fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array();
        let read = |entry: &Value| {
            let mut fields = BTreeSet::new();
            paths(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
            Entry {
                manager: entry["manager"].as_str().unwrap_or_default().to_owned(),
                operation: entry["operation"].as_str().unwrap_or_default().to_owned(),
                api: entry["apiVersion"].clone(),
                time: entry["time"].clone(),
                fields,
            }
        };
        Self(entries.into_iter().flatten().map(read).collect())
    }

    /// What others set to something else than is wanted.
    fn clashes(&self, wanted: &Leaves<'_>, live: &Value, manager: &str) -> Vec<(String, Path)> {
        let others = self.0.iter().filter(|entry| !is(entry, manager, "Apply"));
        let clashes = others.flat_map(|entry| {
            let differs = |path: &&Path| {
                wanted
                    .get(*path)
                    .is_some_and(|wanted| **wanted != *at(live, path))
            };
            let paths = entry.fields.iter().filter(differs);
            paths.map(|path| (entry.manager.clone(), path.clone()))
        });
        clashes.collect()
    }

    fn take(&mut self, path: &Path) {
        for entry in &mut self.0 {
            entry.fields.remove(path);
        }
    }

    fn set_of(&self, manager: &str, operation: &str) -> BTreeSet<Path> {
        let entry = self.0.iter().find(|entry| is(entry, manager, operation));
        entry.map(|entry| entry.fields.clone()).unwrap_or_default()
    }

    fn applied(&self, manager: &str) -> BTreeSet<Path> {
        self.set_of(manager, "Apply")
    }

    fn updated(&self, manager: &str) -> BTreeSet<Path> {
        self.set_of(manager, "Update")
    }

    fn has_applied(&self, manager: &str) -> bool {
        self.0.iter().any(|entry| is(entry, manager, "Apply"))
    }

    fn others<'a>(&'a self, manager: &'a str) -> impl Iterator<Item = &'a BTreeSet<Path>> {
        let others = self
            .0
            .iter()
            .filter(move |entry| !is(entry, manager, "Apply"));
        others.map(|entry| &entry.fields)
    }

    fn set(&mut self, manager: &str, operation: &str, api: &Value, fields: BTreeSet<Path>) {
        self.0.retain(|entry| !is(entry, manager, operation));
        self.0.push(Entry {
            manager: manager.to_owned(),
            operation: operation.to_owned(),
            api: api.clone(),
            time: json!(clock::now()),
            fields,
        });
    }

    fn write(&self, object: &mut Value) {
        let entries = self.0.iter().filter(|entry| !entry.fields.is_empty());
        let entries: Vec<Value> = entries
            .map(|entry| {
                let mut tree = json!({});
                for path in &entry.fields {
                    let place =
                        path.iter()
                            .fold(&mut tree, |at, key| match key.starts_with("k:") {
                                true => &mut at[key.as_str()],
                                false => &mut at[format!("f:{key}").as_str()],
                            });
                    *place = Value::Object(Map::new());
                }
                json!({
                    "manager": entry.manager,
                    "operation": entry.operation,
                    "apiVersion": entry.api,
                    "time": entry.time,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": tree,
                })
            })
            .collect();
        object["metadata"]["managedFields"] = json!(entries);
    }
}

fn is(entry: &Entry, manager: &str, operation: &str) -> bool {
    entry.manager == manager && entry.operation == operation
}

fn paths(tree: &Value, path: &mut Path, into: &mut BTreeSet<Path>) {
    for (key, below) in tree.as_object().into_iter().flatten() {
        path.push(key.strip_prefix("f:").unwrap_or(key).to_owned());
        match below.as_object() {
            Some(map) if !map.is_empty() => paths(below, path, into),
            _ => {
                into.insert(path.clone());
            }
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: u64, extra: Option<&str>) -> Value {
        let mut object = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"replicas": replicas},
        });
        if let Some(extra) = extra {
            object["metadata"]["annotations"] = json!({"note/x": extra});
        }
        object
    }

    #[test]
    fn what_is_no_longer_applied_goes_away() {
        let first = apply(None, &deployment(2, Some("one")), "kdev", false).unwrap();
        assert_eq!(first["metadata"]["annotations"]["note/x"], "one");
        let second = apply(Some(&first), &deployment(2, None), "kdev", false).unwrap();
        assert_eq!(second["metadata"].get("annotations"), None);
        assert_eq!(second["metadata"]["labels"]["app"], "a");
        let again = apply(Some(&second), &deployment(2, None), "kdev", false).unwrap();
        assert_eq!(
            again, second,
            "the same again changes nothing, not even a time"
        );
    }

    #[test]
    fn what_another_manager_set_is_a_conflict() {
        let first = apply(None, &deployment(2, None), "kdev", false).unwrap();
        let mut scaled = first.clone();
        scaled["spec"]["replicas"] = json!(5);
        updated(Some(&first), &mut scaled, "kubectl");
        let same = apply(Some(&scaled), &deployment(5, None), "kdev", false).unwrap();
        assert_eq!(same["spec"]["replicas"], 5);
        let Conflict(text) = apply(Some(&scaled), &deployment(2, None), "kdev", false).unwrap_err();
        assert_eq!(
            text,
            "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1: .spec.replicas"
        );
        let forced = apply(Some(&scaled), &deployment(2, None), "kdev", true).unwrap();
        assert_eq!(forced["spec"]["replicas"], 2);
        assert!(apply(Some(&forced), &deployment(3, None), "kdev", false).is_ok());
    }

    #[test]
    fn ports_of_services_have_owners_of_their_own() {
        let service = |target: &str| {
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
                "spec": {"ports": [
                    {"name": "http", "port": 80, "protocol": "TCP", "targetPort": target},
                    {"name": "admin", "port": 81, "protocol": "TCP", "targetPort": 8081},
                ]},
            })
        };
        let first = apply(None, &service("http"), "team", false).unwrap();
        assert_eq!(first["spec"], service("http")["spec"]);
        let mut changed = first.clone();
        changed["spec"]["ports"][0]["targetPort"] = json!(20000);
        updated(Some(&first), &mut changed, "kdev");
        let fields = &changed["metadata"]["managedFields"][1]["fieldsV1"];
        let key = r#"k:{"port":80,"protocol":"TCP"}"#;
        assert_eq!(
            *fields,
            json!({"f:spec": {"f:ports": {key: {"f:targetPort": {}}}}})
        );
        let Conflict(text) = apply(Some(&changed), &service("http"), "team", false).unwrap_err();
        assert!(
            text.contains("conflict with \"kdev\"") && text.contains("targetPort"),
            "{text}"
        );
        let forced = apply(Some(&changed), &service("other"), "team", true).unwrap();
        assert_eq!(forced["spec"], service("other")["spec"]);
        let mut one = service("other");
        one["spec"]["ports"].as_array_mut().unwrap().pop();
        let fewer = apply(Some(&forced), &one, "team", false).unwrap();
        assert_eq!(fewer["spec"], one["spec"]);
    }

    #[test]
    fn merge_patches_remove_what_is_null() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        merge(&mut object, &json!({"a": {"b": null, "e": 3}, "d": [4]}));
        assert_eq!(object, json!({"a": {"c": 2, "e": 3}, "d": [4]}));
    }
}
