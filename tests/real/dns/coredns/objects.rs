//! Services, pods and EndpointSlices of every kind that DNS tells apart.

use serde_json::{Value, json};

/// Families of addresses, as a Service orders them, with the suffix of names.
const FAMILIES: [(&str, &[&str]); 4] = [
    ("4", &["IPv4"]),
    ("6", &["IPv6"]),
    ("46", &["IPv4", "IPv6"]),
    ("64", &["IPv6", "IPv4"]),
];
/// How long the pod that was told to end stays, in seconds: longer than the scenario.
const LEAVING: u32 = 3600;
/// One more alias in a row than CoreDNS follows.
const CHAIN: usize = 12;

/// The pods that are ready in the end.
pub(super) const READY: [&str; 11] = [
    "alike-1", "alike-2", "more", "leaving", "first", "second", "half", "node", "loner", "set-0",
    "set-1",
];
/// Those that never are.
pub(super) const UNREADY: [&str; 2] = ["sick", "late"];
/// The pod that ends by itself.
pub(super) const OVER: &str = "over";
/// The pod that has to be told to end.
pub(super) const ENDING: &str = "leaving";

/// All of them, as one object for `kubectl apply`.
pub(super) fn list(namespace: &str) -> Value {
    let mut items = pods();
    items.extend(with_selectors());
    items.extend(aliases(namespace));
    items.extend(written());
    items.extend(super::differing::objects());
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// What a container is like.
fn container() -> Value {
    json!({
        "name": "main", "image": "kdev-lab/busybox:1", "imagePullPolicy": "Never",
        "command": ["busybox", "sleep", "1000000"],
        "ports": [
            {"name": "http", "containerPort": 8080},
            {"name": "dns", "containerPort": 5353, "protocol": "UDP"},
        ],
    })
}

/// A pod with the label `app`; the maps are laid over its specification and its container.
fn pod(name: &str, app: &str, spec: Value, main: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app, "name": name}},
        "spec": {
            "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "containers": [container()],
        },
    });
    lay_over(&mut pod["spec"], spec);
    lay_over(&mut pod["spec"]["containers"][0], main);
    pod
}

fn lay_over(under: &mut Value, over: Value) {
    if let Value::Object(fields) = over {
        for (name, value) in fields {
            under[name] = value;
        }
    }
}

fn pods() -> Vec<Value> {
    let none = || json!({});
    let never = || json!({"readinessProbe": {"exec": {"command": ["false"]}}});
    let more = json!({"ports": [
        {"name": "http", "containerPort": 8080},
        {"name": "dns", "containerPort": 5353, "protocol": "UDP"},
        {"name": "extra", "containerPort": 9090},
    ]});
    let named = |host: &str, under: &str| json!({"hostname": host, "subdomain": under});
    let set = pod("set", "set", none(), none());
    vec![
        pod("alike-1", "many", none(), none()),
        pod("alike-2", "many", none(), none()),
        // A port of a Service leads to a port that only this one has.
        pod("more", "many", none(), more),
        pod("sick", "many", none(), never()),
        pod(
            OVER,
            "many",
            json!({"restartPolicy": "Never"}),
            json!({"command": ["true"]}),
        ),
        pod(
            ENDING,
            "many",
            json!({"terminationGracePeriodSeconds": LEAVING}),
            none(),
        ),
        // A name under the Service that selects it, under another one, and half of a name.
        pod("first", "named", named("first", "named"), none()),
        pod("second", "named", named("second", "elsewhere"), none()),
        pod("half", "named", json!({"hostname": "half"}), none()),
        pod("late", "named", named("late", "named"), never()),
        pod(
            "node",
            "node",
            json!({"hostNetwork": true}),
            json!({"ports": []}),
        ),
        pod("loner", "loner", none(), none()),
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "set"},
            "spec": {
                "serviceName": "set", "replicas": 2, "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": "set"}},
                "template": {
                    "metadata": {"labels": {"app": "set"}},
                    "spec": set["spec"],
                },
            },
        }),
    ]
}

