//! Whether the namespace's quotas have room for all of it. The API server holds each object of a dry
//! run against them by itself, and does not count it: two pods that both fit alone pass.

use serde_json::Value;

use super::limits::{Milli, counts_relay, format, parse};
use super::site::{BUDGETS, CONFIG_MAPS, DEPLOYMENTS, SECRETS, name_of};
use super::trial::Refusal;

/// What is to be made.
#[derive(Debug, Default)]
pub struct Needs<'a> {
    /// The objects that are not there yet.
    pub objects: Vec<&'a Value>,
    /// Pods that come on top of those that are there.
    pub pods: u64,
    /// One of them, as the API server would make it.
    pub pod: Option<&'a Value>,
    /// Their priority class; empty for none.
    pub priority_class: &'a str,
}

/// What a container says, as the path below `resources`, and by which keys quotas count it.
const SUMS: [(&str, &str, [&str; 2]); 6] = [
    ("requests", "cpu", ["requests.cpu", "cpu"]),
    ("requests", "memory", ["requests.memory", "memory"]),
    (
        "requests",
        "ephemeral-storage",
        ["requests.ephemeral-storage", "ephemeral-storage"],
    ),
    ("limits", "cpu", ["limits.cpu", ""]),
    ("limits", "memory", ["limits.memory", ""]),
    (
        "limits",
        "ephemeral-storage",
        ["limits.ephemeral-storage", ""],
    ),
];

/// The quotas that have no room, each with what for.
#[must_use]
pub fn shortages(quotas: &[Value], needs: &Needs<'_>) -> Vec<Refusal> {
    let each = quotas.iter().flat_map(|quota| {
        let (spec, status) = (&quota["spec"], &quota["status"]);
        let scoped = spec["scopes"].is_array() || spec["scopeSelector"].is_object();
        let hard = status["hard"].as_object().into_iter().flatten();
        hard.filter_map(move |(key, hard)| {
            let hard = parse(hard.as_str()?)?;
            // One that was not counted yet says nothing.
            let used = parse(status["used"][key].as_str()?)?;
            let counts_pods = counts_relay(spec, needs.priority_class);
            let (what, need) = match of_pods(key, needs) {
                Some(need) if counts_pods => (pods(needs.pods), need),
                None if !scoped => of_objects(key, needs)?,
                _ => return None,
            };
            let unit = key.rsplit('.').next().unwrap_or_default();
            let text = |amount| format(unit, amount);
            (used + need > hard).then(|| Refusal {
                what,
                message: format!(
                    "exceeded quota: {} has no room for it, {key}: {} more, used {} of {}",
                    name_of(quota),
                    text(need),
                    text(used),
                    text(hard),
                ),
            })
        })
    });
    each.collect()
}

/// How much of `key` the pods need; none where it counts no pods.
fn of_pods(key: &str, needs: &Needs<'_>) -> Option<Milli> {
    let pods = Milli::from(needs.pods);
    if key == "pods" || key == "count/pods" {
        return Some(pods * 1000);
    }
    let (kind, name, _) = SUMS.iter().find(|(_, _, keys)| keys.contains(&key))?;
    Some(pods * needs.pod.map_or(0, |pod| of_pod(pod, kind, name)))
}

/// What a pod counts for: all containers that run together, or one init container that needs more.
fn of_pod(pod: &Value, kind: &str, name: &str) -> Milli {
    let amounts = |containers: &str| -> Vec<Milli> {
        let all = pod["spec"][containers].as_array().into_iter().flatten();
        let amounts = all.map(|container| &container["resources"][kind][name]);
        amounts.filter_map(|text| parse(text.as_str()?)).collect()
    };
    let together = amounts("containers").iter().sum();
    amounts("initContainers")
        .into_iter()
        .fold(together, Milli::max)
}

/// Which objects `key` counts, and how many of them come.
fn of_objects(key: &str, needs: &Needs<'_>) -> Option<(String, Milli)> {
    let kind = match key.strip_prefix("count/").unwrap_or(key) {
        "secrets" => &SECRETS,
        "configmaps" => &CONFIG_MAPS,
        "deployments.apps" => &DEPLOYMENTS,
        "poddisruptionbudgets.policy" => &BUDGETS,
        _ => return None,
    };
    let new = needs.objects.iter();
    let names = new.filter(|object| object["kind"] == kind.kind);
    let names: Vec<String> = names
        .map(|object| format!("{} {}", kind.kind, name_of(object)))
        .collect();
    (!names.is_empty()).then(|| (names.join(", "), names.len() as Milli * 1000))
}

fn pods(count: u64) -> String {
    match count {
        1 => "one relay pod more".to_owned(),
        n => format!("{n} relay pods more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn quota(hard: Value, used: Value) -> Value {
        json!({
            "metadata": {"name": "q"},
            "spec": {"hard": hard},
            "status": {"hard": hard, "used": used},
        })
    }

    fn said(quota: Value, pods: u64) -> Vec<String> {
        let container =
            json!({"resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "128Mi"}}});
        let pod = json!({"spec": {"containers": [container], "initContainers": [container]}});
        let maps = ["a", "b"].map(|name| json!({"kind": "ConfigMap", "metadata": {"name": name}}));
        let needs = Needs {
            objects: maps.iter().collect(),
            pods,
            pod: Some(&pod),
            priority_class: "",
        };
        let all = shortages(&[quota], &needs).into_iter();
        all.map(|refusal| format!("{}: {}", refusal.what, refusal.message))
            .collect()
    }

    #[test]
    fn pods_are_counted_together() {
        let few = |used: &str| quota(json!({"pods": "4"}), json!({"pods": used}));
        assert_eq!(said(few("2"), 2), Vec::<String>::new());
        let text = &said(few("3"), 2)[0];
        assert_eq!(
            text,
            "2 relay pods more: exceeded quota: q has no room for it, pods: 2 more, used 3 of 4"
        );
        let memory = quota(
            json!({"limits.memory": "1Gi"}),
            json!({"limits.memory": "900Mi"}),
        );
        let text = &said(memory, 2)[0];
        assert!(text.contains("256Mi more, used 900Mi of 1024Mi"), "{text}");
        let cpu = quota(json!({"cpu": "20m"}), json!({"cpu": "0"}));
        assert_eq!(said(cpu, 2), Vec::<String>::new());
    }

    #[test]
    fn objects_are_counted_together() {
        let one = quota(
            json!({"count/configmaps": "3"}),
            json!({"count/configmaps": "2"}),
        );
        let text = &said(one, 0)[0];
        assert!(text.starts_with("ConfigMap a, ConfigMap b: "), "{text}");
        let other = quota(json!({"services": "1"}), json!({"services": "1"}));
        assert_eq!(said(other, 2), Vec::<String>::new());
    }

    #[test]
    fn quotas_that_are_about_others_or_not_counted_say_nothing() {
        let mut scoped = quota(json!({"pods": "1"}), json!({"pods": "1"}));
        scoped["spec"]["scopes"] = json!(["Terminating"]);
        assert_eq!(said(scoped, 2), Vec::<String>::new());
        let uncounted = quota(json!({"pods": "1"}), json!({}));
        assert_eq!(said(uncounted, 2), Vec::<String>::new());
    }
}
