//! Fields of an object by the keys that lead to them, as `managedFields` has them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A field, by the keys that lead to it.
pub(super) type Path = Vec<String>;

/// Fields and what is in them.
pub(super) type Leaves<'a> = BTreeMap<Path, &'a Value>;

/// The fields of a value that is found by `path`.
pub(super) fn collect<'a>(value: &'a Value, path: &mut Path, into: &mut Leaves<'a>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                path.push(key.clone());
                collect(value, path, into);
                path.pop();
            }
        }
        Value::Null => {}
        Value::Array(items) if path.iter().eq(KEYED.iter()) => {
            for item in items {
                path.push(key_of(item));
                collect(item, path, into);
                path.pop();
            }
        }
        _ => {
            into.insert(path.clone(), value);
        }
    }
}

/// The list whose items have keys.
const KEYED: [&str; 2] = ["spec", "ports"];

/// The key of a Service's port, as `managedFields` has it.
fn key_of(port: &Value) -> String {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    format!(
        "k:{{\"port\":{},\"protocol\":\"{protocol}\"}}",
        port["port"]
    )
}

pub(super) fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |at, key| match at {
        Value::Array(items) => {
            let item = items.iter().find(|item| key_of(item) == *key);
            item.unwrap_or(&Value::Null)
        }
        _ => &at[key.as_str()],
    })
}

pub(super) fn put(object: &mut Value, path: &[String], value: Value) {
    let place = path.iter().fold(object, |at, key| {
        if let Some(key) = key.strip_prefix("k:") {
            if !at.is_array() {
                *at = json!([]);
            }
            return item(at, key);
        }
        if !at.is_object() {
            *at = json!({});
        }
        &mut at[key.as_str()]
    });
    *place = value;
}

/// The item of a list with this key, made where it is missing.
fn item<'a>(list: &'a mut Value, key: &str) -> &'a mut Value {
    let items = list.as_array().into_iter().flatten();
    let index = items.into_iter().position(|item| key_of(item)[2..] == *key);
    let index = index.unwrap_or_else(|| {
        let new = serde_json::from_str(key).unwrap_or_default();
        let items = list.as_array_mut().map(|items| {
            items.push(new);
            items.len() - 1
        });
        items.unwrap_or_default()
    });
    &mut list[index]
}

/// Removes a field, and what held nothing else.
pub(super) fn remove(object: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let parent = parents.iter().try_fold(&mut *object, |at, key| match at {
        Value::Array(items) => items.iter_mut().find(|item| key_of(item) == *key),
        _ => at.get_mut(key.as_str()),
    });
    let empty = match parent {
        Some(Value::Object(map)) => {
            // What an item is found by goes with the last of the rest of it.
            let is_key = |key: &String| key == "port" || key == "protocol";
            let keyed = parents.last().is_some_and(|key| key.starts_with("k:"));
            if !(keyed && is_key(last)) {
                map.remove(last);
            }
            map.is_empty() || keyed && map.keys().all(is_key)
        }
        Some(Value::Array(items)) => {
            items.retain(|item| key_of(item) != *last);
            items.is_empty()
        }
        _ => return,
    };
    if empty && parents.len() > 1 {
        remove(object, parents);
    }
}
