//! `kdev install`, `upgrade`, `uninstall` by a service account that has the built-in role `edit` in
//! one namespace and nothing else.

mod place;
mod policies;
mod trouble;
mod upgrade;

use std::collections::BTreeMap;

pub(crate) use self::place::Place;
pub(crate) use self::policies::Policy;
use crate::installed::{BASE, RELAY};
use crate::peer;
use crate::site::{IMAGE, SECRETS};

/// By the account itself.
async fn works(place: &Place, replicas: usize) {
    peer::works(&place.site, place.account.kubeconfig(), replicas).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn edit_alone_installs_and_leaves_nothing_behind() {
    let place = Place::new("install");
    let before = place.everything();
    let done = place.install(&[]);
    // Pods that come are not ready at first, which is no news.
    assert!(!done.err.contains("probe failed"), "{done:?}");
    let said = done.ok();
    assert!(said.contains("2 pods ready"), "{said}");
    works(&place, 2).await;

    let there = place.everything();
    let again = place.install(&["--json"]).json();
    assert_eq!(again["changed"], false, "{again}");
    assert_eq!(place.everything(), there, "not even a version is another");

    // Without kdev: a pod that is made anew needs nobody.
    let old = place.site.relays();
    let pods = [
        "delete",
        "pods",
        "-l",
        "app.kubernetes.io/name=kdev-relay",
        "--wait=false",
    ];
    place.site.kubectl(&pods).unwrap();
    place.site.wait("new pods", |site| {
        let now = site.relays();
        now.len() == 2 && now.iter().all(|pod| !old.contains(pod))
    });
    works(&place, 2).await;

    let said = place.kdev(&["uninstall", "--yes"]).ok();
    assert!(said.contains("Removed the relay"), "{said}");
    assert_eq!(place.everything(), before);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn one_pod_is_replaced_without_a_gap_and_has_no_budget() {
    let place = Place::new("single");
    place.install(&["--replicas", "1"]).ok();
    works(&place, 1).await;
    assert!(place.site.kubectl(&["get", "pdb", "kdev-relay"]).is_err());
    place.install(&["--deny", "10.9.9.9"]).ok();
    works(&place, 1).await;
    place.install(&["--replicas", "2"]).ok();
    assert_eq!(
        place.site.field("pdb/kdev-relay", ".spec.minAvailable"),
        "1"
    );
    works(&place, 2).await;
}

/// What is printed is what an administrator's `kubectl` can apply, and kdev takes that for its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn what_a_dry_run_prints_can_be_applied() {
    let place = Place::new("printed");
    let before = place.everything();
    let yaml = place.install(&["--dry-run", "--show-keys"]).ok();
    assert_eq!(place.everything(), before);
    let head = "# Print it with --show-keys to apply it: kubectl apply --server-side --field-manager=kdev -f ";
    assert!(yaml.starts_with(head), "{}", &yaml[..200]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    let file = file.path().to_str().unwrap();
    // Which is why that is said.
    let refused = place.site.kubectl(&["apply", "-f", file]).unwrap_err();
    assert!(
        refused.contains("metadata.annotations: Too long"),
        "{refused}"
    );
    let labels = "app.kubernetes.io/name=kdev-relay";
    let made = ["delete", "deploy,pdb,secret,configmap", "-l", labels];
    place.site.kubectl(&made).unwrap();
    let apply = ["apply", "--server-side", "--field-manager=kdev", "-f", file];
    place.site.kubectl(&apply).unwrap();
    works(&place, 2).await;
    let again = place.install(&["--json"]).json();
    assert_eq!(again["changed"], false, "{again}");
    place.kdev(&["uninstall", "--yes"]).ok();
    assert_eq!(place.everything(), before);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn quotas_and_ranges_are_satisfied() {
    let place = Place::new("bounded");
    place.bound(
        r#"
apiVersion: v1
kind: ResourceQuota
metadata: {name: compute}
spec: {hard: {limits.cpu: "2", limits.memory: 1Gi, requests.cpu: "1", requests.memory: 512Mi, limits.ephemeral-storage: 1Gi, requests.ephemeral-storage: 1Gi, pods: "4"}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: sizes}
spec: {limits: [{type: Container, min: {cpu: 20m, memory: 24Mi}, max: {cpu: "1", memory: 100Mi}, default: {cpu: 100m, memory: 64Mi}, maxLimitRequestRatio: {memory: "2"}}, {type: Pod, max: {memory: 200Mi}}]}
"#,
    );
    let done = place.install(&[]);
    assert!(
        done.err.contains("allows a container no more than 100Mi"),
        "{done:?}"
    );
    done.ok();
    works(&place, 2).await;
    let container = ".spec.template.spec.containers[0].resources";
    let resources = place.site.field("deployment/kdev-relay", container);
    let resources: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(&resources).unwrap();
    println!("{resources:?}");
    assert_eq!(resources["requests"]["cpu"], "20m");
    assert_eq!(resources["limits"]["memory"], "100Mi");
    assert_eq!(resources["requests"]["memory"], "50Mi");
}

/// The image and the ConfigMaps run the same, and one can become the other.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn an_image_and_parts_take_turns() {
    let place = Place::new("image");
    let image = IMAGE.join(":");
    let done = place.kdev(&["install", "--image", &image]);
    done.ok();
    works(&place, 2).await;
    let key = place.site.key(SECRETS[0]);
    let base = ["install", "--base-image", BASE, "--relay-binary", &*RELAY];
    place.kdev(&base).ok();
    works(&place, 2).await;
    place.kdev(&["install", "--image", &image]).ok();
    works(&place, 2).await;
    assert_eq!(place.site.key(SECRETS[0]), key);
    assert!(
        !place
            .everything()
            .keys()
            .any(|name| name.contains("kdev-relay-amd64"))
    );
}
