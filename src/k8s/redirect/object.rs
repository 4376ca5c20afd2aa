//! Services as the API shows them.

use serde_json::Value;

/// A string inside an object; empty where it is none.
pub(super) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    let found = path.iter().fold(object, |at, key| &at[*key]);
    found.as_str().unwrap_or_default()
}

/// An object's name.
pub(super) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// An object's UID.
pub(super) fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// The version to change it from.
pub(super) fn version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

/// A label; empty where there is none.
pub(super) fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &["metadata", "labels", key])
}

/// An annotation; empty where there is none.
pub(super) fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &["metadata", "annotations", key])
}

/// The ports of a Service's spec.
pub(super) fn ports(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["ports"].as_array().into_iter().flatten()
}

/// A port's name; empty where it has none.
pub(super) fn port_name(port: &Value) -> &str {
    text(port, &["name"])
}

/// A port's number.
pub(super) fn port_number(port: &Value) -> u16 {
    let number = port["port"].as_u64().unwrap_or_default();
    u16::try_from(number).unwrap_or_default()
}

/// A port of a Service for people: `port admin (9090) of web`.
pub(super) fn port_label(port: &Value, service: &str) -> String {
    match (port_name(port), port_number(port)) {
        ("", number) => format!("port {number} of {service}"),
        (name, number) => format!("port {name} ({number}) of {service}"),
    }
}

/// The selector of a Service's spec, as keys and values.
pub(super) fn selector(spec: &Value) -> impl Iterator<Item = (&str, &str)> {
    let selector = spec["selector"].as_object().into_iter().flatten();
    selector.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

/// Whether a Service's selector means a pod with these labels.
pub(super) fn selects(spec: &Value, labels: &Value) -> bool {
    let mut keys = selector(spec).peekable();
    keys.peek().is_some() && keys.all(|(key, value)| labels[key] == value)
}
