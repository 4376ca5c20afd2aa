//! The Service `kdev-PORT`, which leads from the relay to the original pods: its name is the lock of
//! the block of ports, its spec the backup, its annotations hold the claims.

use serde_json::{Map, Value, json};

use super::block::origin_name;
use super::fields;
use super::marks::{CLAIMS, ENDED, FIELDS, GIVEN_BACK, ORIGIN_OF};
use super::object::{annotation, name, port_name, ports, selector, text, uid, version};
use super::swap::landing_of;
use crate::intercept::claim::Claim;
use crate::k8s::install::shape::Shape;
use crate::k8s::install::{MANAGER, MANAGER_LABEL};
use crate::relay::BLOCK;
use crate::rule::MOST_CLAIMS;

/// Bytes of claims that one Service can have: with the rest, less than the 256 KiB that all
/// annotations of an object may take.
const MOST_BYTES: usize = 192 << 10;
/// Bytes of `managedFields` that are kept: twenty times what is usual. Larger ones are not given
/// back.
const MOST_FIELDS: usize = 32 << 10;
/// Claims that were ended by somebody else, which are remembered for their owners.
const MOST_ENDED: usize = 20;

/// What selects all of them in a list.
pub(super) const SELECTOR: &str = ORIGIN_OF;

/// The first origin of block `first` for the Service `live`, with these claims and what `shape` has of
/// labels and annotations.
pub(super) fn new(live: &Value, first: u16, claims: &[Claim], shape: &Shape) -> Value {
    let mut spec = copied(&live["spec"], first, &Value::Null);
    spec["type"] = json!("ClusterIP");
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if let Some(value) = live["spec"].get(field) {
            spec[field] = value.clone();
        }
    }
    let mut metadata = json!({
        "name": origin_name(first),
        "namespace": text(live, &["metadata", "namespace"]),
        "labels": {MANAGER_LABEL: MANAGER, ORIGIN_OF: name(live)},
        "annotations": {CLAIMS: json!(claims).to_string(), FIELDS: kept_fields(live, "")},
        // Without `blockOwnerDeletion`, which takes more than the role `edit`.
        "ownerReferences": [{
            "apiVersion": "v1",
            "kind": "Service",
            "name": name(live),
            "uid": uid(live),
        }],
    });
    shape.mark(&mut metadata);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// The patch that makes `origin` the backup of `live`, whose spec would be `plain` without kdev;
/// none where it is that already.
pub(super) fn renewed(origin: &Value, live: &Value, plain: &Value) -> Option<Value> {
    let first = first_port(origin);
    let mut spec = copied(plain, first, &origin["spec"]);
    let saved = annotation(origin, FIELDS);
    let fields = kept_fields(live, saved);
    let own = &origin["spec"];
    let same = own["selector"] == spec["selector"]
        && own["ports"] == spec["ports"]
        && (own["publishNotReadyAddresses"] == true) == (spec["publishNotReadyAddresses"] == true);
    if same && fields == saved {
        return None;
    }
    for (key, _) in selector(own) {
        if spec["selector"].get(key).is_none() {
            spec["selector"][key] = Value::Null;
        }
    }
    Some(json!({
        "metadata": {"resourceVersion": version(origin), "annotations": {FIELDS: fields}},
        "spec": spec,
    }))
}

/// What an origin has of a Service's spec. A port keeps the landing that it has in `before`.
fn copied(plain: &Value, first: u16, before: &Value) -> Value {
    let mut free: Vec<u16> = (first..first + BLOCK).collect();
    let kept = |port: &Value| landing_of(port, before).and_then(|own| own["port"].as_u64());
    for port in ports(plain).filter_map(kept) {
        free.retain(|landing| u64::from(*landing) != port);
    }
    let mut free = free.into_iter();
    let own = ports(plain).filter_map(|port| {
        let landing = kept(port).or_else(|| free.next().map(u64::from))?;
        let mut own = json!({
            "port": landing,
            "protocol": "TCP",
            "targetPort": port["targetPort"],
        });
        for field in ["name", "appProtocol"] {
            if let Some(value) = port.get(field) {
                own[field] = value.clone();
            }
        }
        Some(own)
    });
    let own: Vec<Value> = own.collect();
    json!({
        "selector": plain["selector"],
        "ports": own,
        "publishNotReadyAddresses": plain["publishNotReadyAddresses"] == true,
    })
}

