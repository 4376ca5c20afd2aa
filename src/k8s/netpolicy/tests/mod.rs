//! Tables: what policies mean, and who loses by an intercept.

mod losses;
mod verdict;

use serde_json::{Value, json};

use super::party::{Party, Place};
use super::selector::{Labels, labels};
use super::spec::Policy;

/// A policy `name` of namespace `shop`.
fn policy(name: &str, spec: Value) -> Policy {
    policy_in("shop", name, spec)
}

fn policy_in(namespace: &str, name: &str, spec: Value) -> Policy {
    Policy::read(&json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}))
}

fn place(name: &str, own: Value) -> Place {
    Place::new(name, labels(&own))
}

fn shop() -> Place {
    place("shop", json!({"team": "a"}))
}

fn other() -> Place {
    place("other", json!({"team": "b"}))
}

/// A pod with an address that says which, and ports `http` (8080) and `admin` (9090).
fn pod(name: &str, place: &Place, own: Value, ip: &str) -> Party {
    Party {
        name: format!("pod {name}"),
        place: Some(place.clone()),
        labels: labels(&own),
        ips: vec![ip.parse().unwrap()],
        ports: vec![("http".to_owned(), 8080), ("admin".to_owned(), 9090)],
    }
}

fn web() -> Party {
    pod("web-1", &shop(), json!({"app": "web"}), "10.1.0.1")
}

fn relay() -> Party {
    let own = json!({"app": "kdev-relay", "app.kubernetes.io/name": "kdev-relay"});
    let mut relay = pod("relay-1", &shop(), own, "10.1.0.9");
    relay.ports = vec![("tunnel".to_owned(), 20_601)];
    relay
}

fn caller() -> Party {
    pod("caller", &shop(), json!({"app": "caller"}), "10.1.0.2")
}

fn stranger() -> Party {
    pod("stranger", &other(), json!({"app": "caller"}), "10.2.0.2")
}

#[test]
fn pods_are_read_as_they_are() {
    let place = shop();
    let mut object = json!({
        "metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {
            "containers": [{"ports": [
                {"name": "http", "containerPort": 8080},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"containerPort": 1},
            ]}],
            "initContainers": [{"restartPolicy": "Always", "ports": [
                {"name": "side", "containerPort": 9, "protocol": "TCP"}]}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    });
    let party = Party::pod(&object, &place).unwrap();
    assert_eq!(
        party.ports,
        [("http".to_owned(), 8080), ("side".to_owned(), 9)]
    );
    assert_eq!(party.ips.len(), 2);
    assert_eq!(party.port(&json!("side")), Some(9));
    assert_eq!(party.port(&json!(7)), Some(7));
    assert_eq!(party.port(&json!("dns")), None);
    object["status"]["phase"] = json!("Succeeded");
    assert_eq!(Party::pod(&object, &place), None);
    object["status"]["phase"] = json!("Running");
    object["spec"]["hostNetwork"] = json!(true);
    assert_eq!(Party::pod(&object, &place), None);
}

#[test]
fn an_example_is_what_its_selector_selects() {
    use super::selector::Selector;
    for (selector, expected) in [
        (json!({}), json!({})),
        (json!({"matchLabels": {"a": "b"}}), json!({"a": "b"})),
        (
            json!({"matchExpressions": [
                {"key": "a", "operator": "In", "values": ["x", "y"]},
                {"key": "b", "operator": "Exists"},
                {"key": "c", "operator": "NotIn", "values": ["z"]},
                {"key": "d", "operator": "DoesNotExist"},
            ]}),
            json!({"a": "x", "b": ""}),
        ),
    ] {
        let selector = Selector::read(&selector);
        let example: Labels = selector.example();
        assert_eq!(example, labels(&expected));
        assert!(selector.selects(&example), "{selector:?}");
    }
}
