//! Creating, applying, patching and deleting, in the real server's words.

use kdev_sim::{Rule, SimCluster, User};
use serde_json::{Value, json};

use crate::support::http::{Answer, ask, get};
use crate::support::shop;

const MAPS: &str = "/api/v1/namespaces/shop/configmaps";
const APPLY: (&str, &str) = ("Content-Type", "application/apply-patch+yaml");
const MERGE: (&str, &str) = ("Content-Type", "application/merge-patch+json");

async fn send(cluster: &SimCluster, line: &str, kind: (&str, &str), body: &Value) -> Answer {
    ask(cluster, "dev-token", line, &[kind], &body.to_string()).await
}

async fn create(cluster: &SimCluster, body: &Value) -> Answer {
    let json = ("Content-Type", "application/json");
    send(cluster, &format!("POST {MAPS}"), json, body).await
}

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn what_exists_is_not_created_again() {
    let cluster = shop().await;
    let made = create(&cluster, &map("a", &json!({"x": "1"}))).await;
    assert_eq!(made.code, 201);
    assert!(made.json()["metadata"]["uid"].is_string());
    let again = create(&cluster, &map("a", &json!({}))).await;
    assert_eq!(
        (again.code, &*again.json()["reason"].to_string()),
        (409, "\"AlreadyExists\"")
    );
    assert_eq!(again.message(), "configmaps \"a\" already exists");
    let wrong = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}});
    assert_eq!(create(&cluster, &wrong).await.code, 400);
    let elsewhere = "POST /api/v1/namespaces/nowhere/configmaps";
    let body = map("a", &json!({})).to_string();
    let lost = ask(&cluster, "admin-token", elsewhere, &[], &body).await;
    assert_eq!(lost.message(), "namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn an_apply_creates_changes_and_takes_away() {
    let cluster = shop().await;
    let line = format!("PATCH {MAPS}/a?fieldManager=kdev");
    let first = send(
        &cluster,
        &line,
        APPLY,
        &map("a", &json!({"x": "1", "y": "2"})),
    )
    .await;
    assert_eq!(first.code, 201);
    let same = send(
        &cluster,
        &line,
        APPLY,
        &map("a", &json!({"x": "1", "y": "2"})),
    )
    .await;
    assert_eq!(same.code, 200);
    let version = |answer: &Answer| answer.json()["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&same), version(&first), "nothing changed");
    let less = send(&cluster, &line, APPLY, &map("a", &json!({"x": "3"}))).await;
    assert_eq!(less.json()["data"], json!({"x": "3"}));
    // Somebody else's change is a conflict, unless it is forced.
    let other = format!("PATCH {MAPS}/a?fieldManager=other");
    send(&cluster, &other, MERGE, &json!({"data": {"x": "4"}})).await;
    let refused = send(&cluster, &line, APPLY, &map("a", &json!({"x": "3"}))).await;
    assert_eq!(refused.code, 409);
    assert!(
        refused.message().contains("conflict with \"other\""),
        "{}",
        refused.message()
    );
    let forced = format!("{line}&force=true");
    assert_eq!(
        send(&cluster, &forced, APPLY, &map("a", &json!({"x": "3"})))
            .await
            .code,
        200
    );
    let nobody = format!("PATCH {MAPS}/a");
    assert_eq!(
        send(&cluster, &nobody, APPLY, &map("a", &json!({})))
            .await
            .code,
        400
    );
}

#[tokio::test]
async fn preconditions_are_checked() {
    let cluster = shop().await;
    let made = create(&cluster, &map("a", &json!({"x": "1"}))).await.json();
    let line = format!("PATCH {MAPS}/a");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"x": "2"}});
    let refused = send(&cluster, &line, MERGE, &stale).await;
    assert_eq!(refused.code, 409);
    assert!(refused.message().contains("the object has been modified"));
    let version = &made["metadata"]["resourceVersion"];
    let fresh = json!({"metadata": {"resourceVersion": version}, "data": {"x": "2"}});
    assert_eq!(send(&cluster, &line, MERGE, &fresh).await.code, 200);
    let delete = format!("DELETE {MAPS}/a");
    let json = ("Content-Type", "application/json");
    let other = json!({"preconditions": {"uid": "another"}});
    assert_eq!(send(&cluster, &delete, json, &other).await.code, 409);
    let right = json!({"preconditions": {"uid": made["metadata"]["uid"]}});
    let gone = send(&cluster, &delete, json, &right).await;
    assert_eq!(gone.json()["status"], "Success");
    assert_eq!(send(&cluster, &delete, json, &json!({})).await.code, 404);
}

#[tokio::test]
async fn what_is_immutable_or_too_large_is_refused() {
    let cluster = shop().await;
    let mut fixed = map("a", &json!({"x": "1"}));
    fixed["immutable"] = json!(true);
    create(&cluster, &fixed).await;
    let line = format!("PATCH {MAPS}/a");
    let refused = send(&cluster, &line, MERGE, &json!({"data": {"x": "2"}})).await;
    assert_eq!(refused.code, 422);
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(send(&cluster, &line, MERGE, &labelled).await.code, 200);
    let large = map("b", &json!({"x": "y".repeat(3 << 19)}));
    assert_eq!(create(&cluster, &large).await.code, 422);
}

#[tokio::test]
async fn each_verb_needs_its_permission() {
    let cluster = shop().await;
    let rule = Rule::new(&["get", "create"], &["configmaps"]).namespace("shop");
    cluster.add_user(User::new("maker").rule(rule));
    let body = map("a", &json!({})).to_string();
    let post = format!("POST {MAPS}");
    assert_eq!(
        ask(&cluster, "maker-token", &post, &[], &body).await.code,
        201
    );
    let delete = format!("DELETE {MAPS}/a");
    let refused = ask(&cluster, "maker-token", &delete, &[], "").await;
    assert!(
        refused
            .message()
            .contains("cannot delete resource \"configmaps\"")
    );
    assert_eq!(
        get(&cluster, "maker-token", &format!("{MAPS}/a"))
            .await
            .code,
        200
    );
}

#[tokio::test]
async fn quotas_count_objects() {
    let cluster = shop().await;
    let quota = json!({
        "metadata": {"name": "few", "namespace": "shop"},
        "spec": {"hard": {"count/configmaps": "1"}},
    });
    cluster.put_object("resourcequotas", quota);
    assert_eq!(create(&cluster, &map("a", &json!({}))).await.code, 201);
    let refused = create(&cluster, &map("b", &json!({}))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "configmaps \"b\" is forbidden: exceeded quota: few, requested: count/configmaps=1, used: \
         count/configmaps=1, limited: count/configmaps=1"
    );
}

#[tokio::test]
async fn metadata_alone_comes_when_asked_for() {
    let cluster = shop().await;
    let accept = (
        "Accept",
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    );
    let line = format!("GET {MAPS}");
    let none = ask(&cluster, "dev-token", &line, &[accept], "").await;
    assert_eq!(none.json()["items"], Value::Null);
    create(&cluster, &map("a", &json!({"x": "1"}))).await;
    let one = ask(&cluster, "dev-token", &line, &[accept], "")
        .await
        .json();
    assert_eq!(one["items"][0]["metadata"]["name"], "a");
    assert_eq!(one["items"][0].get("data"), None);
}
