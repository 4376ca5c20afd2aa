//! The controller of StatefulSets: pods with fixed names, one after the other. One that is gone is
//! made again under its name. Templates that change replace nothing.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::budget::is_healthy;
use crate::controller::{end_pod, key, lives, number, owned, reference, text};
use crate::resources::{PODS, STATEFUL_SETS};
use crate::world::World;

/// One step towards what each StatefulSet says, and its status.
pub(crate) fn work(world: &Arc<World>) {
    let (_, sets) = world.store.list(STATEFUL_SETS.plural, None);
    for set in &sets {
        step(world, set);
    }
    collect(world);
}

fn step(world: &Arc<World>, set: &Value) {
    let (metadata, spec) = (&set["metadata"], &set["spec"]);
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    let wanted = number(&spec["replicas"]).unwrap_or(1);
    let parallel = spec["podManagementPolicy"] == "Parallel";
    for ordinal in 0..wanted {
        let called = format!("{name}-{ordinal}");
        match world.store.get(PODS.plural, namespace, &called) {
            Some(pod) if is_healthy(&pod) || parallel => continue,
            // The name is free only once the former one is gone.
            Some(_) => break,
            None => {}
        }
        let mut template = spec["template"].clone();
        let labels = &mut template["metadata"]["labels"];
        labels["statefulset.kubernetes.io/pod-name"] = json!(called);
        labels["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
        template["spec"]["hostname"] = json!(called);
        template["spec"]["subdomain"] = spec["serviceName"].clone();
        // A quota that refuses it is asked again with the next change.
        let made = world.make_pod(namespace, &called, &template, reference(set));
        if made.is_err() || !parallel {
            break;
        }
    }
    let pods = owned(world, PODS.plural, set);
    let ordinal = |pod: &Value| {
        let number = text(&pod["metadata"]["name"]).rsplit('-').next();
        number.and_then(|number| number.parse::<usize>().ok())
    };
    for pod in pods.iter().filter(|pod| lives(pod)) {
        if ordinal(pod).is_none_or(|ordinal| ordinal >= wanted) {
            end_pod(world, pod);
        }
    }
    let mut shown = set.clone();
    shown["status"] = json!({
        "observedGeneration": metadata["generation"],
        "replicas": pods.len(),
        "readyReplicas": pods.iter().filter(|pod| is_healthy(pod)).count(),
    });
    world.store.put(key(STATEFUL_SETS.plural, &shown), shown);
}

/// Pods whose StatefulSet is gone.
fn collect(world: &World) {
    let (_, pods) = world.store.list(PODS.plural, None);
    for pod in pods.iter().filter(|pod| lives(pod)) {
        let owner = &pod["metadata"]["ownerReferences"][0];
        if owner["kind"] != STATEFUL_SETS.kind {
            continue;
        }
        let namespace = text(&pod["metadata"]["namespace"]);
        let set = world
            .store
            .get(STATEFUL_SETS.plural, namespace, text(&owner["name"]));
        if set.is_none_or(|set| set["metadata"]["uid"] != owner["uid"]) {
            end_pod(world, pod);
        }
    }
}
