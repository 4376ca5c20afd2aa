//! What is looked at before anything is changed: whether a Service can be intercepted at all, and
//! whether that would be wise.

use serde_json::Value;

use super::marks::{INTERCEPTED, ORIGIN_OF};
use super::object::{annotation, label, name, ports, selector, selects, text};
use super::origin;
use crate::intercept::redirect::RedirectError;
use crate::k8s::install::site::HASH_KEYS;
use crate::relay::BLOCK;

/// Labels and annotations, or how they begin, of what GitOps controllers set back.
const GITOPS: [(&str, &str); 6] = [
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("argocd.argoproj.io/installation-id", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("kustomize.toolkit.fluxcd.io/checksum", "Flux"),
];
/// Who sets fields on behalf of such a controller that leaves no mark.
const GITOPS_MANAGERS: [(&str, &str); 4] = [
    ("argocd-controller", "Argo CD"),
    ("argocd-application-controller", "Argo CD"),
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
];
/// Labels and annotations of namespaces whose pods get a sidecar; none of these values means none.
const MESHES: [(&str, &str); 4] = [
    ("istio-injection", "Istio"),
    ("istio.io/rev", "Istio"),
    ("linkerd.io/inject", "Linkerd"),
    ("kuma.io/sidecar-injection", "Kuma"),
];
const NO_MESH: [&str; 2] = ["disabled", "false"];

/// Why a Service is not intercepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    reason: String,
    fix: &'static str,
    /// What `--force` does about it; none where nothing but the fix helps.
    force: Option<Force>,
}

/// What it means for callers to go on all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    /// They get answers, whatever becomes of the intercept.
    Harmless,
    /// Some or all of them may get none.
    Risky,
}

impl Force {
    /// The fix, which comes first, and how to go on without it, which is no fix where callers pay.
    pub(super) fn beside(self, fix: &str) -> String {
        match self {
            Self::Harmless => format!("{fix}, or pass --force to go on all the same"),
            Self::Risky => {
                format!("{fix}. With --force it goes on all the same: callers may get no answer")
            }
        }
    }

    /// What it may cost somebody who did.
    pub(super) fn cost(self) -> &'static str {
        match self {
            Self::Harmless => "",
            Self::Risky => "; callers may get no answer",
        }
    }
}

fn never(reason: impl Into<String>, fix: &'static str) -> Option<Refusal> {
    Some(Refusal {
        reason: reason.into(),
        fix,
        force: None,
    })
}

fn unwise(reason: impl Into<String>, fix: &'static str, force: Force) -> Option<Refusal> {
    Some(Refusal {
        reason: reason.into(),
        fix,
        force: Some(force),
    })
}

/// Refuses what cannot be intercepted, and what is unwise unless it is forced; gives what was
/// forced, for whoever did. `plain` is the Service's spec as it is without kdev, `ours` whether its
/// origin is known.
pub(super) fn check(
    live: &Value,
    plain: &Value,
    ours: bool,
    relays: &[Value],
    namespace: Option<&Value>,
    force: bool,
) -> Result<Vec<String>, RedirectError> {
    let refusals = [
        of_kind(live, plain, ours),
        of_ports(plain),
        of_selector(plain, relays),
        of_routing(plain),
        of_owners(live),
        namespace.and_then(of_mesh),
    ]
    .into_iter()
    .flatten();
    let mut forced = Vec::new();
    for Refusal {
        reason,
        fix,
        force: forceable,
    } in refusals
    {
        if let (Some(overruled), true) = (forceable, force) {
            forced.push(format!("{reason}{}", overruled.cost()));
            continue;
        }
        let fix = match forceable {
            Some(offered) => offered.beside(fix),
            None => fix.to_owned(),
        };
        return Err(RedirectError::Unfit {
            service: name(live).to_owned(),
            reason,
            fix,
        });
    }
    Ok(forced)
}

fn of_kind(live: &Value, plain: &Value, ours: bool) -> Option<Refusal> {
    let of = label(live, ORIGIN_OF);
    if !of.is_empty() {
        let reason = format!("it is kdev's own, for the intercepts of Service {of}");
        return never(reason, "intercept that one");
    }
    if plain["type"] == "ExternalName" {
        return never(
            "it is an ExternalName, a name for something outside of the cluster",
            "intercept a Service whose callers come through the cluster",
        );
    }
    if plain["clusterIP"] == "None" {
        return never(
            "it is headless, so its callers go to pods without passing the Service",
            "intercept a Service with a cluster address over the same pods",
        );
    }
    if live["metadata"]["deletionTimestamp"].is_string() {
        return never("it is being deleted", "wait until it is there again");
    }
    if !ours && !label(live, INTERCEPTED).is_empty() {
        return never(
            "an intercept was left on it, and the Service that knew how it was before is gone",
            "apply its own manifest again, then repeat this",
        );
    }
    None
}

