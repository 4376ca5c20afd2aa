//! What others do to a Service, and to the relay, while it is intercepted.

use kdev::k8s::redirect::served;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_set_back_is_noticed_and_taken_again() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    let mut guard = stage.redirect("a").await.unwrap();
    // Like `kubectl apply --server-side --force-conflicts` of the same manifest.
    let path = format!("{SERVICES}/web?fieldManager=team&force=true");
    stage
        .client
        .apply::<Value>(&path, &stage.manifest())
        .await
        .unwrap();
    let pods = stage.behind("web");
    assert!(
        pods.iter().all(|(pod, _)| pod.starts_with("web-")),
        "back at once: {pods:?}"
    );
    let began = std::time::Instant::now();
    let change = next(&mut guard).await;
    assert!(
        matches!(&change, Change::Drifted(why) if why.contains("selector")),
        "{change:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    guard.again().await.unwrap();
    assert!(
        stage
            .behind("web")
            .iter()
            .all(|(pod, _)| pod.starts_with("kdev-relay"))
    );
    // A new version of the manifest in the middle: what is given back is that.
    let mut newer = stage.manifest();
    newer["spec"]["ports"][2]["targetPort"] = json!("admin");
    newer["spec"]["ports"].as_array_mut().unwrap().remove(1);
    let path = format!("{SERVICES}/web?fieldManager=helm");
    let patch = json!({"spec": {"selector": {"app": "web"}, "ports": newer["spec"]["ports"]}});
    stage.client.merge::<Value>(&path, &patch).await.unwrap();
    assert!(matches!(next(&mut guard).await, Change::Drifted(_)));
    guard.again().await.unwrap();
    assert_eq!(guard.landings().len(), 2);
    assert_eq!(guard.restore().await.unwrap(), Left::Last);
    let after = stage.as_it_is("web");
    assert_eq!(after["spec"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(after["spec"]["ports"][1]["targetPort"], "admin");
    assert_eq!(after["spec"]["selector"], before["spec"]["selector"]);
    let managers = after["metadata"]["managedFields"].as_array().unwrap();
    assert!(
        managers.iter().all(|entry| entry["manager"] != "kdev"),
        "{managers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_delete_is_said_or_made_again() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let mut guard = stage.redirect("a").await.unwrap();
    let origin = stage.origins()[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let there = stage.service(&origin).unwrap();
    stage
        .client
        .delete(&format!("{SERVICES}/{origin}"), &json!({}))
        .await
        .unwrap();
    let change = next(&mut guard).await;
    assert!(
        matches!(&change, Change::Drifted(why) if why.contains(&origin)),
        "{change:?}"
    );
    guard.again().await.unwrap();
    assert_eq!(stage.behind(&origin).len(), 6);
    let address = |origin: &Value| origin["spec"]["clusterIP"].clone();
    assert_eq!(address(&stage.service(&origin).unwrap()), address(&there));

    stage
        .client
        .delete(&format!("{SERVICES}/web"), &json!({}))
        .await
        .unwrap();
    assert_eq!(next(&mut guard).await, Change::ServiceGone);
    within(LIMIT, "the origin goes with it", || {
        stage.origins().is_empty()
    })
    .await;
    assert_eq!(guard.restore().await.unwrap(), Left::Nothing);
    // Its ports are nobody else's for a while: a node may still send its callers there.
    stage.apply(&stage.manifest()).await.unwrap();
    let uid = stage.service("web").unwrap()["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    let again = stage.redirect("b").await.unwrap();
    let block = again.landings()[0].landing.to_string();
    let record = stage
        .world
        .cluster
        .object("configmaps", "shop", "kdev-relay-ports")
        .unwrap();
    assert_eq!(record["data"][&block], uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_goes_is_said() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let mut guard = stage.redirect("a").await.unwrap();
    stage.scale_relay(0).await;
    assert_eq!(next(&mut guard).await, Change::RelayDown);
    stage.scale_relay(2).await;
    assert_eq!(next(&mut guard).await, Change::RelayBack);
    stage.client.delete(RELAY, &json!({})).await.unwrap();
    assert_eq!(next(&mut guard).await, Change::RelayGone);
    assert_eq!(guard.restore().await.unwrap(), Left::Last);
    stage.clear().await;
    assert!(stage.origins().is_empty());
}

/// A claim whose kdev is dead must not keep callers with a relay that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_relay_a_claim_of_nobody_keeps_nothing() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    drop(stage.redirect("ghost").await.unwrap());
    let mut guard = stage.redirect("a").await.unwrap();
    stage.scale_relay(0).await;
    assert_eq!(next(&mut guard).await, Change::RelayDown);
    assert_eq!(guard.release().await.unwrap(), Left::Others(1));
    assert_eq!(stage.as_it_is("web"), before);
    assert_eq!(stage.behind("web").len(), 6);
    // Both come again once there is one.
    stage.scale_relay(2).await;
    within(LIMIT, "the relay's pods", || stage.relays().len() == 2).await;
    let mut again = stage.redirect("b").await.unwrap();
    assert_eq!(stage.origins().len(), 1);
    assert_eq!(again.restore().await.unwrap(), Left::Others(1));
    assert_ne!(stage.as_it_is("web"), before, "the ghost may wake");
}

/// Whoever sets the Service back while no replica is ready is right to.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_not_brought_to_a_relay_that_is_not_there() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let mut guard = stage.redirect("a").await.unwrap();
    stage.scale_relay(0).await;
    within(LIMIT, "no relay", || stage.relays().is_empty()).await;
    let own = json!({"spec": {"selector": {"app": "web"}}});
    let web = format!("{SERVICES}/web");
    stage.client.merge::<Value>(&web, &own).await.unwrap();
    assert_eq!(next(&mut guard).await, Change::RelayDown);
    assert_eq!(guard.release().await.unwrap(), Left::Last);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_for_an_intercepted_service_can_be_tried_in_its_place() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let served = || served(&stage.client, "shop");
    assert_eq!(served().await.unwrap(), Some(("web".to_owned(), 80)));
    let mut guard = stage.redirect("a").await.unwrap();
    let landing = guard.landings()[0].landing;
    let origin = (format!("kdev-{landing}"), landing);
    assert_eq!(served().await.unwrap(), Some(origin));
    guard.restore().await.unwrap();
}
