//! The controllers of Deployments, ReplicaSets and quotas, and the one that deletes what lost its
//! owner; it calls those of StatefulSets and of PodDisruptionBudgets. A pod counts as available as
//! soon as it is ready: `minReadySeconds` is not waited for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use tokio::time::Instant;

use crate::budget;
use crate::clock;
use crate::http::Failure;
use crate::quota;
use crate::resources::{DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS, SERVICES};
use crate::stateful;
use crate::store::Key;
use crate::world::World;

/// The annotation that numbers ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The label that tells their pods apart.
const HASH: &str = "pod-template-hash";
/// Longest pod name's random end, in the alphabet of real ones.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// The finalizer of an object that goes after what it owns.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// How long a ReplicaSet waits that could not make a pod, for the first time and at most; twice as long
/// with each failure.
const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1000);

/// ReplicaSets that could not make a pod, by UID.
type Failing = HashMap<String, Failed>;

/// How that went.
struct Failed {
    /// What of it would make it try at once, were it another.
    looks: String,
    times: u32,
    again: Instant,
    /// What it said the first time, which stays its condition until it succeeds.
    condition: Value,
}

/// Works whenever something changes, and when a ReplicaSet tries again.
pub(crate) async fn run(world: Arc<World>) {
    let mut moved = world.store.subscribe();
    let mut failing = Failing::new();
    loop {
        moved.borrow_and_update();
        work(&world, &mut failing);
        let again = failing.values().map(|failed| failed.again).min();
        let again = again.unwrap_or_else(|| Instant::now() + LONGEST_BACK_OFF);
        tokio::select! {
            changed = moved.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(again) => {}
        }
    }
}

fn work(world: &Arc<World>, failing: &mut Failing) {
    let _held = world.hold();
    let (_, sets) = world.store.list(REPLICA_SETS.plural, None);
    failing.retain(|uid, _| sets.iter().any(|set| set["metadata"]["uid"] == **uid));
    let (_, deployments) = world.store.list(DEPLOYMENTS.plural, None);
    for deployment in &deployments {
        match deployment["metadata"]["deletionTimestamp"].is_string() {
            true => finish(world, deployment),
            false => roll(world, deployment, failing),
        }
    }
    collect(world);
    collect_services(world);
    quota::count(&world.store);
    stateful::work(world);
    budget::show(world);
}

