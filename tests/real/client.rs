//! Requests and upgrades.

use hyper::Request;
use kdev::k8s::{Client, UpgradeError};
use kdev::task::Tasks;
use serde_json::Value;

use crate::lab;
use crate::probe::spdy;

async fn a_pod(client: &Client) -> String {
    let list: Value = client
        .get("/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb")
        .await
        .unwrap();
    list["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_restricted_account_lists_and_upgrades() {
    let tasks = Tasks::new();
    let client = Client::connect(lab::options("dev"), &tasks).await.unwrap();
    let pod = a_pod(&client).await;
    let upgrade = client.upgrade(spdy("shop", &pod)).await.unwrap();
    assert_eq!(
        upgrade.headers["x-stream-protocol-version"],
        "portforward.k8s.io"
    );
    let error = client
        .get::<Value>("/api/v1/namespaces/other/pods")
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(403), "{error}");
    println!("{error}");
    let error = client
        .upgrade(spdy("shop", "no-such-pod"))
        .await
        .unwrap_err();
    println!("{error:?}");
    let odd = Request::get(format!("/api/v1/namespaces/shop/pods/{pod}/portforward"))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Protocol", "SPDY/9+portforward.k8s.io")
        .body(())
        .unwrap();
    println!("{:?}", client.upgrade(odd).await.map(|u| u.headers));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_missing_verb_is_named() {
    let tasks = Tasks::new();
    let admin = Client::connect(lab::options("admin"), &tasks)
        .await
        .unwrap();
    let pod = a_pod(&admin).await;
    let client = Client::connect(lab::options("dev-no-create-portforward"), &tasks)
        .await
        .unwrap();
    let error = client.upgrade(spdy("shop", &pod)).await.unwrap_err();
    let UpgradeError::Status { code, message, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*code, 403);
    assert!(message.contains("create"), "{message}");
}
