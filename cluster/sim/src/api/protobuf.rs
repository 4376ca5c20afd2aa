//! Just enough protobuf for the reviews that `kubectl auth can-i` posts in it.

use serde_json::{Map, Value, json};

/// What stands before every Kubernetes object in protobuf.
const MAGIC: &[u8] = b"k8s\0";

/// The object in a body, in the shape that the JSON form has; `None` when it is no such body.
pub(super) fn review(body: &[u8]) -> Option<Value> {
    // runtime.Unknown { typeMeta = 1, raw = 2, … }; a review { metadata = 1, spec = 2, … }
    let unknown = body.strip_prefix(MAGIC)?;
    let review = field(unknown, 2)?;
    let spec = field(review, 2).unwrap_or_default();
    let mut out = Map::new();
    // A rules review's spec is one string, an access review's one of two messages: the first byte
    // of those is a tag, which no name of a namespace begins with.
    match (field(spec, 1), field(spec, 2)) {
        (Some(namespace), _) if namespace.first().is_some_and(u8::is_ascii_alphanumeric) => {
            out.insert(
                "namespace".into(),
                json!(String::from_utf8_lossy(namespace)),
            );
        }
        (Some(attributes), _) => {
            let names = [
                "namespace",
                "verb",
                "group",
                "version",
                "resource",
                "subresource",
                "name",
            ];
            out.insert("resourceAttributes".into(), strings(attributes, &names));
        }
        (None, Some(attributes)) => {
            let attributes = strings(attributes, &["path", "verb"]);
            out.insert("nonResourceAttributes".into(), attributes);
        }
        (None, None) => {}
    }
    Some(json!({"spec": out}))
}

/// The string fields 1, 2, … of a message under their names.
fn strings(message: &[u8], names: &[&str]) -> Value {
    let mut out = Map::new();
    for (number, name) in (1..).zip(names) {
        if let Some(text) = field(message, number).filter(|text| !text.is_empty()) {
            out.insert((*name).to_owned(), json!(String::from_utf8_lossy(text)));
        }
    }
    Value::Object(out)
}

/// The first length-delimited field of a number.
fn field(mut message: &[u8], number: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                varint(&mut message)?;
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (value, rest) = message.split_at_checked(length)?;
                if tag >> 3 == number {
                    return Some(value);
                }
                message = rest;
            }
            1 => message = message.get(8..)?,
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    None
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, value.len() as u8], value].concat()
    }

    #[test]
    fn an_access_review_and_a_rules_review() {
        let attributes = [
            message(1, b"shop"),
            message(2, b"create"),
            message(5, b"pods"),
        ]
        .concat();
        let wrap = |spec: Vec<u8>| {
            let review = [message(1, b""), message(2, &spec)].concat();
            [MAGIC, &message(1, b"xx"), &message(2, &review)].concat()
        };
        assert_eq!(
            review(&wrap(message(1, &attributes))).unwrap()["spec"]["resourceAttributes"],
            json!({"namespace": "shop", "verb": "create", "resource": "pods"})
        );
        assert_eq!(
            review(&wrap(message(1, b"shop"))).unwrap()["spec"]["namespace"],
            "shop"
        );
        assert_eq!(review(b"{}"), None);
    }
}
