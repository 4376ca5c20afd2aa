//! Giving fields back: `metadata.managedFields` as it would be if kdev had never set any.
//!
//! Without it a team's next server-side apply would conflict with a kdev that is long gone.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::marks::FIELD_MANAGER;

/// What tells entries apart.
const IDENTITY: [&str; 4] = ["manager", "operation", "apiVersion", "subresource"];

/// The list `live` without kdev's entry: whoever had its fields in the list `saved` has them again.
/// None where kdev has no entry.
pub(super) fn given_back(live: &Value, saved: &Value) -> Option<Value> {
    let all = || live.as_array().into_iter().flatten();
    let taken = all().filter(|entry| is_own(entry));
    let taken = taken.fold(Map::new(), |taken, entry| united(&taken, fields(entry)));
    if taken.is_empty() {
        return None;
    }
    let mut left: Vec<Value> = all().filter(|entry| !is_own(entry)).cloned().collect();
    let mut given = Vec::new();
    for entry in others(saved) {
        let back = common(fields(entry), &taken);
        let at = left.iter().position(|live| is_same(live, entry));
        let mut given_to = match at {
            Some(at) => left.remove(at),
            // All that it had was taken.
            None if back.is_empty() => continue,
            None => {
                let mut entry = entry.clone();
                entry["fieldsV1"] = json!({});
                entry
            }
        };
        given_to["fieldsV1"] = Value::Object(united(fields(&given_to), &back));
        given.push(given_to);
    }
    given.extend(left);
    if given.is_empty() {
        // An empty list would be taken for none at all; this is how it is cleared.
        given.push(json!({}));
    }
    Some(Value::Array(given))
}

/// The entries that are not kdev's.
pub(super) fn others(list: &Value) -> impl Iterator<Item = &Value> {
    let list = list.as_array().into_iter().flatten();
    list.filter(|entry| !is_own(entry))
}

fn is_own(entry: &Value) -> bool {
    entry["manager"] == FIELD_MANAGER && entry["operation"] == "Update"
}

fn is_same(a: &Value, b: &Value) -> bool {
    IDENTITY.iter().all(|field| a[*field] == b[*field])
}

fn fields(entry: &Value) -> &Map<String, Value> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    entry["fieldsV1"].as_object().unwrap_or(&NONE)
}

/// The fields of either.
fn united(a: &Map<String, Value>, b: &Map<String, Value>) -> Map<String, Value> {
    let mut all = a.clone();
    for (key, below) in b {
        let there = all.get(key).and_then(Value::as_object);
        let union = match (there, below.as_object()) {
            (Some(there), Some(below)) => Value::Object(united(there, below)),
            _ => below.clone(),
        };
        all.insert(key.clone(), union);
    }
    all
}

/// The fields of `a` that are in `b` too. A field without anything below stands for all of it: one
/// version of a server takes apart what another one takes as a whole.
fn common(a: &Map<String, Value>, b: &Map<String, Value>) -> Map<String, Value> {
    let mut both = Map::new();
    for (key, below) in a {
        let Some(other) = b.get(key) else { continue };
        match (below.as_object(), other.as_object()) {
            (Some(x), Some(y)) if !x.is_empty() && !y.is_empty() => {
                let inner = common(x, y);
                if !inner.is_empty() {
                    both.insert(key.clone(), Value::Object(inner));
                }
            }
            _ => {
                both.insert(key.clone(), below.clone());
            }
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "v1",
            "time": format!("time of {manager}"), "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    }

    fn before() -> Value {
        json!([
            entry(
                "team",
                "Apply",
                json!({"f:spec": {
                    "f:ports": {"k:{\"port\":80}": {".": {}, "f:port": {}, "f:targetPort": {}}},
                    "f:selector": {".": {}, "f:app": {}},
                }})
            ),
            entry(
                "scaler",
                "Update",
                json!({"f:spec": {"f:selector": {"f:tier": {}}}})
            ),
        ])
    }

    fn during() -> Value {
        json!([
            entry(
                "team",
                "Apply",
                json!({"f:spec": {
                    "f:ports": {"k:{\"port\":80}": {".": {}, "f:port": {}}},
                    "f:selector": {".": {}},
                }})
            ),
            entry(
                "kdev",
                "Update",
                json!({
                    "f:metadata": {"f:labels": {".": {}, "f:kdev.dev/intercepted": {}}},
                    "f:spec": {
                        "f:ports": {"k:{\"port\":80}": {"f:targetPort": {}}},
                        "f:selector": {"f:app": {}, "f:tier": {}},
                    },
                })
            ),
        ])
    }

    #[test]
    fn all_is_as_before() {
        assert_eq!(given_back(&during(), &before()), Some(before()));
        assert_eq!(given_back(&before(), &before()), None);
    }

    #[test]
    fn what_others_took_meanwhile_is_theirs() {
        let mut live = during();
        // Somebody applied another target, and a newcomer a label.
        live[1]["fieldsV1"]["f:spec"]
            .as_object_mut()
            .unwrap()
            .remove("f:ports");
        let target = json!({"f:spec": {"f:ports": {"k:{\"port\":80}": {"f:targetPort": {}}}}});
        live.as_array_mut()
            .unwrap()
            .push(entry("newcomer", "Update", target.clone()));
        let back = given_back(&live, &before()).unwrap();
        let team = &back[0]["fieldsV1"]["f:spec"];
        assert_eq!(
            team["f:ports"]["k:{\"port\":80}"],
            json!({".": {}, "f:port": {}})
        );
        assert_eq!(team["f:selector"], json!({".": {}, "f:app": {}}));
        assert_eq!(back[1], before()[1]);
        assert_eq!(back[2], entry("newcomer", "Update", target));
        assert_eq!(back.as_array().unwrap().len(), 3);
    }

    #[test]
    fn fields_that_are_taken_as_a_whole_come_back_as_a_whole() {
        let saved = json!([entry(
            "team",
            "Apply",
            json!({"f:spec": {"f:selector": {}}})
        )]);
        let live = json!([entry(
            "kdev",
            "Update",
            json!({"f:spec": {"f:selector": {}}})
        )]);
        assert_eq!(given_back(&live, &saved), Some(saved));
    }

    #[test]
    fn a_list_without_anybody_is_cleared() {
        let live = json!([entry(
            "kdev",
            "Update",
            json!({"f:spec": {"f:selector": {}}})
        )]);
        assert_eq!(given_back(&live, &json!([])), Some(json!([{}])));
    }
}