fn of_ports(plain: &Value) -> Option<Refusal> {
    let count = ports(plain).count();
    if count == 0 {
        return never("it has no ports", "give it one");
    }
    if count > usize::from(BLOCK) {
        return never(
            format!("it has {count} ports, and the relay has {BLOCK} for each Service"),
            "make another Service of the ports in question, over the same pods",
        );
    }
    let other = |port: &&Value| !matches!(text(port, &["protocol"]), "" | "TCP");
    let other = ports(plain).find(other)?;
    let (protocol, number) = (text(other, &["protocol"]), &other["port"]);
    never(
        format!("its port {number} is {protocol}, which the relay does not pass on"),
        "make another Service of its TCP ports, over the same pods",
    )
}

fn of_selector(plain: &Value, relays: &[Value]) -> Option<Refusal> {
    if selector(plain).next().is_none() {
        return never(
            "it has no selector, so kdev cannot change where it leads",
            "intercept a Service that selects its pods",
        );
    }
    if let Some(key) = HASH_KEYS
        .iter()
        .find(|key| selector(plain).any(|(k, _)| k == **key))
    {
        return never(
            format!("its selector has {key}, which a controller sets anew with each version"),
            "intercept a Service that selects the pods of all versions",
        );
    }
    let own = relays
        .iter()
        .any(|pod| selects(plain, &pod["metadata"]["labels"]));
    own.then_some(())?;
    never(
        "its selector means the relay's own pods",
        "use a selector that does not, or install the relay in another namespace",
    )
}

fn of_routing(plain: &Value) -> Option<Refusal> {
    for policy in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        if plain[policy] == "Local" {
            return unwise(
                format!(
                    "its {policy} is Local, so callers get nowhere on nodes without a relay pod"
                ),
                "make it Cluster, or another Service that is over the same pods",
                Force::Risky,
            );
        }
    }
    let affinity = text(plain, &["sessionAffinity"]);
    if !matches!(affinity, "" | "None") {
        return unwise(
            format!(
                "it has session affinity ({affinity}), which the way through the relay does not keep"
            ),
            "intercept a Service without it that is over the same pods",
            Force::Harmless,
        );
    }
    None
}

fn of_owners(live: &Value) -> Option<Refusal> {
    let owners = live["metadata"]["ownerReferences"].as_array();
    let mut owners = owners.into_iter().flatten();
    if let Some(owner) = owners.find(|owner| owner["controller"] == true) {
        let (kind, named) = (text(owner, &["kind"]), text(owner, &["name"]));
        return unwise(
            format!("it belongs to {kind} {named}, whose controller may set it back"),
            "have that controller leave it alone meanwhile",
            Force::Harmless,
        );
    }
    let marked = GITOPS
        .iter()
        .find(|(key, _)| !label(live, key).is_empty() || !annotation(live, key).is_empty());
    let managers = live["metadata"]["managedFields"].as_array();
    let managed = || {
        let mut names = managers
            .into_iter()
            .flatten()
            .map(|entry| text(entry, &["manager"]));
        names.find_map(|manager| GITOPS_MANAGERS.iter().find(|(name, _)| *name == manager))
    };
    let (_, who) = marked.or_else(managed)?;
    unwise(
        format!("{who} looks after it and may set it back"),
        "have it leave the Service alone meanwhile",
        Force::Harmless,
    )
}

fn of_mesh(namespace: &Value) -> Option<Refusal> {
    let (key, mesh) = MESHES.iter().find(|(key, _)| {
        let values = [label(namespace, key), annotation(namespace, key)];
        let mut values = values.into_iter().filter(|value| !value.is_empty());
        values.any(|value| !NO_MESH.contains(&value))
    })?;
    unwise(
        format!(
            "its namespace is part of a mesh ({mesh}, by {key}), whose sidecars may refuse the relay \
             or not find its pods"
        ),
        "have the mesh let plain TCP pass between callers, the relay's pods and the Service's",
        Force::Risky,
    )
}