/// The first port of its block.
pub(super) fn first_port(origin: &Value) -> u16 {
    let number = name(origin).rsplit('-').next();
    number.and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// Its ports, which are the relay's.
pub(super) fn landings(origin: &Value) -> Vec<(String, u16)> {
    let own = ports(&origin["spec"]);
    own.map(|port| (port_name(port).to_owned(), super::object::port_number(port)))
        .collect()
}

/// The name and the UID of the Service that it is for.
pub(super) fn owner(origin: &Value) -> (&str, &str) {
    let reference = &origin["metadata"]["ownerReferences"][0];
    (text(reference, &["name"]), text(reference, &["uid"]))
}

/// The one among `origins` for the Service with this UID. There are two only where two kdevs saw
/// different blocks free; all take the older one.
pub(super) fn of<'a>(origins: &'a [Value], uid: &str) -> Option<&'a Value> {
    let own = origins.iter().filter(|origin| owner(origin).1 == uid);
    own.min_by_key(|origin| {
        let made = text(origin, &["metadata", "creationTimestamp"]);
        (made, name(origin))
    })
}

/// The claims on record.
///
/// # Errors
/// When they cannot be read: nobody may overwrite what a newer kdev wrote.
pub(super) fn claims(origin: &Value) -> Result<Vec<Claim>, String> {
    match annotation(origin, CLAIMS) {
        "" => Ok(Vec::new()),
        text => serde_json::from_str(text).map_err(|error| {
            format!(
                "the claims on Service {} cannot be read ({error}); a newer kdev may have written \
                 them",
                name(origin)
            )
        }),
    }
}

/// Whether `claims` are too many for one Service, with the number.
pub(super) fn too_many(claims: &[Claim]) -> Option<String> {
    let bytes = json!(claims).to_string().len();
    if claims.len() > MOST_CLAIMS {
        return Some(format!(
            "{} intercepts at once, more than the {MOST_CLAIMS}",
            claims.len()
        ));
    }
    (bytes > MOST_BYTES).then(|| {
        format!(
            "{} intercepts of {bytes} bytes at once, more than the {MOST_BYTES} bytes",
            claims.len()
        )
    })
}

/// The patch that puts `claims` on record; with none left it says so.
pub(super) fn recorded(origin: &Value, claims: &[Claim], now: u64) -> Value {
    let given_back = match claims.is_empty() {
        true => json!(now.to_string()),
        false => Value::Null,
    };
    json!({
        "metadata": {
            "resourceVersion": version(origin),
            "annotations": {CLAIMS: json!(claims).to_string(), GIVEN_BACK: given_back},
        },
    })
}

/// When its last claim went, in seconds since 1970; none while there is one.
pub(super) fn given_back(origin: &Value) -> Option<u64> {
    annotation(origin, GIVEN_BACK).parse().ok()
}

/// Who ended a claim that is gone, if they said so.
pub(super) fn ended_by(origin: &Value, id: &str) -> Option<String> {
    let ended: Map<String, Value> = serde_json::from_str(annotation(origin, ENDED)).ok()?;
    ended.get(id)?.as_str().map(str::to_owned)
}

/// What the annotation of ended claims says once `by` has ended these too.
pub(super) fn ended(origin: &Value, ids: &[impl AsRef<str>], by: &str) -> String {
    let before: Map<String, Value> =
        serde_json::from_str(annotation(origin, ENDED)).unwrap_or_default();
    let new: Map<String, Value> = ids
        .iter()
        .map(|id| (id.as_ref().to_owned(), json!(by)))
        .collect();
    let room = MOST_ENDED.saturating_sub(new.len());
    let mut all: Map<String, Value> = before.into_iter().take(room).collect();
    all.extend(new);
    Value::Object(all).to_string()
}

/// What is kept of who set which field: as it is without kdev, `saved` being what was kept before.
fn kept_fields(live: &Value, saved: &str) -> String {
    let saved: Value = serde_json::from_str(saved).unwrap_or_else(|_| json!([]));
    let live = &live["metadata"]["managedFields"];
    let list = match fields::given_back(live, &saved) {
        // What clears a list is not in it.
        Some(list) if list == json!([{}]) => json!([]),
        Some(list) => list,
        None if live.is_array() => live.clone(),
        None => json!([]),
    };
    let text = list.to_string();
    match text.len() {
        ..=MOST_FIELDS => text,
        _ => "[]".to_owned(),
    }
}

