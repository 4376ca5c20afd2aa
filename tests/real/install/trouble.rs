//! Pods that cannot start are explained at once, in Kubernetes' words.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use super::place::Place;
use crate::installed::{BASE, RELAY};

/// How long an explanation may take from the moment that the Deployment is there: the kubelet needs
/// about a second of it to come to the pod and fail.
const EXPLAINED: Duration = Duration::from_secs(3);
/// What a busy machine may take more: its kubelet has been seen to need 13 s.
const BUSY: Duration = Duration::from_secs(25);

/// Runs `kdev install ARGS`, which must fail, and gives what it said last and how long after the
/// Deployment it said `text` first.
fn explained(place: &Place, args: &[&str], text: &str) -> (String, Duration) {
    let args = [&["install", "--relay-binary", &*RELAY], args].concat();
    let mut child = place.command(&args).spawn().unwrap();
    let (mut applied, mut took, mut last) = (None, None, String::new());
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("Deployment kdev-relay") {
            applied = Some(Instant::now());
        }
        if line.contains(text) && took.is_none() {
            took = applied.map(|applied| applied.elapsed());
        }
        last = last + &line + "\n";
    }
    assert!(!child.wait().unwrap().success(), "{last}");
    let took = took.unwrap_or_else(|| panic!("{text:?} is not in {last}"));
    println!("explained after {} ms: {text}", took.as_millis());
    assert!(took < EXPLAINED + BUSY, "{took:?}: {last}");
    (last, took)
}

#[test]
#[ignore = "needs the lab"]
fn wrong_images_are_explained() {
    let place = Place::new("images");
    let (said, _) = explained(
        &place,
        &["--base-image", "kdev-lab/nowhere:1"],
        "image kdev-lab/nowhere:1 cannot be pulled (ErrImagePull)",
    );
    assert!(
        said.contains("fix: pass an image that the cluster can pull"),
        "{said}"
    );
    explained(
        &place,
        &["--base-image", "Not An Image"],
        "InvalidImageName",
    );
    // Without a shell.
    explained(
        &place,
        &["--base-image", "kdev-lab/pause:1"],
        "container unpack",
    );
    // And then it works.
    place.install(&[]).ok();
    assert_eq!(place.site.await_relays(2).len(), 2);
}

#[test]
#[ignore = "needs the lab"]
fn quotas_and_nodes_without_room_are_explained() {
    let place = Place::new("full");
    place.bound(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: compute}\nspec: {hard: {pods: \"1\"}}\n",
    );
    let before = place.everything();
    let said = place.install(&[]).failed();
    for text in [
        "so nothing was changed",
        "2 relay pods more: exceeded quota: compute",
        "--replicas 1",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert_eq!(place.everything(), before);
    place.install(&["--replicas", "1"]).ok();
    place.kdev(&["uninstall", "--yes"]).ok();

    // The program is in more ConfigMaps than this.
    place.bound(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: compute}\nspec: {hard: {count/configmaps: \"1\"}}\n",
    );
    let said = place.install(&[]).failed();
    assert!(said.contains("so nothing was changed"), "{said}");
    assert!(said.contains("exceeded quota: compute"), "{said}");
    assert!(said.contains("count/configmaps"), "{said}");
    assert_eq!(place.everything(), before);

    // More than any node has.
    place
        .site
        .kubectl(&["delete", "resourcequota", "compute"])
        .unwrap();
    place.apply(
        "apiVersion: v1\nkind: LimitRange\nmetadata: {name: huge}\nspec: {limits: [{type: Container, min: {memory: 900Gi}}]}\n",
    );
    let args = ["--base-image", BASE, "--timeout", "5"];
    let (said, _) = explained(&place, &args, "Unschedulable");
    assert!(
        said.contains("0 of 2 relay pods got ready within 5 s"),
        "{said}"
    );
}

#[test]
#[ignore = "needs the lab"]
fn a_relay_that_cannot_run_says_its_last_words() {
    let place = Place::new("crash");
    // Rules that the relay would refuse, put there behind kdev's back.
    place.install(&["--replicas", "1"]).ok();
    let env = [
        "set",
        "env",
        "deployment/kdev-relay",
        "-c",
        "relay",
        "KDEV_ALLOW=nonsense",
    ];
    place.site.kubectl(&env).unwrap();
    let said = place.install(&[]).failed();
    assert!(said.contains("container relay ended with code 1"), "{said}");
    assert!(said.contains("KDEV_ALLOW"), "{said}");
}