/// A Deployment that is deleted with all that it owns: it goes last, and when nobody else holds it.
fn finish(world: &World, deployment: &Value) {
    let sets = owned(world, REPLICA_SETS.plural, deployment);
    for set in &sets {
        end_set(world, set);
    }
    let mut finalizers = deployment["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten();
    let held = finalizers.any(|finalizer| finalizer != FOREGROUND);
    if !held && owned(world, REPLICA_SETS.plural, deployment).is_empty() {
        world.store.remove(&key(DEPLOYMENTS.plural, deployment));
    }
}

/// Ends a ReplicaSet's pods, then the ReplicaSet.
fn end_set(world: &World, set: &Value) {
    let pods = owned(world, PODS.plural, set);
    for pod in pods.iter().filter(|pod| lives(pod)) {
        end_pod(world, pod);
    }
    if owned(world, PODS.plural, set).is_empty() {
        world.store.remove(&key(REPLICA_SETS.plural, set));
    }
}

/// ReplicaSets whose Deployment is gone.
fn collect(world: &World) {
    let (_, sets) = world.store.list(REPLICA_SETS.plural, None);
    for set in &sets {
        let owner = &set["metadata"]["ownerReferences"][0];
        let Some(name) = owner["name"].as_str() else {
            continue;
        };
        let namespace = text(&set["metadata"]["namespace"]);
        let alive = world
            .store
            .get(DEPLOYMENTS.plural, namespace, name)
            .is_some_and(|deployment| deployment["metadata"]["uid"] == owner["uid"]);
        if !alive {
            end_set(world, set);
        }
    }
}

/// Services that belong to another one which is gone.
fn collect_services(world: &World) {
    let (_, services) = world.store.list(SERVICES.plural, None);
    for service in &services {
        let owner = &service["metadata"]["ownerReferences"][0];
        if owner["kind"] != SERVICES.kind {
            continue;
        }
        let namespace = text(&service["metadata"]["namespace"]);
        let there = world
            .store
            .get(SERVICES.plural, namespace, text(&owner["name"]));
        if there.is_none_or(|there| there["metadata"]["uid"] != owner["uid"]) {
            world.remove_service(namespace, text(&service["metadata"]["name"]));
        }
    }
}

/// One step towards what the Deployment says, and its status.
fn roll(world: &Arc<World>, deployment: &Value, failing: &mut Failing) {
    let spec = &deployment["spec"];
    let wanted = number(&spec["replicas"]).unwrap_or(1);
    let strategy = &spec["strategy"]["rollingUpdate"];
    let surge = number(&strategy["maxSurge"]).unwrap_or(1);
    let unavailable = number(&strategy["maxUnavailable"]).unwrap_or(0);
    let newest = set_for(world, deployment);
    let sets = owned(world, REPLICA_SETS.plural, deployment);
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for set in &sets {
        let pods = owned(world, PODS.plural, set).into_iter().filter(lives);
        match set["metadata"]["uid"] == newest["metadata"]["uid"] {
            true => new.extend(pods),
            false => old.extend(pods),
        }
    }
    let uid = text(&newest["metadata"]["uid"]).to_owned();
    let annotations = &newest["metadata"]["annotations"];
    let looks = format!("{annotations} {wanted} {} {}", new.len(), old.len());
    let room = (wanted + surge).saturating_sub(new.len() + old.len());
    let short = wanted.saturating_sub(new.len()).min(room);
    let waits = failing
        .get(&uid)
        .is_some_and(|failed| failed.looks == looks && Instant::now() < failed.again);
    if short == 0 {
        failing.remove(&uid);
    } else if !waits {
        let mut refused = None;
        while refused.is_none() && new.len() < wanted && new.len() + old.len() < wanted + surge {
            match make_pod(world, &newest) {
                Ok(pod) => new.push(pod),
                Err(failure) => refused = Some(failure),
            }
        }
        match refused {
            None => drop(failing.remove(&uid)),
            Some(refused) => {
                let message = refused.status()["message"].clone();
                tell_failed(world, &newest, text(&message));
                let first = || Failed {
                    looks: String::new(),
                    times: 0,
                    again: Instant::now(),
                    condition: json!({
                        "type": "ReplicaFailure",
                        "status": "True",
                        "reason": "FailedCreate",
                        "message": message,
                    }),
                };
                let failed = failing.entry(uid.clone()).or_insert_with(first);
                let pause = FIRST_BACK_OFF * 2_u32.saturating_pow(failed.times.min(20));
                failed.times += 1;
                failed.again = Instant::now() + pause.min(LONGEST_BACK_OFF);
                failed.looks = format!("{annotations} {wanted} {} {}", new.len(), old.len());
            }
        }
    }
    for pod in new.drain(wanted.min(new.len())..) {
        end_pod(world, &pod);
    }
    // Those that do not serve go first; the others only as far as enough are left.
    old.sort_by_key(is_ready);
    let ready = |pods: &[Value]| pods.iter().filter(|pod| is_ready(pod)).count();
    let mut spare = (ready(&new) + ready(&old)).saturating_sub(wanted - unavailable.min(wanted));
    old.retain(|pod| {
        let serves = is_ready(pod);
        if serves && spare == 0 {
            return true;
        }
        spare -= usize::from(serves);
        end_pod(world, pod);
        false
    });
    let done = old.is_empty() && ready(&new) == wanted;
    let keeps = number(&spec["revisionHistoryLimit"]).unwrap_or(10);
    for set in &sets {
        let is_newest = set["metadata"]["uid"] == newest["metadata"]["uid"];
        if !is_newest && done && keeps == 0 {
            end_set(world, set);
        }
    }
    let mut set = newest;
    let (all, up) = (new.len() + old.len(), ready(&new) + ready(&old));
    let refused = failing.get(&uid).map(|failed| &failed.condition);
    let conditions: Vec<&Value> = refused.into_iter().collect();
    set["status"] =
        json!({"replicas": new.len(), "readyReplicas": ready(&new), "conditions": conditions});
    world.store.put(key(REPLICA_SETS.plural, &set), set);
    let mut shown = deployment.clone();
    shown["status"] = json!({
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": all,
        "updatedReplicas": new.len(),
        "readyReplicas": up,
        "availableReplicas": up,
        "unavailableReplicas": wanted.saturating_sub(up),
        "conditions": conditions,
    });
    world.store.put(key(DEPLOYMENTS.plural, &shown), shown);
}

/// The ReplicaSet of the Deployment's template, made where it is missing.
fn set_for(world: &World, deployment: &Value) -> Value {
    let template = &deployment["spec"]["template"];
    let hash = name_part(&template.to_string(), 9);
    let (metadata, name) = (
        &deployment["metadata"],
        text(&deployment["metadata"]["name"]),
    );
    let namespace = text(&metadata["namespace"]);
    let called = format!("{name}-{hash}");
    if let Some(set) = world.store.get(REPLICA_SETS.plural, namespace, &called) {
        return Value::clone(&set);
    }
    let earlier = owned(world, REPLICA_SETS.plural, deployment);
    let last = earlier.iter().filter_map(|set| {
        set["metadata"]["annotations"][REVISION]
            .as_str()?
            .parse::<u64>()
            .ok()
    });
    let mut template = template.clone();
    template["metadata"]["labels"][HASH] = json!(hash);
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": called,
            "namespace": namespace,
            "labels": template["metadata"]["labels"],
            "annotations": {REVISION: (last.max().unwrap_or(0) + 1).to_string()},
            "ownerReferences": [reference(deployment)],
        },
        "spec": {"template": template},
    });
    world.store.put(key(REPLICA_SETS.plural, &set), set);
    let stored = world.store.get(REPLICA_SETS.plural, namespace, &called);
    stored.map(|set| Value::clone(&set)).unwrap_or_default()
}

