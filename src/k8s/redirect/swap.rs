//! What is changed of a Service so that its traffic comes to the relay, and back again. Nothing
//! here talks to the cluster.
//!
//! Each key of the selector keeps its name, because `kubectl apply` and Helm merge selectors key by
//! key: one that they do not know would stay beside theirs and match nothing. Back again goes only
//! what still has kdev's value.

use serde_json::{Map, Value, json};

use super::marks::{INTERCEPTED, relay_value};
use super::object::{label, name, port_name, port_number, ports, selector, version};

/// The spec of the Service `live` as it would be without the intercept that `origin` serves.
pub(super) fn plain(live: &Value, origin: &Value) -> Value {
    let (mut spec, kept) = (live["spec"].clone(), &origin["spec"]);
    let mut held = false;
    if let Some(selector) = spec["selector"].as_object_mut() {
        for (key, value) in selector {
            let own = &kept["selector"][key.as_str()];
            if *value == relay_value(key) && own.is_string() {
                (*value, held) = (own.clone(), true);
            }
        }
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        if let Some(own) = landing_of(port, kept)
            && port["targetPort"] == own["port"]
        {
            port["targetPort"] = own["targetPort"].clone();
            held = true;
        }
    }
    if held && kept["publishNotReadyAddresses"] == true {
        spec["publishNotReadyAddresses"] = json!(true);
    }
    spec
}

/// The origin's port for a port of the Service.
pub(super) fn landing_of<'a>(port: &Value, origin_spec: &'a Value) -> Option<&'a Value> {
    ports(origin_spec).find(|own| port_name(own) == port_name(port))
}

/// What is not as an intercept by `origin` would have it, for people; none where it is.
pub(super) fn astray(live: &Value, origin: &Value) -> Option<String> {
    let spec = &live["spec"];
    let mut keys = selector(spec).peekable();
    if keys.peek().is_none() || keys.any(|(key, value)| value != relay_value(key)) {
        return Some("its selector was set to other pods".to_owned());
    }
    let led = |port: &Value| {
        landing_of(port, &origin["spec"]).is_some_and(|own| own["port"] == port["targetPort"])
    };
    if let Some(port) = ports(spec).find(|port| !led(port)) {
        let number = port_number(port);
        return Some(format!("the target of its port {number} was changed"));
    }
    if spec["publishNotReadyAddresses"] == true {
        return Some("publishNotReadyAddresses was set".to_owned());
    }
    let marked = label(live, INTERCEPTED).split('.').next();
    (marked != Some(name(origin))).then(|| format!("its label {INTERCEPTED} was taken off"))
}

/// The patch that brings `live` to the relay. `mark` differs from one patch to the next.
pub(super) fn there(live: &Value, origin: &Value, mark: &str) -> Value {
    let mut spec = plain(live, origin);
    let keys = selector(&spec).map(|(key, _)| (key.to_owned(), json!(relay_value(key))));
    let keys: Map<String, Value> = keys.collect();
    let mut list = spec["ports"].take();
    for port in list.as_array_mut().into_iter().flatten() {
        if let Some(own) = landing_of(port, &origin["spec"]) {
            port["targetPort"] = own["port"].clone();
        }
    }
    let mut patch = json!({
        "metadata": {
            "resourceVersion": version(live),
            "labels": {INTERCEPTED: format!("{}.{mark}", name(origin))},
        },
        "spec": {"selector": keys, "ports": list},
    });
    if spec["publishNotReadyAddresses"] == true {
        patch["spec"]["publishNotReadyAddresses"] = json!(false);
    }
    patch
}