/// `metadata.managedFields` of the Service as it was, as far as that was kept.
pub(super) fn saved_fields(origin: &Value) -> Value {
    serde_json::from_str(annotation(origin, FIELDS)).unwrap_or_else(|_| json!([]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u1",
                "labels": {"team": "a"}, "annotations": {"note": "b"},
            },
            "spec": {
                "type": "NodePort",
                "selector": {"app": "web"},
                "ipFamilies": ["IPv4"],
                "sessionAffinity": "ClientIP",
                "ports": [
                    {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http",
                     "nodePort": 31294, "appProtocol": "http"},
                    {"name": "admin", "port": 81, "protocol": "TCP", "targetPort": 8080},
                ],
            },
        })
    }

    fn claim(id: &str) -> Claim {
        serde_json::from_value(json!({"id": id, "owner": "ada"})).unwrap()
    }

    #[test]
    fn it_has_what_leads_to_the_pods_and_nothing_else() {
        let origin = new(&service(), 20008, &[claim("a")], &Shape::default());
        assert_eq!(origin["metadata"]["name"], "kdev-20008");
        assert_eq!(
            origin["spec"],
            json!({
                "type": "ClusterIP",
                "selector": {"app": "web"},
                "ipFamilies": ["IPv4"],
                "publishNotReadyAddresses": false,
                "ports": [
                    {"name": "http", "port": 20008, "protocol": "TCP", "targetPort": "http",
                     "appProtocol": "http"},
                    {"name": "admin", "port": 20009, "protocol": "TCP", "targetPort": 8080},
                ],
            })
        );
        let labels = json!({"app.kubernetes.io/managed-by": "kdev", "kdev.dev/origin-of": "web"});
        assert_eq!(origin["metadata"]["labels"], labels);
        assert_eq!(owner(&origin), ("web", "u1"));
        assert_eq!(claims(&origin).unwrap(), [claim("a")]);
        assert_eq!(first_port(&origin), 20008);
    }

    #[test]
    fn it_carries_what_policies_ask_for_beside_its_own() {
        let pairs = |all: &[(&str, &str)]| {
            let all = all.iter();
            all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let shape = Shape {
            labels: pairs(&[("team", "a"), (ORIGIN_OF, "other")]),
            annotations: pairs(&[("note", "b")]),
            ..Shape::default()
        };
        let origin = new(&service(), 20008, &[claim("a")], &shape);
        assert_eq!(
            origin["metadata"]["labels"],
            json!({"app.kubernetes.io/managed-by": "kdev", ORIGIN_OF: "web", "team": "a"})
        );
        assert_eq!(annotation(&origin, "note"), "b");
        assert_eq!(claims(&origin).unwrap(), [claim("a")]);
    }

    #[test]
    fn ports_keep_their_landings() {
        let origin = new(&service(), 20008, &[], &Shape::default());
        let mut live = service();
        assert_eq!(renewed(&origin, &live, &live["spec"]), None);
        live["spec"]["ports"][0] = json!({"name": "new", "port": 82, "targetPort": 1});
        live["spec"]["selector"] = json!({"tier": "front"});
        let patch = renewed(&origin, &live, &live["spec"]).unwrap();
        assert_eq!(
            patch["spec"]["selector"],
            json!({"app": null, "tier": "front"})
        );
        let ports: Vec<_> = ports(&patch["spec"])
            .map(|p| (port_name(p), p["port"].clone()))
            .collect();
        assert_eq!(ports, [("new", json!(20008)), ("admin", json!(20009))]);
    }

    #[test]
    fn the_number_and_the_bytes_of_claims_are_bounded() {
        let claims: Vec<Claim> = (0..501).map(|n| claim(&n.to_string())).collect();
        assert_eq!(too_many(&claims[..500]), None);
        assert!(too_many(&claims).unwrap().starts_with("501 intercepts"));
        let large = [claim(&"x".repeat(200 << 10))];
        assert!(too_many(&large).unwrap().contains("bytes"));
    }

    #[test]
    fn who_ended_a_claim_is_remembered_for_a_few() {
        let mut origin = json!({});
        for n in 0..30 {
            let text = ended(&origin, &[&format!("c{n}")], "bob");
            origin = json!({"metadata": {"annotations": {ENDED: text}}});
            assert_eq!(ended_by(&origin, &format!("c{n}")).unwrap(), "bob");
        }
        assert_eq!(ended_by(&origin, "other"), None);
        let all: Map<String, Value> = serde_json::from_str(annotation(&origin, ENDED)).unwrap();
        assert_eq!(all.len(), MOST_ENDED);
    }
}
