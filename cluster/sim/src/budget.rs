//! PodDisruptionBudgets: how many pods may be missing, in the disruption controller's counts.

use serde_json::{Value, json};

use crate::resources::{BUDGETS, DEPLOYMENTS, PODS, REPLICA_SETS, STATEFUL_SETS};
use crate::world::World;

/// A budget as it stands.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) healthy: u64,
    pub(crate) desired: u64,
    expected: u64,
}

impl Standing {
    /// How many pods may go now.
    pub(crate) fn allowed(&self) -> u64 {
        match self.expected {
            0 => 0,
            _ => self.healthy.saturating_sub(self.desired),
        }
    }
}

/// Writes what each budget allows into its status.
pub(crate) fn show(world: &World) {
    let (_, budgets) = world.store.list(BUDGETS.plural, None);
    for budget in &budgets {
        let standing = standing(world, budget);
        let mut shown = Value::clone(budget);
        shown["status"] = json!({
            "observedGeneration": budget["metadata"]["generation"],
            "currentHealthy": standing.healthy,
            "desiredHealthy": standing.desired,
            "expectedPods": standing.expected,
            "disruptionsAllowed": standing.allowed(),
        });
        let field = |name: &str| text(&budget["metadata"][name]).to_owned();
        let key = (BUDGETS.plural.to_owned(), field("namespace"), field("name"));
        world.store.put(key, shown);
    }
}

/// What a budget allows now.
pub(crate) fn standing(world: &World, budget: &Value) -> Standing {
    let namespace = text(&budget["metadata"]["namespace"]);
    let (_, pods) = world.store.list(PODS.plural, Some(namespace));
    let pods: Vec<&Value> = pods
        .iter()
        .map(|pod| &**pod)
        .filter(|pod| selects(&budget["spec"]["selector"], pod))
        .collect();
    let healthy = pods.iter().filter(|pod| is_healthy(pod)).count() as u64;
    let expected = expected(world, namespace, &pods);
    let spec = &budget["spec"];
    let desired = match (spec.get("minAvailable"), spec.get("maxUnavailable")) {
        (Some(least), _) => share(least, expected),
        (None, Some(most)) => expected.saturating_sub(share(most, expected)),
        (None, None) => expected.saturating_sub(1),
    };
    Standing {
        healthy,
        desired,
        expected,
    }
}

/// The budgets of a pod.
pub(crate) fn of_pod(world: &World, pod: &Value) -> Vec<Value> {
    let namespace = text(&pod["metadata"]["namespace"]);
    let (_, budgets) = world.store.list(BUDGETS.plural, Some(namespace));
    let budgets = budgets.iter();
    budgets
        .filter(|budget| selects(&budget["spec"]["selector"], pod))
        .map(|budget| Value::clone(budget))
        .collect()
}

/// How many pods their controllers want; one that nobody made counts for itself.
fn expected(world: &World, namespace: &str, pods: &[&Value]) -> u64 {
    let (mut count, mut seen) = (0, Vec::new());
    for pod in pods {
        let mut owner = pod["metadata"]["ownerReferences"][0].clone();
        if owner["kind"] == REPLICA_SETS.kind {
            let set = world
                .store
                .get(REPLICA_SETS.plural, namespace, text(&owner["name"]));
            if let Some(set) = set {
                owner = set["metadata"]["ownerReferences"][0].clone();
            }
        }
        let kind = [&DEPLOYMENTS, &STATEFUL_SETS];
        let kind = kind.into_iter().find(|kind| owner["kind"] == kind.kind);
        let Some(kind) = kind else {
            count += 1;
            continue;
        };
        if seen.contains(&owner["uid"]) {
            continue;
        }
        let made = world
            .store
            .get(kind.plural, namespace, text(&owner["name"]));
        let wanted = made.and_then(|made| made["spec"]["replicas"].as_u64());
        count += wanted.unwrap_or(1);
        seen.push(owner["uid"].clone());
    }
    count
}

/// A number, or a percentage of `whole`, rounded up.
fn share(value: &Value, whole: u64) -> u64 {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%'));
    match percent.and_then(|text| text.parse::<u64>().ok()) {
        Some(percent) => (whole * percent).div_ceil(100),
        None => value.as_u64().unwrap_or_default(),
    }
}

fn selects(selector: &Value, pod: &Value) -> bool {
    if selector.is_null() {
        return false;
    }
    let label = |key: &str| pod["metadata"]["labels"][key].as_str();
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = selector["matchExpressions"].as_array();
    labels
        .into_iter()
        .all(|(key, value)| label(key) == value.as_str())
        && expressions.into_iter().flatten().all(|expression| {
            let there = label(text(&expression["key"]));
            let values = expression["values"].as_array().into_iter().flatten();
            let listed = there.is_some_and(|there| values.into_iter().any(|v| v == there));
            match text(&expression["operator"]) {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => there.is_some(),
                _ => there.is_none(),
            }
        })
}

/// Whether a pod counts: one that is on its way out does not.
pub(crate) fn is_healthy(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut conditions = conditions.into_iter();
    !pod["metadata"]["deletionTimestamp"].is_string()
        && conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
