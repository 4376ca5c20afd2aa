//! What is refused before anything is changed.

use kdev_sim::{Rule, User};
use serde_json::json;

use crate::support::{Stage, program};

#[tokio::test]
async fn missing_permissions_are_named_and_nothing_is_changed() {
    let stage = Stage::new().await;
    let mut rules = Rule::view("shop");
    rules.push(Rule::new(
        &["get"],
        &["secrets", "deployments", "poddisruptionbudgets"],
    ));
    rules.push(Rule::new(&["create", "delete"], &["configmaps"]).namespace("shop"));
    stage.cluster.add_user(User::new("reader").rules(rules));
    let stage = stage.acting("reader");
    let before = stage.all();
    let refused = stage.install(&[]).await.failed();
    for text in [
        "not allowed to create secrets; create and patch deployments.apps; create and patch \
         poddisruptionbudgets.policy in namespace shop",
        "the built-in role `edit`",
    ] {
        assert!(refused.contains(text), "{refused}");
    }
    assert_eq!(stage.all(), before);
    let refused = stage.kdev(&["uninstall", "--yes"]).await.failed();
    assert!(refused.contains("list and delete"), "{refused}");
}

#[tokio::test]
async fn objects_of_others_are_not_touched() {
    let stage = Stage::new().await;
    let foreign = json!({
        "metadata": {"name": "kdev-relay-intercept", "namespace": "shop", "labels": {
            "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/name": "kdev-relay",
        }},
        "data": {"key": "c2VjcmV0"},
    });
    stage.cluster.put_object("secrets", foreign);
    let before = stage.all();
    let refused = stage.install(&[]).await.failed();
    assert!(
        refused.contains("Secret kdev-relay-intercept in namespace shop is managed by Helm"),
        "{refused}"
    );
    assert_eq!(stage.all(), before);
    let nothing = stage.kdev(&["uninstall", "--yes"]).await.ok();
    assert!(nothing.contains("Nothing to remove"), "{nothing}");
    assert_eq!(stage.all(), before);
}

#[tokio::test]
async fn what_somebody_else_changed_is_taken_over_only_by_force() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    let mut scaled = stage.object("deployments", "kdev-relay").unwrap();
    scaled["spec"]["replicas"] = json!(4);
    let fields = scaled["metadata"]["managedFields"].as_array_mut().unwrap();
    fields[0]["fieldsV1"]["f:spec"]
        .as_object_mut()
        .unwrap()
        .remove("f:replicas");
    fields.push(json!({
        "manager": "kubectl", "operation": "Update", "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}},
    }));
    stage.cluster.put_object("deployments", scaled);
    // As it is now, it stays.
    stage.install(&[]).await.ok();
    let refused = stage.install(&["--replicas", "2"]).await.failed();
    assert!(refused.contains("conflict with \"kubectl\""), "{refused}");
    assert!(refused.contains("--force"), "{refused}");
    let ready = stage
        .install(&["--replicas", "2", "--force", "--json"])
        .await
        .json();
    assert_eq!(ready["ready"], 2);
}

/// What `kdev install` says where nothing lies beside kdev.
async fn alone(stage: &Stage) -> String {
    let kdev = stage.folder.path().join("kdev");
    let built = env!("CARGO_BIN_EXE_kdev");
    std::fs::hard_link(built, &kdev)
        .or_else(|_| std::fs::copy(built, &kdev).map(drop))
        .unwrap();
    let mut command = stage.command_of(&kdev, &["install"]);
    // With a cargo in it kdev would build one from its sources.
    command.env("PATH", stage.folder.path());
    let output = command.output().await.unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_file_that_is_no_relay_is_refused() {
    let stage = Stage::new().await;
    let none = alone(&stage).await;
    assert!(none.contains("there is no cargo in PATH"), "{none}");
    assert!(none.contains("--relay-binary"), "{none}");
    let script = stage.file("script", b"#!/bin/sh\n").display().to_string();
    let refused = stage
        .kdev(&["install", "--relay-binary", &script])
        .await
        .failed();
    assert!(
        refused.contains("script is no program for 64-bit Linux"),
        "{refused}"
    );
    let missing = stage
        .kdev(&["install", "--relay-binary", "/nonexistent"])
        .await
        .failed();
    assert!(missing.contains("cannot read /nonexistent"), "{missing}");
    let other = stage
        .file("other", &program("amd64", "0.0.1"))
        .display()
        .to_string();
    let both = stage.install(&["--relay-binary", &other]).await.failed();
    assert!(both.contains("two different relays for amd64"), "{both}");
    assert!(stage.parts().is_empty());
}

#[tokio::test]
async fn an_upgrade_needs_something_to_upgrade() {
    let stage = Stage::new().await;
    let refused = stage.with_program("upgrade", &[]).await.failed();
    assert!(
        refused.contains("no relay is installed in namespace shop"),
        "{refused}"
    );
    assert!(refused.contains("kdev install"), "{refused}");
}
