//! What is dialled from inside the cluster.

use super::*;
use crate::addr::Protocol;
use crate::dial::{Inside, NEEDS_RELAY};

fn udp(target: &Target) -> Wanted<'_> {
    Wanted {
        protocol: Protocol::Udp,
        ..Wanted::tcp(target)
    }
}

fn shown(inside: &Inside) -> Vec<String> {
    let mut targets: Vec<String> = inside.targets.iter().map(ToString::to_string).collect();
    targets.sort_unstable();
    targets
}

/// What a pod would dial for `target`, and whether somebody is known to be there.
fn inside(store: &Store, target: &str) -> (Vec<String>, bool) {
    let inside = pods(store, target).inside;
    (shown(&inside), inside.known)
}

fn one(target: &str, known: bool) -> (Vec<String>, bool) {
    (vec![target.to_owned()], known)
}

#[test]
fn a_service_is_dialled_at_its_own_address_and_its_pods_ports_at_theirs() {
    let mut store = Store::default();
    web(&mut store, json!({}));
    pod(&mut store, "a", "10.0.0.1", true);
    pod(&mut store, "b", "10.0.0.2", true);
    assert_eq!(inside(&store, "web:80"), one("10.96.0.7:80", true));
    assert_eq!(inside(&store, "10.96.0.7:81"), one("10.96.0.7:81", true));
    let both = |port, known| {
        let ips = ["10.0.0.1", "10.0.0.2"];
        (ips.map(|ip| format!("{ip}:{port}")).to_vec(), known)
    };
    assert_eq!(inside(&store, "web:8080"), both(8080, true));
    assert_eq!(inside(&store, "web:4321"), both(4321, false));
    assert_eq!(inside(&store, "10.0.0.2:8080"), one("10.0.0.2:8080", true));
    pod(&mut store, "b", "10.0.0.2", false);
    assert_eq!(inside(&store, "10.0.0.2:8080"), one("10.0.0.2:8080", false));
    web(&mut store, json!({"clusterIP": "None"}));
    assert_eq!(inside(&store, "web:80"), one("10.0.0.1:8080", true));
}

#[test]
fn of_two_families_the_asked_one_or_the_first() {
    let store = of_two_families();
    for (target, dialled) in [
        ("web:80", "[fd00::a]:80"),
        ("[fd00::a]:80", "[fd00::a]:80"),
        ("10.96.0.9:80", "10.96.0.9:80"),
        ("web:8080", "[fd00::1]:8080"),
        ("10.0.0.1:8080", "10.0.0.1:8080"),
    ] {
        assert_eq!(inside(&store, target), one(dialled, true), "{target}");
    }
}

#[test]
fn endpoints_have_addresses_of_their_services_families() {
    let mut store = of_two_families();
    let headless = |store: &mut Store, families: Value| {
        web(store, json!({"clusterIP": "None", "ipFamilies": families}));
    };
    let [four, six] = ["10.0.0.1:8080", "[fd00::1]:8080"];
    for (families, dialled) in [
        (json!(["IPv4"]), four),
        (json!(["IPv6"]), six),
        (json!(["IPv4", "IPv6"]), four),
        (json!(["IPv6", "IPv4"]), six),
    ] {
        headless(&mut store, families.clone());
        for target in ["web:80", "web:8080", "web.shop.svc.cluster.local:80"] {
            assert_eq!(
                inside(&store, target),
                one(dialled, true),
                "{families} {target}"
            );
        }
    }
    for (target, dialled) in [
        ("fd00--1.web:8080", six),
        ("10-0-0-1.web:8080", four),
        ("fd00--1.shop.pod:8080", six),
        ("10-0-0-1.shop.pod:8080", four),
    ] {
        assert_eq!(inside(&store, target), one(dialled, true), "{target}");
    }
    headless(&mut store, json!(["IPv6"]));
    assert!(matches!(find(&store, "10-0-0-1.web:8080"), Found::Absent));
    pod(&mut store, "old", "10.0.0.2", true);
    assert_eq!(
        pods(&store, "web:80").pods.len(),
        1,
        "it has no such address"
    );
    store.remove_pod("shop", "a");
    let error = failure(&store, "web:80").to_string();
    assert!(
        error.contains("1 is ready and has no IPv6 address"),
        "{error}"
    );
    let named = json!({"/spec/subdomain": "web", "/spec/hostname": "web-0"});
    store.apply_pod(&raw_pod("named", "10.0.0.3", true, named));
    let error = failure(&store, "web-0.web:8080").to_string();
    assert!(error.contains("has no IPv6 address"), "{error}");
}

