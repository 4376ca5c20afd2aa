//! Killed in the middle: the next install completes, the next uninstall too.

use std::time::Duration;

use nix::sys::signal::{Signal::SIGINT, kill};
use nix::unistd::Pid;

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

/// Sends two signals within a millisecond once `reached` holds, and gives the exit code and what it
/// said.
async fn told_when(
    stage: &Stage,
    args: &[&str],
    reached: impl Fn() -> bool,
) -> (Option<i32>, String) {
    let child = stage.command(args).spawn().unwrap();
    while !reached() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, SIGINT).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    kill(pid, SIGINT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[tokio::test]
async fn told_to_end_in_the_middle_it_says_what_stays_and_what_mends_it() {
    let stage = Stage::new().await;
    let before = stage.all();
    let relay = stage.folder.path().join("relay").display().to_string();
    let faults = stage.cluster.faults();

    faults.full_nodes(true);
    let there = || !stage.cluster.objects("replicasets", "shop").is_empty();
    let install = ["install", "--relay-binary", &relay];
    let (code, said) = told_when(&stage, &install, there).await;
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("left in namespace shop: "), "{said}");
    assert!(said.contains("`kdev uninstall -n shop`"), "{said}");
    faults.full_nodes(false);
    stage.install(&[]).await.ok();

    // Slow enough that there is a middle.
    faults.api_delay(Duration::from_millis(100));
    let gone = || stage.cluster.objects("deployments", "shop").is_empty();
    let (code, said) = told_when(&stage, &["uninstall", "--yes"], gone).await;
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("not deleted yet"), "{said}");
    faults.clear();
    stage.kdev(&["uninstall", "--yes", "-n", "shop"]).await.ok();
    assert_eq!(stage.all(), before);
}

#[tokio::test]
async fn a_deployment_that_goes_is_waited_for_and_made_anew() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    let mut going = stage.object("deployments", "kdev-relay").unwrap();
    let before = going["metadata"]["uid"].clone();
    going["metadata"]["deletionTimestamp"] = "2026-11-29T20:00:00Z".into();
    going["metadata"]["finalizers"] = serde_json::json!(["test/held"]);
    stage.cluster.put_object("deployments", going);
    let install = stage.install(&["--json"]);
    let ends = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let mut going = stage.object("deployments", "kdev-relay").unwrap();
        assert_eq!(going["metadata"]["uid"], before, "it was not waited for");
        going["metadata"]["finalizers"] = serde_json::json!([]);
        stage.cluster.put_object("deployments", going);
    };
    let (installed, ()) = tokio::join!(install, ends);
    assert!(
        installed
            .err
            .contains("the old Deployment kdev-relay is being deleted"),
        "{installed:?}"
    );
    let installed = installed.json();
    let deployment = installed["objects"].as_array().unwrap().last().unwrap();
    assert_eq!(deployment["kind"], "Deployment", "{installed}");
    assert_eq!(deployment["action"], "created", "{installed}");
    let now = stage.object("deployments", "kdev-relay").unwrap();
    assert_ne!(now["metadata"]["uid"], before);
}

#[tokio::test]
async fn a_deployment_that_does_not_go_is_named_with_the_way_to_find_out_why() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    let mut going = stage.object("deployments", "kdev-relay").unwrap();
    going["metadata"]["deletionTimestamp"] = "2026-11-29T20:00:00Z".into();
    going["metadata"]["finalizers"] = serde_json::json!(["test/held"]);
    stage.cluster.put_object("deployments", going);
    let said = stage.install(&[]).await.failed();
    for text in [
        "Deployment kdev-relay was refused: the old one is still being deleted after 45 s",
        "left: Deployment kdev-relay",
        "get deployment,pod -l app.kubernetes.io/name=kdev-relay -o yaml",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert!(!said.contains("may still come"), "{said}");
}
