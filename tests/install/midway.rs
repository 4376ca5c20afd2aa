//! Killed in the middle: the next install completes, the next uninstall too.

use std::time::Duration;

use crate::support::Stage;

/// Kills `kdev ARGS` as soon as `reached` holds.
async fn kill_when(stage: &Stage, args: &[&str], mut reached: impl FnMut() -> bool) {
    // Slow enough that there is a middle.
    stage.cluster.faults().api_delay(Duration::from_millis(100));
    let mut child = stage.command(args).spawn().unwrap();
    while !reached() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it was over before: {ended:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().await.unwrap();
    stage.cluster.faults().clear();
}

#[tokio::test]
async fn the_next_install_completes() {
    for resource in [
        "secrets",
        "configmaps",
        "poddisruptionbudgets",
        "deployments",
    ] {
        let stage = Stage::new().await;
        let relay = stage.folder.path().join("relay").display().to_string();
        let there = || !stage.cluster.objects(resource, "shop").is_empty();
        kill_when(&stage, &["install", "--relay-binary", &relay], there).await;
        let key = stage.object("secrets", "kdev-relay").unwrap()["data"].clone();
        stage.install(&[]).await.ok();
        assert_eq!(
            stage.object("secrets", "kdev-relay").unwrap()["data"],
            key,
            "{resource}"
        );
        let again = stage.install(&["--json"]).await.json();
        assert_eq!(again["changed"], false, "{resource}");
    }
}

#[tokio::test]
async fn the_next_uninstall_completes() {
    for resource in ["deployments", "configmaps"] {
        let stage = Stage::new().await;
        let before = stage.all();
        stage.install(&[]).await.ok();
        let gone = || stage.cluster.objects(resource, "shop").is_empty();
        kill_when(&stage, &["uninstall", "--yes"], gone).await;
        stage.kdev(&["uninstall", "--yes"]).await.ok();
        assert_eq!(stage.all(), before, "{resource}");
    }
}

#[tokio::test]
async fn an_api_server_that_restarts_is_waited_for() {
    let stage = Stage::new().await;
    stage.cluster.faults().full_nodes(true);
    let relay = stage.folder.path().join("relay").display().to_string();
    let child = stage
        .command(&["install", "--relay-binary", &relay])
        .spawn()
        .unwrap();
    while stage
        .cluster
        .objects("pods", "shop")
        .iter()
        .all(|pod| pod["metadata"]["labels"]["app.kubernetes.io/name"] != "kdev-relay")
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.cluster.stop_api().await;
    stage.cluster.faults().full_nodes(false);
    tokio::time::sleep(Duration::from_millis(700)).await;
    stage.cluster.start_api().await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}