fn make_pod(world: &Arc<World>, set: &Value) -> Result<Value, Failure> {
    let metadata = &set["metadata"];
    let unique = world.next_number();
    let seed = format!("{} {unique}", metadata["uid"]);
    let name = format!("{}-{}", text(&metadata["name"]), name_part(&seed, 5));
    world.make_pod(
        text(&metadata["namespace"]),
        &name,
        &set["spec"]["template"],
        reference(set),
    )
}

/// The event of a ReplicaSet that could not make a pod; the same again is counted.
fn tell_failed(world: &World, set: &Value, message: &str) {
    let (metadata, message) = (&set["metadata"], format!("Error creating: {message}"));
    let namespace = text(&metadata["namespace"]);
    let name = format!("{}.{}", text(&metadata["name"]), name_part(&message, 16));
    let before = world.store.get(EVENTS.plural, namespace, &name);
    let count = before.map_or(0, |before| before["count"].as_u64().unwrap_or_default());
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": message,
        "count": count + 1,
        "lastTimestamp": clock::now(),
        "involvedObject": {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": metadata["name"],
            "namespace": namespace,
            "uid": metadata["uid"],
        },
    });
    world.store.put(key(EVENTS.plural, &event), event);
}

pub(crate) fn end_pod(world: &World, pod: &Value) {
    let metadata = &pod["metadata"];
    world.end_pod(text(&metadata["namespace"]), text(&metadata["name"]), None);
}

pub(crate) fn owned(world: &World, resource: &str, owner: &Value) -> Vec<Value> {
    let namespace = text(&owner["metadata"]["namespace"]);
    let (_, objects) = world.store.list(resource, Some(namespace));
    let owned = objects.iter().filter(|object| {
        object["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
    });
    owned.map(|object| Value::clone(object)).collect()
}

pub(crate) fn reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

pub(crate) fn lives(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_string()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

pub(crate) fn key(resource: &str, object: &Value) -> Key {
    let field = |name: &str| text(&object["metadata"][name]).to_owned();
    (resource.to_owned(), field("namespace"), field("name"))
}

pub(crate) fn number(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn name_part(seed: &str, length: usize) -> String {
    let digest = Sha1::digest(seed.as_bytes());
    let letters = digest.iter().take(length);
    letters
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}