#[test]
fn written_endpoints_of_two_families_are_those_of_the_preferred_one_first() {
    let pod = json!({"kind": "Pod", "namespace": "shop", "name": "a", "uid": "a"});
    let slice = |name: &str, ip: &str| {
        json!({
            "metadata": {"namespace": "shop", "name": name},
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": [ip], "hostname": "one", "targetRef": pod}],
        })
    };
    let slices = json!([slice("web-1", "10.0.0.1"), slice("web-2", "fd00::1")]);
    let members = Members::of(serde_json::from_value(slices).unwrap());
    for (families, dialled) in [
        (json!(["IPv4", "IPv6"]), "10.0.0.1:8080"),
        (json!(["IPv6", "IPv4"]), "[fd00::1]:8080"),
        (json!(["IPv6"]), "[fd00::1]:8080"),
    ] {
        let mut store = Store::default();
        web(
            &mut store,
            json!({"clusterIP": "None", "ipFamilies": families}),
        );
        for target in ["web:80", "one.web:8080"] {
            let target: Target = target.parse().unwrap();
            let domain = ClusterDomain::default();
            let query = Query::of(&target.host, "shop", &domain, Names::Relative).remove(0);
            match members.answer(&store, &query, Wanted::tcp(&target)) {
                Answer::Is(Resolution::Pods(found)) => {
                    assert_eq!(shown(&found.inside), [dialled], "{families} {target}");
                }
                _ => panic!("{target}"),
            }
        }
    }
}

#[test]
fn ports_are_of_one_protocol() {
    let mut store = Store::default();
    web(&mut store, json!({}));
    pod(&mut store, "a", "10.0.0.1", true);
    let find = |target: &str| {
        let target: Target = target.parse().unwrap();
        let query = Query::service(Namespaced::new("shop", "web"));
        lookup::find(&store, &query, udp(&target))
    };
    let Found::Is(Resolution::Pods(found)) = find("web:53") else {
        panic!();
    };
    assert_eq!(shown(&found.inside), ["10.96.0.7:53"]);
    assert!(found.inside.known);
    let Found::Is(Resolution::Pods(found)) = find("web:5353") else {
        panic!();
    };
    assert_eq!(shown(&found.inside), ["10.0.0.1:5353"]);
    assert!(!found.inside.known);
    let Found::Is(Resolution::Failed(error)) = find("web:80") else {
        panic!();
    };
    assert!(error.to_string().contains("is TCP, and not UDP"), "{error}");
}

#[test]
fn what_may_not_be_seen_is_left_to_the_cluster() {
    let denied = DialError::Denied {
        verb: "list".to_owned(),
        resource: "pods".to_owned(),
        namespace: "shop".to_owned(),
        message: String::new(),
    };
    let mut store = Store::default();
    web(&mut store, json!({}));
    service(&mut store, "shop", "peers", json!({"clusterIP": "None"}));
    let unseen = |service: &str, target: &str, error: &DialError| {
        let target: Target = target.parse().unwrap();
        let query = Query::service(Namespaced::new("shop", service));
        match lookup::unseen(&store, &query, Wanted::tcp(&target), error) {
            Resolution::Inside { inside, .. } => Ok((shown(&inside), inside.known)),
            Resolution::Failed(error) => Err(error),
            other => panic!("{other:?}"),
        }
    };
    for (service, target, dialled) in [
        ("web", "web:80", "10.96.0.7:80"),
        ("web", "web:99", "web:99"),
        ("peers", "peers.shop:80", "peers.shop:80"),
        ("hidden", "hidden:80", "hidden:80"),
    ] {
        assert_eq!(
            unseen(service, target, &denied).unwrap(),
            one(dialled, false)
        );
    }
    unseen("peers", "10.0.0.1:80", &denied).unwrap_err();
    let away = DialError::Cluster {
        reason: "away".to_owned(),
        fix: String::new(),
    };
    unseen("hidden", "hidden:80", &away).unwrap_err();
}

