//! ResourceQuotas: what an admission refuses, in the real server's words. Counted are objects and
//! pods; of what containers ask for only that it is said.

use serde_json::{Value, json};

use crate::http::Failure;
use crate::resources::{PODS, QUOTAS, Resource};
use crate::store::Store;
use hyper::StatusCode;

/// What a quota makes every container say, as the path below `resources`.
const DEMANDS: [(&str, [&str; 2]); 6] = [
    ("limits.cpu", ["limits", "cpu"]),
    ("limits.memory", ["limits", "memory"]),
    ("requests.cpu", ["requests", "cpu"]),
    ("requests.memory", ["requests", "memory"]),
    ("limits.ephemeral-storage", ["limits", "ephemeral-storage"]),
    (
        "requests.ephemeral-storage",
        ["requests", "ephemeral-storage"],
    ),
];

/// Refuses an object that a quota of its namespace has no room for.
pub(crate) fn admit(store: &Store, resource: &Resource, object: &Value) -> Result<(), Failure> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let (_, quotas) = store.list(QUOTAS.plural, Some(namespace));
    for quota in &quotas {
        let hard = &quota["spec"]["hard"];
        let called = quota["metadata"]["name"].as_str().unwrap_or_default();
        if resource == &PODS {
            let missing: Vec<&str> = DEMANDS
                .iter()
                .filter(|(key, _)| hard.get(key).is_some())
                .filter(|(_, path)| !said_by_all(object, path))
                .map(|(key, _)| *key)
                .collect();
            if !missing.is_empty() {
                let missing = missing.join(",");
                return Err(forbidden(
                    resource,
                    name,
                    &format!("failed quota: {called}: must specify {missing}"),
                ));
            }
        }
        let counted = [
            resource.plural.to_owned(),
            format!("count/{}", qualified(resource)),
        ];
        for key in counted {
            let limit = hard[&key]
                .as_str()
                .and_then(|text| text.parse::<usize>().ok());
            let Some(limit) = limit else { continue };
            let used = store.list(resource.plural, Some(namespace)).1.len();
            if used >= limit {
                let text = format!(
                    "exceeded quota: {called}, requested: {key}=1, used: {key}={used}, limited: \
                     {key}={limit}"
                );
                return Err(forbidden(resource, name, &text));
            }
        }
    }
    Ok(())
}

/// Counts objects and pods into the quotas' status, as their controller does; what containers ask for
/// is not counted.
pub(crate) fn count(store: &Store) {
    let (_, quotas) = store.list(QUOTAS.plural, None);
    for quota in &quotas {
        let mut counted = Value::clone(quota);
        let field = |name: &str| quota["metadata"][name].as_str().unwrap_or_default();
        let (namespace, name) = (field("namespace"), field("name"));
        let hard = quota["spec"]["hard"].as_object().into_iter().flatten();
        for (key, limit) in hard {
            let resource = key.strip_prefix("count/").unwrap_or(key);
            let plural = resource.split('.').next().unwrap_or_default();
            if DEMANDS.iter().any(|(demanded, _)| demanded == key) || plural == "requests" {
                continue;
            }
            let used = store.list(plural, Some(namespace)).1.len();
            counted["status"]["hard"][key] = limit.clone();
            counted["status"]["used"][key] = json!(used.to_string());
        }
        let key = (
            QUOTAS.plural.to_owned(),
            namespace.to_owned(),
            name.to_owned(),
        );
        store.put(key, counted);
    }
}

fn said_by_all(pod: &Value, path: &[&str; 2]) -> bool {
    let kinds = ["initContainers", "containers"];
    let mut containers = kinds
        .iter()
        .flat_map(|kind| pod["spec"][kind].as_array().into_iter().flatten());
    containers.all(|container| container["resources"][path[0]].get(path[1]).is_some())
}

fn qualified(resource: &Resource) -> String {
    match resource.group {
        "" => resource.plural.to_owned(),
        group => format!("{}.{group}", resource.plural),
    }
}

fn forbidden(resource: &Resource, name: &str, why: &str) -> Failure {
    let message = format!("{} \"{name}\" is forbidden: {why}", qualified(resource));
    Failure::new(StatusCode::FORBIDDEN, "Forbidden", message)
        .with_details(json!({"name": name, "kind": resource.plural}))
}
