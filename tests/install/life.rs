//! Installed, changed, upgraded, removed.

use kdev_sim::{Options, shop};
use serde_json::{Value, json};

use crate::support::{Stage, VERSION, program};

fn keys(stage: &Stage) -> Vec<Value> {
    ["kdev-relay", "kdev-relay-intercept"]
        .map(|name| stage.object("secrets", name).unwrap()["data"]["key"].clone())
        .to_vec()
}

fn relay_pods(stage: &Stage) -> Vec<Value> {
    let pods = stage.cluster.objects("pods", shop::NAMESPACE).into_iter();
    pods.filter(|pod| pod["metadata"]["labels"]["app.kubernetes.io/name"] == "kdev-relay")
        .collect()
}

#[tokio::test]
async fn installed_again_and_removed() {
    let stage = Stage::new().await;
    let before = stage.all();
    let said = stage.install(&[]).await.ok();
    assert!(
        said.contains(&format!("relay {VERSION} in namespace shop, 2 pods ready")),
        "{said}"
    );
    assert!(
        said.ends_with("\nNext: kdev run -- COMMAND\n  or kdev intercept SERVICE -- COMMAND\n"),
        "{said}"
    );
    assert_eq!(relay_pods(&stage).len(), 2);
    let keys = keys(&stage);
    assert_ne!(keys[0], keys[1]);
    let installed = stage.all();

    let again = stage.install(&["--json"]).await.json();
    assert_eq!(again["changed"], false);
    let actions = again["objects"].as_array().unwrap();
    assert!(
        actions.iter().all(|done| done["action"] == "unchanged"),
        "{again}"
    );
    assert_eq!(stage.all(), installed);
    assert_eq!(self::keys(&stage), keys);
    // The flags that lead to it lead to it again.
    let said = stage.install(&["-n", "shop"]).await.ok();
    assert!(
        said.contains("Next: kdev run -n shop -- COMMAND\n"),
        "{said}"
    );

    // Without a terminal nobody can be asked.
    let refused = stage.kdev(&["uninstall"]).await.failed();
    assert!(refused.contains("Deployment kdev-relay"), "{refused}");
    assert!(refused.contains("--yes"), "{refused}");
    assert_eq!(stage.all(), installed);

    let removed = stage.kdev(&["uninstall", "--yes", "--json"]).await.json();
    assert_eq!(
        removed["objects"].as_array().unwrap().len(),
        installed.len() - before.len() - 3
    );
    assert_eq!(stage.all(), before);
    let nothing = stage.kdev(&["uninstall"]).await.ok();
    assert!(nothing.contains("Nothing to remove"), "{nothing}");
}

#[tokio::test]
async fn what_is_not_given_stays_as_it_was_installed() {
    let stage = Stage::new().await;
    let first = [
        "--replicas",
        "3",
        "--deny",
        "10.9.0.0/16,10.8.0.0/16:22",
        "--base-image",
        "mine:1",
    ];
    stage.install(&first).await.ok();
    let container = |stage: &Stage| {
        let deployment = stage.object("deployments", "kdev-relay").unwrap();
        assert_eq!(deployment["spec"]["replicas"], 3);
        deployment["spec"]["template"]["spec"]["containers"][0].clone()
    };
    let denied = json!([{"name": "KDEV_DENY", "value": "10.9.0.0/16,10.8.0.0/16:22"}]);
    assert_eq!(container(&stage)["env"], denied);
    assert_eq!(container(&stage)["image"], "mine:1");
    stage.install(&["--allow", "10.0.0.0/8:5432"]).await.ok();
    let env = &container(&stage)["env"];
    assert_eq!(env[0]["name"], "KDEV_ALLOW");
    assert_eq!(env[1]["value"], denied[0]["value"]);

    // A newer kdev-relay: rolled, with everything else kept.
    let (keys, parts) = (keys(&stage), stage.parts());
    stage.file("relay", &program("amd64", "99.0.0"));
    let upgraded = stage.with_program("upgrade", &["--json"]).await.json();
    assert_eq!(
        (&upgraded["was"], &upgraded["version"]),
        (&json!(VERSION), &json!("99.0.0"))
    );
    assert_eq!(container(&stage)["env"][1]["value"], denied[0]["value"]);
    assert_eq!(self::keys(&stage), keys);
    assert_eq!(stage.parts().len(), parts.len(), "the old ones are gone");
    assert_ne!(stage.parts(), parts);

    // And back only by force.
    stage.file("relay", &program("amd64", VERSION));
    let refused = stage.with_program("upgrade", &[]).await.failed();
    assert!(refused.contains("relay 99.0.0 is installed"), "{refused}");
    stage.with_program("upgrade", &["--force"]).await.ok();
    assert_eq!(stage.parts(), parts);
}

#[tokio::test]
async fn one_pod_has_no_budget() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    assert!(stage.object("poddisruptionbudgets", "kdev-relay").is_some());
    stage.install(&["--replicas", "1"]).await.ok();
    assert!(stage.object("poddisruptionbudgets", "kdev-relay").is_none());
    assert_eq!(relay_pods(&stage).len(), 1);
}