/// The patch that gives `live` back to its own pods; none where nothing of kdev's is left.
pub(super) fn back(live: &Value, origin: &Value) -> Option<Value> {
    let spec = plain(live, origin);
    let mut patch = json!({"metadata": {"resourceVersion": version(live)}});
    for field in ["selector", "ports", "publishNotReadyAddresses"] {
        if spec[field] != live["spec"][field] {
            patch["spec"][field] = spec[field].clone();
        }
    }
    if !label(live, INTERCEPTED).is_empty() {
        patch["metadata"]["labels"] = json!({INTERCEPTED: null});
    }
    let changes = patch.get("spec").is_some() || patch["metadata"].get("labels").is_some();
    changes.then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        json!({
            "metadata": {"name": "web", "resourceVersion": "7", "labels": {"team": "a"}},
            "spec": {
                "selector": {"app": "web", "tier": "front"},
                "publishNotReadyAddresses": true,
                "ports": [
                    {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 31294},
                    {"name": "admin", "port": 81, "protocol": "TCP", "targetPort": 8080, "nodePort": 31295},
                ],
            },
        })
    }

    fn origin() -> Value {
        json!({
            "metadata": {"name": "kdev-20008"},
            "spec": {
                "selector": {"app": "web", "tier": "front"},
                "publishNotReadyAddresses": true,
                "ports": [
                    {"name": "http", "port": 20008, "targetPort": "http"},
                    {"name": "admin", "port": 20009, "targetPort": 8080},
                ],
            },
        })
    }

    /// RFC 7386, for objects.
    fn merged(object: &Value, patch: &Value) -> Value {
        let Some(patch) = patch.as_object() else {
            return patch.clone();
        };
        let mut object = object.as_object().cloned().unwrap_or_default();
        for (key, value) in patch {
            if value.is_null() {
                object.remove(key);
            } else {
                let new = merged(object.get(key).unwrap_or(&Value::Null), value);
                object.insert(key.clone(), new);
            }
        }
        Value::Object(object)
    }

    #[test]
    fn there_and_back_is_as_before() {
        let (before, origin) = (service(), origin());
        assert!(astray(&before, &origin).is_some());
        let swapped = merged(&before, &there(&before, &origin, "1"));
        assert_eq!(
            swapped["spec"]["selector"],
            json!({"app": "kdev-relay", "tier": "kdev-relay"})
        );
        assert_eq!(swapped["spec"]["ports"][0]["targetPort"], 20008);
        assert_eq!(swapped["spec"]["ports"][1]["nodePort"], 31295);
        assert_eq!(swapped["spec"]["publishNotReadyAddresses"], false);
        assert_eq!(astray(&swapped, &origin), None);
        assert_eq!(plain(&swapped, &origin), before["spec"]);
        let after = merged(&swapped, &back(&swapped, &origin).unwrap());
        assert_eq!(after, before);
        assert_eq!(back(&after, &origin), None);
    }

    #[test]
    fn what_somebody_changed_meanwhile_stays() {
        let (before, origin) = (service(), origin());
        let mut swapped = merged(&before, &there(&before, &origin, "1"));
        swapped["spec"]["selector"]["tier"] = json!("back");
        swapped["spec"]["ports"][1]["targetPort"] = json!("other");
        swapped["spec"]["ports"][0]["port"] = json!(8000);
        assert!(astray(&swapped, &origin).is_some());
        let after = merged(&swapped, &back(&swapped, &origin).unwrap());
        assert_eq!(
            after["spec"]["selector"],
            json!({"app": "web", "tier": "back"})
        );
        assert_eq!(after["spec"]["ports"][1]["targetPort"], "other");
        assert_eq!(after["spec"]["ports"][0]["targetPort"], "http");
        assert_eq!(after["spec"]["ports"][0]["port"], 8000);
    }

    #[test]
    fn a_target_that_happens_to_be_a_landing_is_left_alone() {
        let (mut before, mut origin) = (service(), origin());
        before["spec"]["ports"][1]["targetPort"] = json!(20008);
        origin["spec"]["ports"][1]["targetPort"] = json!(20008);
        assert_eq!(plain(&before, &origin), before["spec"]);
        let swapped = merged(&before, &there(&before, &origin, "1"));
        assert_eq!(plain(&swapped, &origin), before["spec"]);
    }

    #[test]
    fn a_service_that_another_manifest_replaced_keeps_all_of_it() {
        let mut live = service();
        live["spec"]["publishNotReadyAddresses"] = json!(false);
        live["spec"]["selector"] = json!({"app": "other"});
        assert_eq!(plain(&live, &origin()), live["spec"]);
    }
}
