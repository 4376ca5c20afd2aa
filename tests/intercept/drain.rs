//! `--drain`: pods are evicted one by one, as far as their budget allows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use kdev_sim::{Exit, Options, Rule, SimCluster, shop};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Live, Team, app, nobody};

const ADA: &str = "x-user: ada";

/// Makes the pods of `cart` ones of a StatefulSet, which come back under their names.
async fn stateful(cluster: &SimCluster) {
    let port = app("a pod's").await;
    cluster.add_program("cart", move |container| async move {
        container.serve(shop::CART, (Ipv4Addr::LOCALHOST, port).into());
        sleep(Duration::from_millis(300)).await;
        container.ready();
        container.stopped().await;
        Exit::ok()
    });
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "replicas": 3,
            "serviceName": "db",
            "template": {
                "metadata": {"labels": {"app": "cart"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "cart",
                        "image": "cart:1",
                        "ports": [{"name": "http", "containerPort": shop::CART}],
                    }],
                },
            },
        },
    });
    cluster.put_object("statefulsets", set);
    for pod in ["cart-1", "cart-2"] {
        cluster.remove_pod(shop::NAMESPACE, pod);
    }
    while uids(cluster).len() < 3 {
        sleep(Duration::from_millis(20)).await;
    }
}

/// UIDs of the pods that are ready, by name.
fn uids(cluster: &SimCluster) -> BTreeMap<String, Value> {
    let pods = cluster.objects("pods", shop::NAMESPACE).into_iter();
    let ready = |pod: &Value| {
        let mut conditions = pod["status"]["conditions"].as_array().unwrap().iter();
        conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let own = pods.filter(|pod| pod["metadata"]["labels"]["app"] == "cart" && ready(pod));
    own.map(|pod| {
        let metadata = &pod["metadata"];
        (
            metadata["name"].as_str().unwrap().to_owned(),
            metadata["uid"].clone(),
        )
    })
    .collect()
}

fn budget(cluster: &SimCluster, spec: Value) {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "cart"}});
    let budget = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": spec,
    });
    cluster.put_object("poddisruptionbudgets", budget);
}

async fn drain(team: &Team) -> Live {
    let args = ["--header", ADA, "--drain"];
    team.intercept("ada", nobody().await, &args).await
}

/// Whether each name has another pod than before.
fn all_replaced(before: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> bool {
    before.keys().eq(now.keys()) && before.iter().all(|(name, uid)| now[name] != *uid)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_of_a_stateful_set_are_replaced_by_evictions() {
    for options in [Options::default(), Options::old()] {
        let team = Team::on(options).await;
        stateful(&team.cluster).await;
        budget(&team.cluster, json!({"maxUnavailable": 1}));
        let before = uids(&team.cluster);
        let mut live = drain(&team).await;
        for pod in ["db-0", "db-1", "db-2"] {
            live.note(&format!("pod {pod} is replaced")).await;
        }
        live.note("all pods were replaced").await;
        let now = uids(&team.cluster);
        assert!(all_replaced(&before, &now), "{before:?} {now:?}");
        let counts = team.cluster.counts();
        assert!(counts.of("create", "pods/eviction") >= 3);
        assert_eq!(counts.of("delete", "pods"), 0);
        live.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_without_room_is_waited_for_and_named() {
    let team = Team::set_up().await;
    stateful(&team.cluster).await;
    budget(&team.cluster, json!({"minAvailable": "100%"}));
    let before = uids(&team.cluster);
    let mut live = drain(&team).await;
    live.note(
        "pod db-0 stays for now: Cannot evict pod as it would violate the pod's disruption budget. \
         The disruption budget cart needs 3 healthy pods and has 3 currently",
    )
    .await;
    assert_eq!(uids(&team.cluster), before);
    budget(&team.cluster, json!({"minAvailable": 2}));
    live.note("all pods were replaced").await;
    let now = uids(&team.cluster);
    assert!(all_replaced(&before, &now), "{before:?} {now:?}");
    live.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_evict_hears_which_right_that_takes_and_intercepts_all_the_same() {
    let team = Team::set_up().await;
    stateful(&team.cluster).await;
    let most = [
        "pods",
        "pods/portforward",
        "services",
        "endpoints",
        "endpointslices",
        "deployments",
        "secrets",
        "configmaps",
        "events",
    ];
    team.cluster
        .set_rules("dev", [Rule::new(&["*"], &most).namespace("shop")]);
    let before = uids(&team.cluster);
    let mut live = drain(&team).await;
    live.note("connections from before may stay: not allowed to create pods/eviction")
        .await;
    assert_eq!(uids(&team.cluster), before);
    assert!(team.get(ADA).await.1.contains("ada@laptop"));
    live.send(Signal::SIGKILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_nobody_makes_anew_stay_and_are_named() {
    let team = Team::set_up().await;
    let mut live = drain(&team).await;
    live.note("would make anew stay, and connections to them too: cart-1, cart-2")
        .await;
    live.note("no pod was replaced").await;
    assert_eq!(uids(&team.cluster).len(), 2);
    live.end().await;
}