#[tokio::test]
async fn an_old_server_has_its_old_budgets() {
    let stage = Stage::on(Options::old()).await;
    stage.install(&[]).await.ok();
    let budget = stage.object("poddisruptionbudgets", "kdev-relay").unwrap();
    assert_eq!(budget["apiVersion"], "policy/v1beta1");
    stage.kdev(&["uninstall", "-y"]).await.ok();
    assert!(stage.object("poddisruptionbudgets", "kdev-relay").is_none());
}

#[tokio::test]
async fn limits_are_there_where_a_quota_demands_them() {
    let stage = Stage::new().await;
    let quota = json!({
        "metadata": {"name": "compute", "namespace": "shop"},
        "spec": {"hard": {"limits.cpu": "4", "requests.ephemeral-storage": "1Gi"}},
    });
    stage.cluster.put_object("resourcequotas", quota);
    stage.install(&[]).await.ok();
    for container in ["containers", "initContainers"] {
        let deployment = stage.object("deployments", "kdev-relay").unwrap();
        let resources = &deployment["spec"]["template"]["spec"][container][0]["resources"];
        assert_eq!(resources["limits"]["cpu"], "500m");
        assert_eq!(resources["requests"]["ephemeral-storage"], "16Mi");
    }
}

#[tokio::test]
async fn an_image_needs_no_parts() {
    let stage = Stage::new().await;
    let image = format!("registry.example.com/kdev-relay:{VERSION}");
    stage.kdev(&["install", "--image", &image]).await.ok();
    assert!(stage.parts().is_empty());
    let deployment = stage.object("deployments", "kdev-relay").unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod.get("initContainers"), None);
    assert_eq!(pod["containers"][0].get("command"), None);
    // From an image to parts and back: nothing of the other is left.
    stage.install(&["--base-image", "mine:1"]).await.ok();
    assert!(!stage.parts().is_empty());
    stage.kdev(&["install", "--image", &image]).await.ok();
    assert!(stage.parts().is_empty());
}

#[tokio::test]
async fn each_kind_of_machine_has_its_parts() {
    let stage = Stage::new().await;
    let arm = stage
        .file("arm", &program("arm64", VERSION))
        .display()
        .to_string();
    stage.install(&["--relay-binary", &arm]).await.ok();
    let parts = stage.parts();
    let of = |arch: &str| parts.iter().filter(|name| name.contains(arch)).count();
    assert_eq!((of("-amd64-"), of("-arm64-")), (1, 1), "{parts:?}");
    let old = stage
        .file("old", &program("arm64", "0.0.1"))
        .display()
        .to_string();
    let refused = stage.install(&["--relay-binary", &old]).await.failed();
    assert!(refused.contains("take both from one release"), "{refused}");
}

#[tokio::test]
async fn uninstall_leaves_what_is_not_its_own() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    let map = |name: &str, manager: &str| {
        json!({"metadata": {"name": name, "namespace": "shop", "labels": {
            "app.kubernetes.io/name": "kdev-relay", "app.kubernetes.io/managed-by": manager,
        }}})
    };
    stage
        .cluster
        .put_object("configmaps", map("charts", "Helm"));
    stage
        .cluster
        .put_object("configmaps", map("left-by-an-older-kdev", "kdev"));
    stage.kdev(&["uninstall", "--yes"]).await.ok();
    assert_eq!(stage.parts(), ["charts"]);
}

#[tokio::test]
async fn the_pods_are_ready_for_what_the_services_select_by() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    let label = |stage: &Stage, key: &str| relay_pods(stage)[0]["metadata"]["labels"][key].clone();
    assert_eq!(label(&stage, "app"), "kdev-relay");
    // One that only an intercept has asked for stays with an upgrade.
    let mut deployment = stage.object("deployments", "kdev-relay").unwrap();
    deployment["spec"]["template"]["metadata"]["labels"]["tier"] = json!("kdev-relay");
    stage.cluster.put_object("deployments", deployment);
    stage.install(&["--deny", "10.9.9.9"]).await.ok();
    assert_eq!(label(&stage, "tier"), "kdev-relay");
}

/// Lets callers into the relay's pods where somebody keeps them out, and goes with the relay.
#[tokio::test]
async fn a_network_policy_comes_where_it_is_needed_and_goes() {
    let stage = Stage::new().await;
    let own = || stage.object("networkpolicies", "kdev-relay");
    let deny = json!({
        "metadata": {"name": "deny", "namespace": shop::NAMESPACE},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    stage.install(&[]).await.ok();
    assert_eq!(own(), None);
    stage.cluster.put_object("networkpolicies", deny);
    let said = stage.install(&[]).await.err;
    assert!(said.contains("NetworkPolicy kdev-relay created"), "{said}");
    let rules = &own().unwrap()["spec"]["ingress"];
    let expected = json!([{"ports": [{"protocol": "TCP", "port": 20_000, "endPort": 20_511}]}]);
    assert_eq!(*rules, expected);
    let again = stage.install(&["--json"]).await.json();
    assert_eq!(again["changed"], false, "{again}");
    // The choice is kept.
    let said = stage.install(&["--network-policy", "off"]).await.err;
    assert!(said.contains("NetworkPolicy kdev-relay deleted"), "{said}");
    stage.install(&[]).await.ok();
    assert_eq!(own(), None);
    stage.install(&["--network-policy", "on"]).await.ok();
    assert!(own().is_some());
    stage.kdev(&["uninstall", "--yes"]).await.ok();
    assert_eq!(own(), None);
    assert!(stage.object("networkpolicies", "deny").is_some());
}
