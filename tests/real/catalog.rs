//! What names mean, with every kind of account.

use std::time::{Duration, Instant};

use kdev::addr::ClusterDomain;
use kdev::dial::{DialError, Endpoints, Resolution, Resolve as _};
use kdev::k8s::{Catalog, Client};
use kdev::task::Tasks;
use serde_json::json;

use crate::lab;

async fn catalog(account: &str, tasks: &Tasks) -> Catalog {
    let client = Client::connect(lab::options(account), tasks).await.unwrap();
    Catalog::start(client, ClusterDomain::default(), tasks)
}

async fn synced(account: &str, tasks: &Tasks) -> Catalog {
    let catalog = catalog(account, tasks).await;
    tokio::time::timeout(Duration::from_secs(10), catalog.synced())
        .await
        .unwrap();
    catalog
}

/// As the router asks.
async fn ask(catalog: &Catalog, target: &str) -> Resolution {
    let target = target.parse().unwrap();
    match catalog.resolve(&target) {
        Resolution::Unknown => catalog.learn(&target).await,
        known => known,
    }
}

async fn pods(catalog: &Catalog, target: &str) -> Endpoints {
    match ask(catalog, target).await {
        Resolution::Pods(endpoints) => endpoints,
        other => panic!("{target}: {other:?}"),
    }
}

