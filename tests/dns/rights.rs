//! Users who may not watch everything.

use hickory_proto::rr::RecordType::{A, AAAA, PTR, SRV};
use kdev_sim::{Pod, Rule, Service, SimCluster, User};
use serde_json::json;

use crate::support::{PATIENCE, Stage};

fn furnish(cluster: &SimCluster) {
    let web = Service::new("shop", "web").selector("app", "web");
    cluster.add_service(web.port("http", 80, 8080));
    let db = Service::new("shop", "db").selector("app", "db").headless();
    cluster.add_service(db.port("pg", 5432, 5432));
    let pod = Pod::new("shop", "db-0").label("app", "db");
    cluster.add_pod(pod.host("db-0", "db"));
    let manual = Service::new("shop", "manual").headless();
    cluster.add_service(manual.port("http", 80, 80));
    cluster.put_object(
        "endpointslices",
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "manual-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "manual"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["192.0.2.10"], "hostname": "box", "conditions": {"ready": true}},
                {"addresses": ["192.0.2.11"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.12"], "conditions": {"ready": false}},
            ],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }),
    );
    let rule = |verbs: &[&str], resources: &[&str]| Rule::new(verbs, resources).namespace("shop");
    let named = User::new("getter").rule(rule(&["get"], &["services", "pods", "endpoints"]));
    cluster
        .add_user(named.rule(Rule::new(&["list"], &["pods", "endpointslices"]).namespace("shop")));
    cluster.add_user(User::new("nobody"));
    let slices = User::new("slices").rule(rule(&["get", "list", "watch"], &["services"]));
    cluster.add_user(slices.rule(rule(&["list"], &["endpointslices"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_watched_is_asked_for() {
    let stage = Stage::set_up("getter", furnish).await;
    let web = stage.field("services", "web", "/spec/clusterIP");
    let db = stage.field("pods", "db-0", "/status/podIP");
    for (name, expected) in [
        ("web.shop.svc.cluster.local", format!("NOERROR aa: A {web}")),
        ("web", format!("NOERROR aa: A {web}")),
        ("db.shop.svc.cluster.local", format!("NOERROR aa: A {db}")),
        (
            "db-0.db.shop.svc.cluster.local",
            format!("NOERROR aa: A {db}"),
        ),
        ("nope.shop.svc.cluster.local", "NXDOMAIN aa: SOA".to_owned()),
        ("www.example.com", "NOERROR: A 192.0.2.53".to_owned()),
    ] {
        assert_eq!(stage.told(name, A).await, expected, "{name}");
    }
    let asked = stage.cluster.counts().of("get", "services");
    assert_eq!(stage.told("web.com", A).await, "NXDOMAIN", "elsewhere");
    assert_eq!(
        stage.cluster.counts().of("get", "services"),
        asked,
        "the cluster must not learn which public names are looked up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_somebody_wrote_have_names() {
    let name = "manual.shop.svc.cluster.local";
    for user in ["admin", "getter"] {
        let stage = Stage::set_up(user, furnish).await;
        assert_eq!(
            stage.told(name, A).await,
            "NOERROR aa: A 192.0.2.10, A 192.0.2.11",
            "{user}"
        );
        let boxed = stage.told(&format!("box.{name}"), A).await;
        assert_eq!(boxed, "NOERROR aa: A 192.0.2.10", "{user}");
        let srv = stage.told(&format!("_http._tcp.{name}"), SRV).await;
        assert!(
            srv.starts_with(&format!(
                "NOERROR aa: SRV 0 50 8080 192-0-2-11.{name}., SRV 0 50 8080 box.{name}."
            )),
            "{srv}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn written_endpoints_are_of_their_slices_families() {
    let stage = Stage::set_up("admin", |cluster| {
        let both = Service::new("shop", "both").headless();
        cluster.add_service(both.port("http", 80, 80));
        let slice = |name: &str, family: &str, endpoints: serde_json::Value| {
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": name, "namespace": "shop",
                    "labels": {"kubernetes.io/service-name": "both"},
                },
                "addressType": family,
                "endpoints": endpoints,
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            })
        };
        let four = json!([
            {"addresses": ["10.250.0.10"], "hostname": "box"},
            {"addresses": ["10.250.0.11"], "conditions": {"ready": true}},
            {"addresses": ["10.250.0.12"], "conditions": {"ready": false}},
        ]);
        let six = json!([
            {"addresses": ["fd00:250::10"], "hostname": "box"},
            {"addresses": ["fd00:250::"]},
        ]);
        cluster.put_object("endpointslices", slice("both-4", "IPv4", four));
        cluster.put_object("endpointslices", slice("both-6", "IPv6", six));
        cluster.add_namespace("empty");
    })
    .await;
    let name = "both.shop.svc.cluster.local";
    let answers = |text: &str| format!("NOERROR aa: {text}");
    let reverse = |ip: &str| {
        let ip: std::net::IpAddr = ip.parse().unwrap();
        hickory_proto::rr::Name::from(ip).to_string()
    };
    let ptr = |host: &str| answers(&format!("PTR {host}.{name}."));
    for (question, kind, expected) in [
        (name.to_owned(), A, answers("A 10.250.0.10, A 10.250.0.11")),
        (
            name.to_owned(),
            AAAA,
            answers("AAAA fd00:250::, AAAA fd00:250::10"),
        ),
        (format!("box.{name}"), A, answers("A 10.250.0.10")),
        (format!("box.{name}"), AAAA, answers("AAAA fd00:250::10")),
        (format!("10-250-0-11.{name}"), A, answers("A 10.250.0.11")),
        (
            format!("10-250-0-11.{name}"),
            AAAA,
            "NOERROR aa: SOA".to_owned(),
        ),
        (
            format!("10-250-0-10.{name}"),
            A,
            "NXDOMAIN aa: SOA".to_owned(),
        ),
        (
            format!("fd00-250--0.{name}"),
            AAAA,
            answers("AAAA fd00:250::"),
        ),
        (reverse("10.250.0.10"), PTR, ptr("box")),
        (reverse("10.250.0.11"), PTR, ptr("10-250-0-11")),
        (reverse("fd00:250::10"), PTR, ptr("box")),
        (reverse("fd00:250::"), PTR, ptr("fd00-250--0")),
        // Not the cluster's: the laptop's resolver is asked.
        (reverse("10.250.0.12"), PTR, "NXDOMAIN".to_owned()),
        (reverse("10.250.0.13"), PTR, "NXDOMAIN".to_owned()),
        (
            "empty.svc.cluster.local".to_owned(),
            A,
            "NOERROR aa: SOA".to_owned(),
        ),
        (
            "10-0-0-1.empty.pod.cluster.local".to_owned(),
            A,
            answers("A 10.0.0.1"),
        ),
    ] {
        assert_eq!(
            stage.told(&question, kind).await,
            expected,
            "{question} {kind}"
        );
    }
    let srv = stage.told(name, SRV).await;
    let hosts = ["10-250-0-11", "box", "fd00-250--0"];
    let records = hosts.map(|host| format!("SRV 0 25 8080 {host}.{name}., "));
    let start = format!("NOERROR aa: {}+ ", records.concat());
    assert!(srv.starts_with(&start), "{srv}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_slices_do_for_pods_that_may_not_be_listed() {
    let stage = Stage::set_up("slices", furnish).await;
    let db = stage.field("pods", "db-0", "/status/podIP");
    for name in ["db", "db-0.db"] {
        let told = stage
            .told(&format!("{name}.shop.svc.cluster.local"), A)
            .await;
        assert_eq!(told, format!("NOERROR aa: A {db}"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_known_is_a_failure_and_no_absence() {
    let stage = Stage::set_up("nobody", furnish).await;
    assert_eq!(
        stage.told("web.shop.svc.cluster.local", A).await,
        "SERVFAIL"
    );
    assert_eq!(
        stage.told("www.example.com", A).await,
        "NOERROR: A 192.0.2.53"
    );
    assert_eq!(
        stage.told("web", A).await,
        "NXDOMAIN",
        "another may have it"
    );
    assert_eq!(
        stage.resolver.asked(),
        ["www.example.com. A udp", "web. A udp"]
    );
}

/// Whoever else uses the machine learns no names of the cluster, by datagram or by connection.
#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_machine_gets_no_answer() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: other-user: only root can become another user");
        return;
    }
    let stage = Stage::set_up("getter", furnish).await;
    // web.shop.svc.cluster.local, A, as printf writes it; for a connection its length comes first.
    let question = r"\0\1\1\0\0\1\0\0\0\0\0\0\3web\4shop\3svc\7cluster\5local\0\0\1\0\1";
    let ask = |uid: u32, way: &str| {
        let length = if way == "tcp" { r"\0\54" } else { "" };
        let script = format!(
            "exec 3<>/dev/{way}/127.0.0.1/{} && printf '{length}{question}' >&3 && timeout 3 head -c 12 <&3 | wc -c",
            stage.dns.port()
        );
        let mut bash = tokio::process::Command::new("bash");
        bash.args(["-c", &script]).current_dir("/").uid(uid);
        async move {
            let output = tokio::time::timeout(PATIENCE, bash.output())
                .await
                .unwrap()
                .unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        }
    };
    for way in ["udp", "tcp"] {
        assert_eq!(ask(0, way).await, "12", "{way}");
        assert_eq!(ask(65_534, way).await, "0", "{way}");
    }
}