fn service(name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// The specification of a Service of `families` with `ports`, headless where `own` is false.
fn spec(own: bool, families: &[&str], selector: Value, ports: Value) -> Value {
    let policy = ["SingleStack", "RequireDualStack"][families.len() - 1];
    let mut spec = json!({"ipFamilies": families, "ipFamilyPolicy": policy, "ports": ports});
    if !own {
        spec["clusterIP"] = json!("None");
    }
    if !selector.is_null() {
        spec["selector"] = selector;
    }
    spec
}

/// One port, without a name.
fn one() -> Value {
    json!([{"port": 80, "targetPort": 8080}])
}

fn with_selectors() -> Vec<Value> {
    let both = ["IPv4", "IPv6"];
    let app = |app: &str| json!({"app": app});
    let many = json!([
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": 5353},
        {"name": "extra", "port": 90, "targetPort": "extra"},
    ]);
    let mut found = Vec::new();
    for (own, prefix) in [(true, "own"), (false, "pods")] {
        for (suffix, families) in FAMILIES {
            let spec = spec(own, families, app("many"), many.clone());
            found.push(service(&format!("{prefix}{suffix}"), spec));
        }
        for (suffix, selector) in [
            ("unnamed", app("many")),
            ("early", app("many")),
            ("sick", json!({"name": "sick"})),
            ("leaving", json!({"name": ENDING})),
            ("none", app("nobody")),
            ("node", app("node")),
        ] {
            let mut spec = spec(own, &both, selector, one());
            spec["publishNotReadyAddresses"] = json!(suffix == "early");
            found.push(service(&format!("{prefix}-{suffix}"), spec));
        }
    }
    let mut node_port = spec(true, &both, app("many"), one());
    node_port["type"] = json!("NodePort");
    found.extend([
        service("pods-portless", spec(false, &both, app("many"), json!([]))),
        service("node-port", node_port),
        service("named", spec(false, &both, app("named"), one())),
        service("named6", spec(false, &["IPv6"], app("named"), one())),
        service("set", spec(false, &both, app("set"), one())),
        service("set-own", spec(true, &["IPv6", "IPv4"], app("set"), one())),
    ]);
    found
}

fn aliases(namespace: &str) -> Vec<Value> {
    let within = |name: &str| format!("{name}.{namespace}.svc.cluster.local");
    let alias = |(name, target): (String, String)| {
        service(
            &name,
            json!({"type": "ExternalName", "externalName": target}),
        )
    };
    let mut targets: Vec<(String, String)> = [
        ("out-unknown", "nope.corp.example".to_owned()),
        ("out-short", "own4".to_owned()),
        ("in-own", within("own46")),
        ("in-own4", within("own4")),
        ("in-pods6", within("pods6")),
        ("in-endpoint", within("first.named")),
        ("in-gone", within("gone")),
        ("in-none", within("pods-none")),
        ("in-twice", within("in-own")),
        ("in-out", within("out-unknown")),
        ("in-pod", format!("10-1-2-3.{namespace}.pod.cluster.local")),
        ("itself", within("itself")),
        ("there", within("back")),
        ("back", within("there")),
        ("address", "192.0.2.9".to_owned()),
    ]
    .map(|(name, target)| (name.to_owned(), target))
    .into();
    targets.extend((0..CHAIN).map(|n| (format!("chain-{n}"), within(&format!("chain-{}", n + 1)))));
    targets.push((format!("chain-{CHAIN}"), within("own4")));
    let mut found: Vec<Value> = targets.into_iter().map(alias).collect();
    let selecting = json!({
        "type": "ExternalName", "externalName": "nope.corp.example",
        "selector": {"app": "many"}, "ports": one(),
    });
    found.push(service("out-selecting", selecting));
    found
}

/// An EndpointSlice that somebody wrote.
fn slice(name: &str, service: &str, family: &str, ports: &Value, endpoints: Value) -> Value {
    let labels = json!({"kubernetes.io/service-name": service});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": labels},
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}

/// Services without a selector, and their endpoints, whose addresses are of private networks.
fn written() -> Vec<Value> {
    let both = ["IPv4", "IPv6"];
    let ports = json!([
        {"name": "http", "port": 80},
        {"name": "log", "port": 514, "protocol": "UDP"},
    ]);
    let at = json!([
        {"name": "http", "port": 8080},
        {"name": "log", "port": 1514, "protocol": "UDP"},
    ]);
    let mut found = Vec::new();
    for (n, own, name) in [(1, true, "written-own"), (2, false, "written-pods")] {
        found.push(service(name, spec(own, &both, Value::Null, ports.clone())));
        let four = json!([
            {"addresses": [format!("10.250.{n}.10")], "hostname": "box"},
            {"addresses": [format!("10.250.{n}.11")], "conditions": {"ready": true}},
            {"addresses": [format!("10.250.{n}.12")], "conditions": {"ready": false}},
        ]);
        let six = json!([
            {"addresses": [format!("fd00:250:{n}::10")], "hostname": "box"},
            {"addresses": [format!("fd00:250:{n}::")]},
        ]);
        let more = json!([{"addresses": [format!("10.250.{n}.20")], "hostname": "box"}]);
        let other = json!([{"name": "http", "port": 9090}]);
        found.extend([
            slice(&format!("{name}-4"), name, "IPv4", &at, four),
            slice(&format!("{name}-6"), name, "IPv6", &at, six),
            slice(&format!("{name}-more"), name, "IPv4", &other, more),
        ]);
    }
    for (name, own, family, ports_at, endpoint) in [
        ("written-nothing", false, "IPv4", &at, Value::Null),
        // Its slice is of the family that the Service has not.
        (
            "written-own4",
            true,
            "IPv6",
            &at,
            json!({"addresses": ["fd00:250:3::10"]}),
        ),
        (
            "written-unready",
            false,
            "IPv4",
            &at,
            json!({"addresses": ["10.250.4.10"], "conditions": {"ready": false}}),
        ),
        (
            "written-portless",
            false,
            "IPv4",
            &json!([]),
            json!({"addresses": ["10.250.5.10"]}),
        ),
        // All ports.
        (
            "written-all",
            false,
            "IPv4",
            &json!([{"name": "http"}]),
            json!({"addresses": ["10.250.6.10"]}),
        ),
    ] {
        found.push(service(
            name,
            spec(own, &["IPv4"], Value::Null, ports.clone()),
        ));
        if !endpoint.is_null() {
            found.push(slice(name, name, family, ports_at, json!([endpoint])));
        }
    }
    found
}
