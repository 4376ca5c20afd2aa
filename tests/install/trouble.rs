//! Pods that cannot start are explained in Kubernetes' words.

use std::time::Duration;

use kdev_sim::Exit;
use serde_json::json;

use crate::support::{Stage, name};

#[tokio::test]
async fn an_image_that_cannot_be_pulled() {
    let stage = Stage::new().await;
    stage
        .cluster
        .faults()
        .missing_image(Some("nowhere/busybox:1"));
    let failed = stage
        .install(&["--base-image", "nowhere/busybox:1"])
        .await
        .failed();
    assert!(
        failed.contains("image nowhere/busybox:1 cannot be pulled"),
        "{failed}"
    );
    assert!(failed.contains("ImagePull"), "{failed}");
    assert!(failed.contains("--base-image"), "{failed}");
    // The right one afterwards: the same command goes on from there.
    stage.install(&["--base-image", "busybox:1"]).await.ok();
}

#[tokio::test]
async fn a_quota_that_has_no_room_for_the_pods() {
    let stage = Stage::new().await;
    let pods = stage.cluster.objects("pods", "shop").len();
    let quota = json!({
        "metadata": {"name": "few", "namespace": "shop"},
        "spec": {"hard": {"pods": (pods + 1).to_string()}},
    });
    stage.cluster.put_object("resourcequotas", quota);
    let failed = stage.install(&[]).await.failed();
    assert!(failed.contains("exceeded quota: few"), "{failed}");
    assert!(failed.contains("--replicas 1"), "{failed}");
    // One pod fits, once the one that was made is enough.
    stage.install(&["--replicas", "1"]).await.ok();
}

#[tokio::test]
async fn a_quota_that_has_no_room_for_the_parts() {
    let stage = Stage::new().await;
    let quota = json!({
        "metadata": {"name": "none", "namespace": "shop"},
        "spec": {"hard": {"count/configmaps": "0"}},
    });
    stage.cluster.put_object("resourcequotas", quota);
    let failed = stage.install(&[]).await.failed();
    assert!(failed.contains("ConfigMap kdev-relay-amd64-"), "{failed}");
    assert!(failed.contains("exceeded quota: none"), "{failed}");
}

#[tokio::test]
async fn nodes_without_room() {
    let stage = Stage::new().await;
    stage.cluster.faults().full_nodes(true);
    let failed = stage.install(&["--timeout", "2"]).await.failed();
    assert!(failed.contains("Unschedulable"), "{failed}");
    assert!(
        failed.contains("0 of 2 relay pods got ready within 2 s"),
        "{failed}"
    );
    stage.cluster.faults().full_nodes(false);
    stage.install(&[]).await.ok();
}

#[tokio::test]
async fn a_program_that_crashes_says_its_last() {
    let stage = Stage::new().await;
    stage.cluster.add_program("relay", |_| async {
        Exit::failed(1, "one\ntwo\nthe address is in use")
    });
    let failed = stage.install(&[]).await.failed();
    assert!(
        failed.contains("container relay ended with code 1"),
        "{failed}"
    );
    assert!(failed.contains("the address is in use"), "{failed}");
}

#[tokio::test]
async fn a_node_of_another_kind() {
    let stage = Stage::new().await;
    let says = "kdev: this node is s390x and the relay was installed for amd64";
    stage
        .cluster
        .add_program("unpack", move |_| async move { Exit::failed(1, says) });
    let failed = stage.install(&[]).await.failed();
    assert!(failed.contains(says), "{failed}");
}

#[tokio::test]
async fn a_probe_that_fails_is_worth_a_word_only_when_it_goes_on() {
    for (count, told) in [(2, false), (30, true)] {
        let stage = Stage::new().await;
        let program = |container: kdev_sim::Container| async move {
            tokio::time::sleep(Duration::from_secs(4)).await;
            container.ready();
            container.stopped().await;
            Exit::ok()
        };
        stage.cluster.add_program("relay", program);
        let warn = async {
            let relay = loop {
                let pods = stage.cluster.objects("pods", "shop");
                let mut pods = pods.into_iter();
                if let Some(relay) = pods.find(|pod| name(pod).starts_with("kdev-relay")) {
                    break relay;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            let event = json!({
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": "probe", "namespace": "shop"},
                "involvedObject": {
                    "kind": "Pod",
                    "name": name(&relay),
                    "uid": relay["metadata"]["uid"],
                },
                "type": "Warning",
                "reason": "Unhealthy",
                "message": "Readiness probe failed: Get \"http://10.244.0.9:7000/readyz\": dial tcp \
                            10.244.0.9:7000: connect: connection refused",
                "count": count,
                "lastTimestamp": "2026-11-29T20:00:00Z",
            });
            stage.cluster.put_object("events", event);
        };
        let (installed, ()) = tokio::join!(stage.install(&[]), warn);
        let said = installed.err.contains("Readiness probe failed");
        assert_eq!(said, told, "{installed:?}");
        installed.ok();
    }
}
