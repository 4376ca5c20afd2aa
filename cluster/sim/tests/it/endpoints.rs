//! What the endpoint controllers make of Services and pods.

use std::time::Duration;

use kdev_sim::{Pod, Service, SimCluster};
use serde_json::{Value, json};

use crate::support::http::get;
use crate::support::shop;

async fn slices(cluster: &SimCluster, service: &str) -> Vec<Value> {
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=\
         kubernetes.io%2Fservice-name%3D{service}"
    );
    get(cluster, "dev-token", &path).await.json()["items"]
        .as_array()
        .unwrap()
        .clone()
}

fn addresses(slice: &Value) -> usize {
    slice["endpoints"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn ports_are_resolved_per_pod() {
    let cluster = shop().await;
    let pod = |name, port| {
        Pod::new("shop", name)
            .label("app", "api")
            .port("http", port)
    };
    cluster.add_pod(pod("api-1", 8080));
    cluster.add_pod(pod("api-2", 8080));
    cluster.add_pod(pod("api-3", 9090));
    let service = Service::new("shop", "api").selector("app", "api");
    cluster.add_service(
        service
            .port_to_named("web", 80, "http")
            .port("raw", 81, 7000),
    );
    let mut slices = slices(&cluster, "api").await;
    slices.sort_by_key(addresses);
    let ports: Vec<_> = slices
        .iter()
        .map(|slice| slice["ports"][0]["port"].clone())
        .collect();
    assert_eq!(ports, [json!(9090), json!(8080)]);
    assert_eq!(slices.iter().map(addresses).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        slices[0]["ports"][1],
        json!({"name": "raw", "port": 7000, "protocol": "TCP"})
    );
    let endpoints = cluster.object("endpoints", "shop", "api").unwrap();
    assert_eq!(endpoints["subsets"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn readiness_moves_addresses_and_conditions() {
    let cluster = shop().await;
    cluster.set_ready("shop", "web-2", false);
    let slice = &slices(&cluster, "web").await[0];
    let conditions: Vec<_> = slice["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["conditions"]["ready"])
        .collect();
    assert_eq!(conditions, [true, false, true]);
    let endpoints = cluster.object("endpoints", "shop", "web").unwrap();
    assert_eq!(
        endpoints["subsets"][0]["notReadyAddresses"][0]["targetRef"]["name"],
        "web-2"
    );
}

#[tokio::test]
async fn terminating_pods_serve_but_are_not_ready() {
    let cluster = shop().await;
    tokio::join!(
        cluster.terminate_pod("shop", "web-1", Duration::from_millis(300)),
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let slice = &slices(&cluster, "web").await[0];
            let first = &slice["endpoints"][0]["conditions"];
            assert_eq!(
                *first,
                json!({"ready": false, "serving": true, "terminating": true})
            );
            let endpoints = cluster.object("endpoints", "shop", "web").unwrap();
            assert_eq!(
                endpoints["subsets"][0]["addresses"]
                    .as_array()
                    .unwrap()
                    .len(),
                2
            );
        }
    );
    assert_eq!(addresses(&slices(&cluster, "web").await[0]), 2);
    assert!(cluster.object("pods", "shop", "web-1").is_none());
}

#[tokio::test]
async fn odd_services_have_what_real_ones_have() {
    let cluster = shop().await;
    let archive = slices(&cluster, "archive").await;
    assert_eq!(archive[0]["endpoints"], Value::Null);
    assert_eq!(archive[0]["ports"], Value::Null);
    assert!(
        cluster
            .object("endpoints", "shop", "archive")
            .unwrap()
            .get("subsets")
            .is_none()
    );
    assert!(slices(&cluster, "legacy").await.is_empty(), "ExternalName");
    assert!(cluster.object("endpoints", "shop", "legacy").is_none());
    assert_eq!(
        slices(&cluster, "peers").await[0]["metadata"]["labels"]["service.kubernetes.io/headless"],
        ""
    );
    cluster.add_service(
        Service::new("shop", "early")
            .selector("app", "drafts")
            .port("", 80, 8080)
            .publish_not_ready(),
    );
    assert_eq!(
        slices(&cluster, "early").await[0]["endpoints"][0]["conditions"]["ready"],
        true
    );
    cluster.remove_service("shop", "early");
    assert!(slices(&cluster, "early").await.is_empty());
}

#[tokio::test]
async fn a_slice_made_by_hand_stays() {
    let cluster = shop().await;
    cluster.add_service(Service::new("shop", "manual").port("", 80, 80));
    assert!(slices(&cluster, "manual").await.is_empty());
    cluster.put_object(
        "endpointslices",
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "manual-1", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "manual"}},
            "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80}],
        }),
    );
    cluster.add_pod(Pod::new("shop", "other"));
    assert_eq!(slices(&cluster, "manual").await.len(), 1);
}

#[tokio::test]
async fn a_rolling_restart_replaces_pods_one_by_one_and_never_drops_below_the_count() {
    let cluster = shop().await;
    let quick = Duration::from_millis(60);
    let restart = cluster.rolling_restart("shop", ("app", "web"), quick, quick);
    tokio::pin!(restart);
    loop {
        let ready = cluster.object("endpoints", "shop", "web").unwrap();
        assert!(ready["subsets"][0]["addresses"].as_array().unwrap().len() >= 3);
        tokio::select! {
            () = &mut restart => break,
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
    for name in ["web-1", "web-2", "web-3"] {
        assert!(cluster.object("pods", "shop", name).is_none());
        assert!(
            cluster
                .object("pods", "shop", &format!("{name}-r1"))
                .is_some()
        );
    }
}