/// The origin among `origins` for the Service, with the Service's spec as it is without kdev.
pub(super) fn plain_of<'a>(live: &Value, origins: &'a [Value]) -> (Option<&'a Value>, Value) {
    let origin = origin::of(origins, super::object::uid(live));
    let plain = match origin {
        Some(origin) => super::swap::plain(live, origin),
        None => live["spec"].clone(),
    };
    (origin, plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Value {
        json!({
            "metadata": {"name": "web"},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "10.0.0.1",
                "selector": {"app": "web"},
                "sessionAffinity": "None",
                "externalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
            },
        })
    }

    fn verdict(live: &Value, force: bool) -> Result<Vec<String>, String> {
        let relay = json!({"metadata": {"labels": {"app.kubernetes.io/name": "kdev-relay", "app": "kdev-relay"}}});
        check(live, &live["spec"], false, &[relay], None, force).map_err(|e| e.to_string())
    }

    #[test]
    fn an_ordinary_service_passes() {
        assert_eq!(verdict(&service(), false), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_is_refused_even_by_force() {
        let nine: Vec<Value> = (0..9)
            .map(|n| json!({"port": n, "protocol": "TCP"}))
            .collect();
        for (path, value, said) in [
            ("/spec/type", json!("ExternalName"), "ExternalName"),
            ("/spec/clusterIP", json!("None"), "headless"),
            ("/spec/selector", json!({}), "no selector"),
            (
                "/spec/selector",
                json!({"pod-template-hash": "x"}),
                "pod-template-hash",
            ),
            (
                "/spec/selector",
                json!({"app": "a", "rollouts-pod-template-hash": "x"}),
                "rollouts",
            ),
            (
                "/spec/selector",
                json!({"app": "kdev-relay"}),
                "relay's own pods",
            ),
            ("/spec/ports", json!([]), "no ports"),
            ("/spec/ports", json!(nine), "9 ports"),
            ("/spec/ports/0/protocol", json!("UDP"), "port 80 is UDP"),
            (
                "/metadata/labels",
                json!({"kdev.dev/intercepted": "kdev-20000.1"}),
                "manifest",
            ),
            (
                "/metadata/labels",
                json!({"kdev.dev/origin-of": "orders"}),
                "orders",
            ),
            ("/metadata/deletionTimestamp", json!("now"), "being deleted"),
        ] {
            let mut live = service();
            live["metadata"]["labels"] = json!({});
            live["metadata"]["deletionTimestamp"] = Value::Null;
            *live.pointer_mut(path).unwrap() = value;
            for force in [false, true] {
                let text = verdict(&live, force).unwrap_err();
                assert!(text.contains(said) && !text.contains("--force"), "{text}");
            }
        }
    }

    #[test]
    fn what_is_unwise_takes_force_and_says_what_that_may_cost() {
        const COST: &str = "callers may get no answer";
        for (path, value, said) in [
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                "externalTrafficPolicy",
            ),
            (
                "/spec/internalTrafficPolicy",
                json!("Local"),
                "internalTrafficPolicy",
            ),
            ("/spec/sessionAffinity", json!("ClientIP"), "affinity"),
            (
                "/metadata/ownerReferences",
                json!([{"controller": true, "kind": "Op", "name": "x"}]),
                "Op x",
            ),
            (
                "/metadata/annotations",
                json!({"argocd.argoproj.io/tracking-id": "x"}),
                "Argo CD",
            ),
            (
                "/metadata/labels",
                json!({"kustomize.toolkit.fluxcd.io/name": "x"}),
                "Flux",
            ),
            (
                "/metadata/managedFields",
                json!([{"manager": "argocd-controller"}]),
                "Argo CD",
            ),
        ] {
            let mut live = service();
            live["spec"]["internalTrafficPolicy"] = json!("Cluster");
            for field in ["ownerReferences", "annotations", "labels", "managedFields"] {
                live["metadata"][field] = Value::Null;
            }
            *live.pointer_mut(path).unwrap() = value;
            let risky = path.contains("TrafficPolicy");
            let text = verdict(&live, false).unwrap_err();
            assert!(text.contains(said), "{text}");
            // What mends it comes first.
            let (_, fix) = text.rsplit_once("; ").unwrap();
            assert!(fix.find("--force").unwrap() > 20, "{text}");
            assert_eq!(fix.contains(COST), risky, "{text}");
            let forced = verdict(&live, true).unwrap();
            assert!(forced[0].contains(said), "{forced:?}");
            assert_eq!(forced[0].contains(COST), risky, "{forced:?}");
        }
    }

    #[test]
    fn a_mesh_is_told_by_its_namespace() {
        let of = |metadata: Value| of_mesh(&json!({"metadata": metadata}));
        let mesh = |metadata: Value| of(metadata).is_some();
        let found = of(json!({"labels": {"istio-injection": "enabled"}})).unwrap();
        assert_eq!(found.force, Some(Force::Risky));
        assert!(mesh(json!({"labels": {"istio-injection": "enabled"}})));
        assert!(mesh(
            json!({"annotations": {"linkerd.io/inject": "enabled"}})
        ));
        assert!(!mesh(json!({"labels": {"istio-injection": "disabled"}})));
        assert!(!mesh(json!({"labels": {"team": "a"}})));
    }
}
