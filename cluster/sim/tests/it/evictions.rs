//! Evictions and the budgets that hold them up, StatefulSets whose pods come back under their
//! names.

use std::time::Duration;

use kdev_sim::{Exit, Options, Rule, SimCluster, User};
use serde_json::{Value, json};

use crate::support::http::{Answer, ask, get};
use crate::support::{shop, shop_with, until};

/// Stores a StatefulSet `db` of three pods.
fn stateful(cluster: &SimCluster) {
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "replicas": 3,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "main", "image": "db:1"}],
                },
            },
        },
    });
    cluster.put_object("statefulsets", set);
}

fn budget(cluster: &SimCluster, name: &str, spec: &Value) {
    let mut spec = spec.clone();
    spec["selector"] = json!({"matchLabels": {"app": "db"}});
    let budget = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    });
    cluster.put_object("poddisruptionbudgets", budget);
}

fn uid(cluster: &SimCluster, name: &str) -> String {
    let pod = cluster.object("pods", "shop", name).unwrap_or_default();
    pod["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn ready(cluster: &SimCluster) -> usize {
    let sets = cluster.object("statefulsets", "shop", "db");
    let ready = sets.map(|set| set["status"]["readyReplicas"].as_u64());
    usize::try_from(ready.flatten().unwrap_or_default()).unwrap()
}

async fn evict(cluster: &SimCluster, token: &str, pod: &str, more: &Value) -> Answer {
    let mut eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": "shop"},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        eviction[key] = value.clone();
    }
    let line = format!("POST /api/v1/namespaces/shop/pods/{pod}/eviction");
    ask(cluster, token, &line, &[], &eviction.to_string()).await
}

#[tokio::test]
async fn a_pod_comes_back_under_its_name_and_is_another_one() {
    let cluster = shop().await;
    stateful(&cluster);
    until("three ready pods", || ready(&cluster) == 3).await;
    let first = uid(&cluster, "db-1");
    let done = evict(&cluster, "dev-token", "db-1", &json!({})).await;
    assert_eq!(
        (done.code, done.json()["status"].clone()),
        (201, json!("Success"))
    );
    until("it is there again", || {
        ready(&cluster) == 3 && uid(&cluster, "db-1") != first
    })
    .await;
    // The former one is meant no more.
    let former = json!({"deleteOptions": {"preconditions": {"uid": first}}});
    let refused = evict(&cluster, "dev-token", "db-1", &former).await;
    assert_eq!(refused.code, 409, "{refused:?}");
    assert!(refused.message().contains("Precondition failed: UID"));
    let missing = evict(&cluster, "dev-token", "db-7", &json!({})).await;
    assert_eq!(missing.code, 404);
}

#[tokio::test]
async fn a_budget_says_how_many_may_be_missing() {
    let cluster = shop().await;
    cluster.add_program("main", |container| async move {
        // Long enough that the next eviction finds it not ready.
        tokio::time::sleep(Duration::from_millis(400)).await;
        container.ready();
        container.stopped().await;
        Exit::ok()
    });
    stateful(&cluster);
    until("three ready pods", || ready(&cluster) == 3).await;
    budget(&cluster, "db", &json!({"minAvailable": "100%"}));
    let refused = evict(&cluster, "dev-token", "db-0", &json!({})).await;
    assert_eq!(refused.code, 429);
    let said = refused.json();
    assert_eq!(said["reason"], "TooManyRequests");
    assert_eq!(
        said["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    let cause = json!({
        "reason": "DisruptionBudget",
        "message": "The disruption budget db needs 3 healthy pods and has 3 currently",
    });
    assert_eq!(said["details"]["causes"], json!([cause]));
    assert_eq!(refused.header("Retry-After"), None);

    budget(&cluster, "db", &json!({"maxUnavailable": 1}));
    until("one is allowed", || {
        let shown = cluster.object("poddisruptionbudgets", "shop", "db");
        shown.unwrap()["status"]["disruptionsAllowed"] == 1
    })
    .await;
    assert_eq!(
        evict(&cluster, "dev-token", "db-0", &json!({})).await.code,
        201
    );
    // Until it is ready again, no other one may go.
    assert_eq!(
        evict(&cluster, "dev-token", "db-1", &json!({})).await.code,
        429
    );
    until("it is there again", || ready(&cluster) == 3).await;
    budget(&cluster, "another", &json!({"maxUnavailable": 3}));
    let both = evict(&cluster, "dev-token", "db-1", &json!({})).await;
    assert_eq!(both.code, 500);
    assert!(both.message().contains("more than one PodDisruptionBudget"));
}

#[tokio::test]
async fn evictions_are_a_right_of_their_own() {
    let cluster = shop().await;
    stateful(&cluster);
    until("three ready pods", || ready(&cluster) == 3).await;
    let rule = Rule::new(&["get", "list", "delete"], &["pods"]).namespace("shop");
    cluster.add_user(User::new("may-delete").rule(rule));
    let refused = evict(&cluster, "may-delete-token", "db-0", &json!({})).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused
            .message()
            .contains("cannot create resource \"pods/eviction\""),
        "{refused:?}"
    );
}

#[tokio::test]
async fn discovery_says_which_evictions_a_server_takes() {
    for (options, version) in [(Options::default(), "v1"), (Options::old(), "v1beta1")] {
        let cluster = shop_with(options).await;
        let list = get(&cluster, "dev-token", "/api/v1").await.json();
        let rows = list["resources"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == "pods/eviction");
        let row = row.unwrap();
        assert_eq!(
            (&row["group"], &row["version"]),
            (&json!("policy"), &json!(version))
        );
        let answer = evict(&cluster, "dev-token", "web-1", &json!({})).await;
        assert_eq!(answer.code, if version == "v1" { 201 } else { 400 });
        let beta = json!({"apiVersion": "policy/v1beta1"});
        let answer = evict(&cluster, "dev-token", "web-2", &beta).await;
        assert_eq!(answer.code, 201, "{answer:?}");
    }
}