async fn failure(catalog: &Catalog, target: &str) -> DialError {
    match ask(catalog, target).await {
        Resolution::Failed(error) | Resolution::Inside { why: error, .. } => error,
        other => panic!("{target}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn services_lead_to_their_ready_pods() {
    for account in ["admin", "dev"] {
        let tasks = Tasks::new();
        let catalog = synced(account, &tasks).await;
        for (target, count, port, declared) in [
            ("web.shop:80", 4, 8080, true),
            ("web.shop.svc.cluster.local:80", 4, 8080, true),
            ("web-numeric.shop:80", 4, 8080, true),
            ("web-multi.shop.svc:9090", 4, 8080, true),
            ("web-headless.shop.svc:8080", 4, 8080, true),
            ("web.shop:8080", 4, 8080, true),
            ("web.shop:4321", 4, 4321, false),
            ("pg.shop:5432", 1, 5432, true),
        ] {
            let found = pods(&catalog, target).await;
            assert_eq!(found.pods.len(), count, "{account} {target}");
            assert_eq!(found.pods[0].port, port, "{target}");
            assert_eq!(found.declared, declared, "{target}");
            assert!(!found.pods[0].uid.is_empty());
        }
        for target in ["unready.shop:80", "nobody.shop:80"] {
            let error = failure(&catalog, target).await;
            assert!(
                matches!(error, DialError::Unreachable { .. }),
                "{target}: {error:?}"
            );
            println!("{account} {target}: {error}");
        }
        let alias = ask(&catalog, "external.shop:80").await;
        assert!(
            matches!(&alias, Resolution::Alias { name, .. } if name == "example.invalid"),
            "{alias:?}"
        );
        let manual = failure(&catalog, "manual.shop:80").await;
        println!("{account} manual: {manual}");
        let missing = failure(&catalog, "wbe.shop.svc:80").await;
        assert!(matches!(missing, DialError::NotFound { .. }), "{missing:?}");
        println!("{account}: {missing}");
        for elsewhere in ["www.example.com:443", "github.com:443", "8.8.8.8:53"] {
            let answer = ask(&catalog, elsewhere).await;
            assert!(
                matches!(answer, Resolution::Elsewhere),
                "{elsewhere}: {answer:?}"
            );
        }
        assert!(tasks.shutdown(Duration::from_secs(2)).await, "drains");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn before_the_first_list_names_are_asked_for() {
    for account in ["admin", "dev"] {
        let tasks = Tasks::new();
        let catalog = catalog(account, &tasks).await;
        let begun = Instant::now();
        assert_eq!(pods(&catalog, "web.shop:80").await.pods.len(), 4);
        println!("{account}: first answer after {:?}", begun.elapsed());
        tasks.shutdown(Duration::from_secs(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn addresses_lead_to_what_has_them() {
    let tasks = Tasks::new();
    let admin = Client::connect(lab::options("admin"), &tasks)
        .await
        .unwrap();
    let service: serde_json::Value = admin
        .get("/api/v1/namespaces/shop/services/web")
        .await
        .unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    let list: serde_json::Value = admin
        .get("/api/v1/namespaces/shop/pods?labelSelector=app%3Dpg")
        .await
        .unwrap();
    let pod = list["items"][0]["status"]["podIP"].as_str().unwrap();
    for account in ["admin", "dev", "dev-no-watch-pods", "dev-no-watch-services"] {
        let catalog = synced(account, &tasks).await;
        println!("{account}: {:?}", catalog.watched());
        let found = pods(&catalog, &format!("{address}:80")).await;
        assert_eq!(found.pods.len(), 4, "{account}");
        let found = pods(&catalog, &format!("{pod}:5432")).await;
        assert!(found.declared && found.service.is_none(), "{account}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn without_a_verb_it_works_or_the_verb_is_named() {
    let tasks = Tasks::new();
    for account in [
        "dev-no-get-pods",
        "dev-no-watch-pods",
        "dev-no-get-services",
        "dev-no-list-services",
        "dev-no-watch-services",
    ] {
        let catalog = synced(account, &tasks).await;
        let found = pods(&catalog, "web.shop:80").await;
        assert_eq!(found.pods.len(), 4, "{account}");
    }
    for (account, expected) in [("dev-no-list-pods", "list"), ("nobody", "get")] {
        let catalog = synced(account, &tasks).await;
        let error = failure(&catalog, "web.shop.svc:80").await;
        let DialError::Denied { verb, .. } = &error else {
            panic!("{account}: {error:?}");
        };
        assert_eq!(verb, expected, "{account}: {error}");
        println!("{account}: {error}");
    }
}

/// A namespace of this test's own, gone with it.
struct Namespace<'a> {
    admin: &'a Client,
    name: &'static str,
}

impl Namespace<'_> {
    async fn send(&self, method: &str, path: &str, body: serde_json::Value) -> u16 {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", "application/json")
            .body(serde_json::to_vec(&body).unwrap().into())
            .unwrap();
        self.admin.send(request).await.unwrap().status().as_u16()
    }

    async fn create(&self, plural: &str, body: serde_json::Value) {
        let path = format!("/api/v1/namespaces/{}/{plural}", self.name);
        assert_eq!(self.send("POST", &path, body).await, 201, "{plural}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_pod_that_is_deleted_takes_no_more_dials() {
    let tasks = Tasks::new();
    let admin = Client::connect(lab::options("admin"), &tasks)
        .await
        .unwrap();
    let web: serde_json::Value = admin
        .get("/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb")
        .await
        .unwrap();
    let image = &web["items"][0]["spec"]["containers"][0]["image"];
    let namespace = Namespace {
        admin: &admin,
        name: "kdev-catalog-test",
    };
    let meta = json!({"name": namespace.name});
    let created = namespace
        .send("POST", "/api/v1/namespaces", json!({"metadata": meta}))
        .await;
    assert_eq!(created, 201, "left by an earlier run?");
    let catalog = synced("admin", &tasks).await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let spec = json!({"selector": {"app": "one"}, "ports": ports});
    namespace
        .create(
            "services",
            json!({"metadata": {"name": "one"}, "spec": spec}),
        )
        .await;
    let sleep = json!({"name": "main", "image": image, "command": ["sleep", "600"], "imagePullPolicy": "Never"});
    let pod = json!({
        "metadata": {"name": "one", "labels": {"app": "one"}},
        "spec": {"containers": [sleep], "terminationGracePeriodSeconds": 5, "automountServiceAccountToken": false},
    });
    // The namespace's service account is made a moment after the namespace.
    tokio::time::sleep(Duration::from_secs(2)).await;
    namespace.create("pods", pod).await;
    let target = "one.kdev-catalog-test:80".parse().unwrap();
    let ready = || matches!(catalog.resolve(&target), Resolution::Pods(_));
    let wait = |what: &'static str, limit: Duration, wanted: bool| async move {
        let begun = Instant::now();
        while ready() != wanted {
            assert!(begun.elapsed() < limit, "not {what} in time");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        println!("{what} after {:?}", begun.elapsed());
    };
    wait("ready", Duration::from_secs(60), true).await;
    let path = "/api/v1/namespaces/kdev-catalog-test/pods/one";
    assert_eq!(namespace.send("DELETE", path, json!({})).await, 200);
    wait("terminating", Duration::from_secs(1), false).await;
    let path = "/api/v1/namespaces/kdev-catalog-test";
    assert_eq!(namespace.send("DELETE", path, json!({})).await, 200);
}