#[test]
fn a_pods_name_is_its_address_whoever_may_see_it() {
    let store = Store::default();
    let target: Target = "10-0-0-9.other.pod.cluster.local:80".parse().unwrap();
    let domain = ClusterDomain::default();
    let queries = Query::of(&target.host, "shop", &domain, Names::Relative);
    let found = missing::not_found(&store, &queries[0], Wanted::tcp(&target));
    let Resolution::Inside { inside, why } = found else {
        panic!("{found:?}");
    };
    assert_eq!(shown(&inside), ["10.0.0.9:80"]);
    assert!(why.to_string().ends_with(NEEDS_RELAY), "{why}");
}

/// A Service whose endpoints somebody else wrote.
fn written(spec: Value, ready: bool) -> (Store, Members) {
    let mut store = Store::default();
    service(&mut store, "shop", "db", spec);
    let slices = json!([{
        "metadata": {"namespace": "shop", "name": "db-1"},
        "ports": [
            {"name": "pg", "port": 15432},
            {"name": "log", "port": 1514, "protocol": "UDP"},
        ],
        "endpoints": [
            {"addresses": ["192.0.2.1"], "conditions": {"ready": ready}, "hostname": "one"},
            {"addresses": ["192.0.2.2"], "conditions": {"ready": ready}},
        ],
    }]);
    (store, Members::of(serde_json::from_value(slices).unwrap()))
}

#[test]
fn endpoints_that_are_no_pods_are_reached_from_inside() {
    let ports = json!([
        {"name": "pg", "port": 5432},
        {"name": "log", "port": 514, "protocol": "UDP"},
    ]);
    let answer = |(store, members): &(Store, Members), target: &str, udp_wanted: bool| {
        let target: Target = target.parse().unwrap();
        let wanted = if udp_wanted {
            udp(&target)
        } else {
            Wanted::tcp(&target)
        };
        let domain = ClusterDomain::default();
        let query = Query::of(&target.host, "shop", &domain, Names::Relative).remove(0);
        match members.answer(store, &query, wanted) {
            Answer::Is(Resolution::Inside { inside, why }) => {
                assert!(why.to_string().ends_with(NEEDS_RELAY), "{why}");
                (shown(&inside), inside.known)
            }
            Answer::Is(Resolution::Failed(error)) => (vec![error.to_string()], false),
            _ => panic!("{target}"),
        }
    };
    let cluster = written(json!({"clusterIP": "10.96.0.5", "ports": ports}), true);
    assert_eq!(
        answer(&cluster, "db:5432", false),
        one("10.96.0.5:5432", true)
    );
    assert_eq!(answer(&cluster, "db:514", true), one("10.96.0.5:514", true));
    assert_eq!(
        answer(&cluster, "one.db.shop.svc:15432", false),
        one("192.0.2.1:15432", true)
    );
    let headless = written(json!({"clusterIP": "None", "ports": ports}), true);
    let both = |port: u16| vec![format!("192.0.2.1:{port}"), format!("192.0.2.2:{port}")];
    assert_eq!(answer(&headless, "db:5432", false), (both(15432), true));
    assert_eq!(answer(&headless, "db:514", true), (both(1514), true));
    assert_eq!(answer(&headless, "db:99", false), (both(99), false));
    let unready = written(json!({"clusterIP": "10.96.0.5", "ports": ports}), false);
    let (error, _) = answer(&unready, "db:5432", false);
    assert!(
        error[0].contains("2 endpoints that are no pods, none ready"),
        "{error:?}"
    );
}
