mod inside;

use serde_json::{Value, json};

use super::learn::Answer;
use super::lookup::{self, Found};
use super::members::Members;
use super::missing;
use super::name::Query;
use super::object::RawPod;
use super::store::Store;
use crate::addr::{ClusterDomain, Names, Namespaced, Target};
use crate::dial::{DialError, Endpoints, Resolution, Wanted};

fn service(store: &mut Store, namespace: &str, name: &str, spec: Value) {
    let raw = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
    store.apply_service(&serde_json::from_value(raw).unwrap());
}

fn web(store: &mut Store, more: Value) {
    let mut spec = json!({
        "clusterIP": "10.96.0.7",
        "selector": {"app": "web", "tier": "front"},
        "ports": [
            {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
            {"name": "admin", "port": 81, "targetPort": 9090},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    service(store, "shop", "web", spec);
}

fn raw_pod(name: &str, ip: &str, ready: bool, more: Value) -> RawPod {
    let mut pod = json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": format!("uid-{name}"),
            "labels": {"app": "web", "tier": "front", "pod": name},
        },
        "spec": {"containers": [{"ports": [
            {"name": "http", "containerPort": 8080},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        ]}]},
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    });
    for (path, value) in more.as_object().unwrap() {
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = pod.pointer_mut(parent).unwrap();
        match key.parse::<usize>() {
            Ok(index) => parent[index] = value.clone(),
            Err(_) => parent[key] = value.clone(),
        }
    }
    serde_json::from_value(pod).unwrap()
}

fn pod(store: &mut Store, name: &str, ip: &str, ready: bool) {
    store.apply_pod(&raw_pod(name, ip, ready, json!({})));
}

fn find(store: &Store, target: &str) -> Found {
    let target: Target = target.parse().unwrap();
    let queries = Query::of(
        &target.host,
        "shop",
        &ClusterDomain::default(),
        Names::Relative,
    );
    let found = queries
        .iter()
        .map(|query| lookup::find(store, query, Wanted::tcp(&target)));
    found
        .into_iter()
        .find(|found| !matches!(found, Found::Absent))
        .unwrap_or(Found::Absent)
}

fn pods(store: &Store, target: &str) -> Endpoints {
    match find(store, target) {
        Found::Is(Resolution::Pods(mut endpoints)) => {
            endpoints.pods.sort_by(|a, b| a.pod.cmp(&b.pod));
            endpoints
        }
        Found::Is(other) => panic!("{target}: {other:?}"),
        Found::Absent | Found::NoSelector => panic!("{target}: not there"),
    }
}

/// Names and ports of the pods behind `target`.
fn ports(store: &Store, target: &str) -> Vec<(String, u16)> {
    let pods = pods(store, target).pods.into_iter();
    pods.map(|p| (p.pod.name, p.port)).collect()
}

fn failure(store: &Store, target: &str) -> DialError {
    match find(store, target) {
        Found::Is(Resolution::Failed(error)) => error,
        Found::Is(other) => panic!("{target}: {other:?}"),
        Found::Absent | Found::NoSelector => panic!("{target}: not there"),
    }
}

#[test]
fn ports_of_a_service_lead_to_ports_of_pods() {
    let mut store = Store::default();
    web(&mut store, json!({}));
    pod(&mut store, "a", "10.0.0.1", true);
    store.apply_pod(&raw_pod(
        "b",
        "10.0.0.2",
        true,
        json!({"/spec/containers/0/ports/0/containerPort": 8081}),
    ));
    let both = |a, b| vec![("a".to_owned(), a), ("b".to_owned(), b)];
    assert_eq!(ports(&store, "web:80"), both(8080, 8081), "a name, per pod");
    assert_eq!(ports(&store, "web.shop.svc:81"), both(9090, 9090));
    assert_eq!(ports(&store, "10.96.0.7:81"), both(9090, 9090));
    assert!(pods(&store, "web:80").declared);
    assert_eq!(pods(&store, "web:80").pods[0].uid, "uid-a");
    assert!(pods(&store, "web:8080").declared, "the pods' own port");
    assert_eq!(ports(&store, "web:4321"), both(4321, 4321));
    assert!(!pods(&store, "web:4321").declared);
    let udp = failure(&store, "web:53").to_string();
    assert!(udp.contains("is UDP, and not TCP"), "{udp}");
}

#[test]
fn only_ready_pods_that_stay_take_traffic() {
    let mut store = Store::default();
    web(&mut store, json!({}));
    pod(&mut store, "a", "10.0.0.1", true);
    pod(&mut store, "b", "10.0.0.2", true);
    let names = |store: &Store| -> Vec<String> {
        let ports = ports(store, "web:80").into_iter();
        ports.map(|(name, _)| name).collect()
    };
    assert_eq!(names(&store), ["a", "b"]);
    pod(&mut store, "b", "10.0.0.2", false);
    assert_eq!(names(&store), ["a"], "unready");
    pod(&mut store, "b", "10.0.0.2", true);
    let deleted = json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"});
    store.apply_pod(&raw_pod("b", "10.0.0.2", true, deleted));
    assert_eq!(names(&store), ["a"], "terminating");
    store.remove_pod("shop", "b");
    store.apply_pod(&raw_pod(
        "a",
        "10.0.0.1",
        true,
        json!({"/status/phase": "Failed"}),
    ));
    let none = failure(&store, "web:80").to_string();
    assert!(
        none.contains("Service web in namespace shop has no ready pod (1 pod, not ready)")
            && none.contains("-l app=web,tier=front"),
        "{none}"
    );
    store.remove_pod("shop", "a");
    let none = failure(&store, "web:80").to_string();
    assert!(none.contains("no pod matches its selector"), "{none}");
}

#[test]
fn unready_pods_count_where_the_service_says_so() {
    let mut store = Store::default();
    web(&mut store, json!({"publishNotReadyAddresses": true}));
    pod(&mut store, "a", "10.0.0.1", false);
    assert_eq!(pods(&store, "web:80").pods.len(), 1);
    store.apply_pod(&raw_pod(
        "a",
        "",
        false,
        json!({"/status/podIPs": [], "/status/phase": "Pending"}),
    ));
    failure(&store, "web:80");
}

#[test]
fn pods_follow_their_labels() {
    let mut store = Store::default();
    web(&mut store, json!({}));
    pod(&mut store, "a", "10.0.0.1", true);
    store.apply_pod(&raw_pod(
        "a",
        "10.0.0.1",
        true,
        json!({"/metadata/labels/tier": "back"}),
    ));
    failure(&store, "web:80");
    web(&mut store, json!({"selector": {"tier": "back"}}));
    assert_eq!(pods(&store, "web:80").pods.len(), 1);
    web(&mut store, json!({"selector": {}}));
    assert!(matches!(find(&store, "web:80"), Found::NoSelector));
}

#[test]
fn a_named_port_that_no_pod_has_is_explained() {
    let mut store = Store::default();
    let ports = json!([{"port": 80, "targetPort": "grpc"}]);
    web(&mut store, json!({"ports": ports}));
    pod(&mut store, "a", "10.0.0.1", true);
    let error = failure(&store, "web:80").to_string();
    assert!(
        error.contains("named \"grpc\", which none of its 1 ready pods declares"),
        "{error}"
    );
}

#[test]
fn headless_services_and_their_pods_names() {
    let mut store = Store::default();
    web(&mut store, json!({"clusterIP": "None"}));
    let subdomain = json!({"/spec/subdomain": "web", "/spec/hostname": "web-0"});
    store.apply_pod(&raw_pod("web-0", "10.0.0.1", true, subdomain));
    assert_eq!(ports(&store, "web:8080"), [("web-0".to_owned(), 8080)]);
    assert_eq!(ports(&store, "web:80"), [("web-0".to_owned(), 8080)]);
    let one = pods(&store, "web-0.web.shop.svc:8080");
    assert!(one.service.is_none() && one.declared);
    assert!(matches!(
        find(&store, "web-1.web.shop.svc:8080"),
        Found::Absent
    ));
}

#[test]
fn addresses_belong_to_who_has_them_now() {
    let mut store = Store::default();
    web(&mut store, json!({}));
    pod(&mut store, "a", "10.0.0.1", false);
    let one = pods(&store, "10.0.0.1:8080");
    assert!(
        one.declared && one.service.is_none(),
        "unready all the same"
    );
    assert!(!pods(&store, "10-0-0-1.shop.pod.cluster.local:99").declared);
    // The next pod gets the address before the end of the first one is seen.
    pod(&mut store, "b", "10.0.0.1", true);
    store.remove_pod("shop", "a");
    assert_eq!(pods(&store, "10.0.0.1:8080").pods[0].pod.name, "b");
    store.remove_pod("shop", "b");
    assert!(matches!(find(&store, "10.0.0.1:8080"), Found::Absent));
    let host = json!({"/spec/hostNetwork": true});
    store.apply_pod(&raw_pod("c", "192.168.0.9", true, host));
    assert!(matches!(find(&store, "192.168.0.9:8080"), Found::Absent));
    assert_eq!(
        pods(&store, "web:80").pods.len(),
        1,
        "but its Service works"
    );
    store.remove_service("shop", "web");
    assert!(matches!(find(&store, "10.96.0.7:80"), Found::Absent));
}

#[test]
fn names_that_mean_no_service() {
    let mut store = Store::default();
    web(&mut store, json!({}));
    let missing = |name: &str| {
        let query = Query::service(Namespaced::new("shop", name));
        let target = format!("{name}:80").parse().unwrap();
        match missing::not_found(&store, &query, Wanted::tcp(&target)) {
            Resolution::Failed(DialError::NotFound { what, fix }) => (what, fix),
            other => panic!("{other:?}"),
        }
    };
    let (what, fix) = missing("wbe");
    assert_eq!(what, "Service wbe in namespace shop");
    assert_eq!(fix, "did you mean web?");
    assert_eq!(missing("orders").1, "in namespace shop there is web");
    service(
        &mut store,
        "shop",
        "db",
        json!({"type": "ExternalName", "externalName": "db.example.com."}),
    );
    let Found::Is(Resolution::Alias { service, name }) = find(&store, "db:5432") else {
        panic!();
    };
    assert_eq!(service, Namespaced::new("shop", "db"));
    assert_eq!(name, "db.example.com");
    let srv = failure(&store, "_http._tcp.web:1").to_string();
    assert!(srv.contains("dial web.shop:80 instead"), "{srv}");
    let srv = failure(&store, "_grpc._tcp.web.shop.svc:1").to_string();
    assert!(srv.contains("no port of that name"), "{srv}");
}

#[test]
fn endpoints_go_by_their_host_names_and_addresses() {
    let mut store = Store::default();
    web(&mut store, json!({"clusterIP": "None", "ports": []}));
    let named = json!({"/spec/subdomain": "web", "/spec/hostname": "db-0"});
    store.apply_pod(&raw_pod("a", "10.0.0.1", true, named.clone()));
    pod(&mut store, "b", "fd00::2", true);
    store.apply_pod(&raw_pod(
        "c",
        "10.0.0.3",
        false,
        json!({"/spec/subdomain": "web", "/spec/hostname": "db-2"}),
    ));
    let one = |host: &str| ports(&store, &format!("{host}:5432"));
    for host in [
        "db-0.web",
        "db-0.web.shop",
        "db-0.web.shop.svc.corp",
        "10-0-0-1.web.shop.svc",
    ] {
        assert_eq!(one(host), [("a".to_owned(), 5432)], "{host}");
    }
    for host in [
        "fd00--2.web",
        "fd00--2.shop.pod",
        "fd00--2.shop.pod.corp.example",
    ] {
        assert_eq!(one(host), [("b".to_owned(), 5432)], "{host}");
    }
    for absent in [
        "a.web.shop.svc:1",
        "db-0.other.shop.svc:1",
        "db-1.web:1",
        "10-0-0-9.web:1",
    ] {
        assert!(matches!(find(&store, absent), Found::Absent), "{absent}");
    }
    let unready = failure(&store, "db-2.web:1").to_string();
    assert!(
        unready.contains("is not ready") && unready.contains("10.0.0.3"),
        "{unready}"
    );
    // Only the pods of the Service are its endpoints.
    web(
        &mut store,
        json!({"clusterIP": "None", "selector": {"app": "other"}}),
    );
    assert!(matches!(find(&store, "db-0.web:1"), Found::Absent));
    assert!(matches!(find(&store, "10-0-0-1.web:1"), Found::Absent));
}

/// `web` and its pod `a`, with addresses of both families.
fn of_two_families() -> Store {
    let mut store = Store::default();
    web(
        &mut store,
        json!({"clusterIP": "fd00::a", "clusterIPs": ["fd00::a", "10.96.0.9"]}),
    );
    let both = json!({"/status/podIPs": [{"ip": "fd00::1"}, {"ip": "10.0.0.1"}]});
    store.apply_pod(&raw_pod("a", "fd00::1", true, both));
    store
}

#[test]
fn services_and_pods_of_two_families_have_an_address_of_each() {
    let store = of_two_families();
    for host in ["[fd00::a]", "10.96.0.9", "[::ffff:10.96.0.9]"] {
        assert_eq!(
            ports(&store, &format!("{host}:80")),
            [("a".to_owned(), 8080)]
        );
    }
    for host in [
        "[fd00::1]",
        "10.0.0.1",
        "[::ffff:10.0.0.1]",
        "fd00--1.web",
        "10-0-0-1.web",
    ] {
        assert_eq!(ports(&store, &format!("{host}:99")), [("a".to_owned(), 99)]);
    }
}

#[test]
fn endpoints_stand_in_for_pods_that_may_not_be_listed() {
    let mut store = Store::default();
    web(&mut store, json!({}));
    let pod = |name: &str| json!({"kind": "Pod", "namespace": "shop", "name": name, "uid": name});
    let slices = json!([
        {
            "metadata": {"namespace": "shop", "name": "web-v4"},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "admin", "port": 9090}],
            "endpoints": [
                {"conditions": {"ready": true}, "targetRef": pod("a")},
                {"conditions": {}, "targetRef": pod("b")},
                {"conditions": {"ready": false}, "targetRef": pod("c")},
            ],
        },
        {
            "metadata": {"namespace": "shop", "name": "web-v6"},
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"conditions": {"ready": true}, "targetRef": pod("a")}],
        },
        {"metadata": {"namespace": "shop", "name": "empty"}, "endpoints": null, "ports": null},
    ]);
    let endpoints = json!([{
        "metadata": {"namespace": "shop", "name": "web"},
        "subsets": [{
            "addresses": [{"ip": "10.0.0.1", "targetRef": pod("a")}, {"ip": "10.0.0.2", "targetRef": pod("b")}],
            "notReadyAddresses": [{"ip": "10.0.0.3", "targetRef": pod("c")}],
            "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}],
        }],
    }]);
    let resolve = |raw: &Value, target: &str| {
        let members = Members::of(serde_json::from_value(raw.clone()).unwrap());
        let target: Target = target.parse().unwrap();
        let query = Query::service(Namespaced::new("shop", "web"));
        match members.answer(&store, &query, Wanted::tcp(&target)) {
            Answer::Is(resolution) => resolution,
            Answer::Absent | Answer::Unknown => panic!("{target}"),
        }
    };
    for raw in [&slices, &endpoints] {
        for (port, expected) in [(80, 8080), (81, 9090), (8080, 8080), (99, 99)] {
            let Resolution::Pods(found) = resolve(raw, &format!("web:{port}")) else {
                panic!();
            };
            let names: Vec<&str> = found.pods.iter().map(|p| &*p.pod.name).collect();
            assert_eq!(names, ["a", "b"], "{port}");
            assert_eq!(found.pods[0].port, expected);
            assert_eq!(found.declared, port != 99);
        }
    }
}
