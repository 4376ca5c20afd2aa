//! Deployments: pods come, are replaced one by one, fail as real ones do, and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kdev_sim::{Exit, SimCluster};
use serde_json::{Value, json};

use crate::support::http::{Answer, ask};
use crate::support::{shop, until};

const PATH: &str = "/apis/apps/v1/namespaces/shop/deployments/app";

fn deployment(image: &str, replicas: u64) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app", "labels": {"app": "mine"}},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": {"app": "mine"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": "mine"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main",
                        "image": image,
                        "env": [{"name": "WHO", "value": "me"}],
                        "volumeMounts": [{"name": "key", "mountPath": "/keys"}],
                    }],
                    "volumes": [{"name": "key", "secret": {"secretName": "key"}}],
                },
            },
        },
    })
}

async fn apply(cluster: &SimCluster, object: &Value) -> Answer {
    let kind = ("Content-Type", "application/apply-patch+yaml");
    let line = format!("PATCH {PATH}?fieldManager=test&force=true");
    ask(cluster, "dev-token", &line, &[kind], &object.to_string()).await
}

async fn delete(cluster: &SimCluster, how: &str) -> Answer {
    let options = json!({"propagationPolicy": how}).to_string();
    ask(
        cluster,
        "dev-token",
        &format!("DELETE {PATH}"),
        &[],
        &options,
    )
    .await
}

fn pods(cluster: &SimCluster) -> Vec<Value> {
    let all = cluster.objects("pods", "shop").into_iter();
    all.filter(|pod| pod["metadata"]["labels"]["app"] == "mine")
        .collect()
}

fn status(cluster: &SimCluster, field: &str) -> Value {
    let object = cluster
        .object("deployments", "shop", "app")
        .unwrap_or_default();
    object["status"][field].clone()
}

fn settled(cluster: &SimCluster, replicas: u64) -> bool {
    ["replicas", "updatedReplicas", "readyReplicas"]
        .iter()
        .all(|field| status(cluster, field) == replicas)
}

#[tokio::test]
async fn pods_come_are_replaced_when_they_vanish_and_go() {
    let cluster = shop().await;
    assert_eq!(apply(&cluster, &deployment("a:1", 2)).await.code, 201);
    until("two ready pods", || settled(&cluster, 2)).await;
    let before = pods(&cluster);
    let name = before[0]["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.remove_pod("shop", &name);
    until("another one", || {
        settled(&cluster, 2) && pods(&cluster) != before
    })
    .await;
    let deleted = delete(&cluster, "Foreground").await;
    assert!(deleted.json()["metadata"]["deletionTimestamp"].is_string());
    until("nothing is left", || {
        pods(&cluster).is_empty()
            && cluster.objects("replicasets", "shop").is_empty()
            && cluster.objects("deployments", "shop").is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_deployment_that_somebody_holds_outlives_its_pods() {
    let cluster = shop().await;
    apply(&cluster, &deployment("a:1", 1)).await;
    until("a ready pod", || settled(&cluster, 1)).await;
    let there = || cluster.object("deployments", "shop", "app");
    let mut held = there().unwrap();
    held["metadata"]["finalizers"] = json!(["test/held"]);
    cluster.put_object("deployments", held);
    delete(&cluster, "Foreground").await;
    until("its pods are gone", || pods(&cluster).is_empty()).await;
    let mut going = there().unwrap();
    let finalizers = json!(["test/held", "foregroundDeletion"]);
    assert_eq!(going["metadata"]["finalizers"], finalizers);
    going["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    cluster.put_object("deployments", going);
    until("it is gone", || there().is_none()).await;
}

#[tokio::test]
async fn what_a_deployment_owned_goes_after_it_too() {
    let cluster = shop().await;
    apply(&cluster, &deployment("a:1", 1)).await;
    until("a ready pod", || settled(&cluster, 1)).await;
    delete(&cluster, "Background").await;
    assert!(cluster.objects("deployments", "shop").is_empty());
    until("nothing is left", || {
        pods(&cluster).is_empty() && cluster.objects("replicasets", "shop").is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_rollout_never_has_fewer_ready_pods_than_wanted() {
    let cluster = shop().await;
    apply(&cluster, &deployment("a:1", 2)).await;
    until("two ready pods", || settled(&cluster, 2)).await;
    let least = Arc::new(AtomicUsize::new(usize::MAX));
    apply(&cluster, &deployment("a:2", 2)).await;
    let image = |pod: &Value| pod["spec"]["containers"][0]["image"] == "a:2";
    until("two new pods", || {
        let now = pods(&cluster);
        let ready = now.iter().filter(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && pod["status"]["conditions"][1]["status"] == "True"
        });
        least.fetch_min(ready.count(), Ordering::Relaxed);
        now.len() == 2 && now.iter().all(image) && settled(&cluster, 2)
    })
    .await;
    assert!(least.load(Ordering::Relaxed) >= 2);
    assert_eq!(cluster.objects("replicasets", "shop").len(), 1);
}

#[tokio::test]
async fn programs_see_their_container() {
    let cluster = shop().await;
    cluster.put_object(
        "secrets",
        json!({"metadata": {"name": "key", "namespace": "shop"}, "data": {"key": "c2VjcmV0"}}),
    );
    cluster.add_program("main", |container| async move {
        let key = container.file("/keys/key");
        if container.env("WHO").as_deref() == Some("me") && key.as_deref() == Some(b"secret") {
            container.ready();
        }
        container.stopped().await;
        Exit::ok()
    });
    apply(&cluster, &deployment("a:1", 1)).await;
    until("a ready pod", || settled(&cluster, 1)).await;
}

#[tokio::test]
async fn what_keeps_pods_from_starting_shows_where_it_does() {
    let cluster = shop().await;
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();

    cluster.faults().missing_image(Some("a:1"));
    apply(&cluster, &deployment("a:1", 1)).await;
    until("no image", || {
        pods(&cluster)
            .iter()
            .any(|pod| waiting(pod)["reason"] == "ImagePullBackOff")
    })
    .await;
    cluster.faults().clear();
    until("it came after all", || settled(&cluster, 1)).await;

    cluster.faults().full_nodes(true);
    apply(&cluster, &deployment("a:2", 1)).await;
    until("no node", || {
        pods(&cluster).iter().any(|pod| {
            let conditions = pod["status"]["conditions"].as_array().unwrap();
            conditions.iter().any(|c| c["reason"] == "Unschedulable")
        })
    })
    .await;
    cluster.faults().clear();
    until("a node after all", || settled(&cluster, 1)).await;

    cluster.add_program("main", |_| async { Exit::failed(3, "no such file") });
    apply(&cluster, &deployment("a:3", 1)).await;
    until("it crashes", || {
        pods(&cluster).iter().any(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            waiting(pod)["reason"] == "CrashLoopBackOff"
                && status["lastState"]["terminated"]["message"] == "no such file"
        })
    })
    .await;

    let quota = json!({
        "metadata": {"name": "cpu", "namespace": "shop"},
        "spec": {"hard": {"limits.cpu": "1"}},
    });
    cluster.put_object("resourcequotas", quota);
    apply(&cluster, &deployment("a:4", 1)).await;
    until("the quota refuses", || {
        let condition = &status(&cluster, "conditions")[0];
        let message = condition["message"].as_str().unwrap_or_default();
        condition["type"] == "ReplicaFailure" && message.contains("must specify limits.cpu")
    })
    .await;
}
