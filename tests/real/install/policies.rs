//! A cluster with ValidatingAdmissionPolicies for the namespace.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Place, works};
use crate::lab::{self, Global};

/// How long the API server may take to learn of a policy, or that it is gone.
const KNOWN: Duration = Duration::from_secs(30);
/// How long the relay may take to come once nothing is in its way any more: some seconds, where what
/// was there before would wait for minutes by itself.
const COMES: Duration = Duration::from_secs(60);

/// A policy about one namespace; gone when this is dropped, its binding first.
pub(crate) struct Policy {
    _binding: Global,
    _policy: Global,
}

impl Policy {
    /// Has the API server refuse what it is asked to make of `resources` where `expression` (CEL) does
    /// not hold, with `message`. Waits until it does so.
    pub(crate) fn new(
        place: &Place,
        what: &str,
        resources: &[&str],
        expression: &str,
        message: &str,
    ) -> Self {
        let namespace = &place.site.0;
        let name = format!("{namespace}-{what}");
        let resources = [&["serviceaccounts"], resources].concat();
        // Of several policies that refuse the same, the API server names the first alone.
        let probe = format!("probe-{what}");
        let is_probe = format!("!has(object.metadata.name) || object.metadata.name != '{probe}'");
        let api = "admissionregistration.k8s.io/v1";
        let bound = json!({"kubernetes.io/metadata.name": namespace});
        let policy = Global::apply(&json!({
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["", "apps", "policy"],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": resources,
                }]},
                // A probe of this scenario's own tells when it is in force.
                "validations": [
                    {"expression": is_probe, "message": "a probe"},
                    {
                        "expression": format!("object.kind == 'ServiceAccount' || ({expression})"),
                        "message": message,
                    },
                ],
            },
        }));
        let binding = Global::apply(&json!({
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": bound}},
            },
        }));
        let probe = ["create", "serviceaccount", &probe, "--dry-run=server"];
        let until = Instant::now() + KNOWN;
        loop {
            match place.site.kubectl(&probe) {
                Err(refused) if refused.contains(&name) => {
                    return Self {
                        _binding: binding,
                        _policy: policy,
                    };
                }
                _ => assert!(Instant::now() < until, "{name} does not come"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// All that is made but pods.
const OBJECTS: [&str; 4] = [
    "secrets",
    "configmaps",
    "poddisruptionbudgets",
    "deployments",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn what_policies_refuse_is_known_before_anything_is_made() {
    if lab::older_than(30, "ValidatingAdmissionPolicies came with 1.30") {
        return;
    }
    let place = Place::new("policies");
    let labelled = "has(object.metadata.labels) && 'team' in object.metadata.labels";
    let _team = Policy::new(&place, "team", &OBJECTS, labelled, "label team is required");
    let limited = "object.spec.containers.all(c, has(c.resources.limits) && 'cpu' in \
                   c.resources.limits)";
    let _cpu = Policy::new(&place, "cpu", &["pods"], limited, "a cpu limit is required");
    let before = place.everything();
    let said = place.install(&[]).failed();
    for text in [
        "the cluster would refuse this, so nothing was changed",
        "Secret kdev-relay, Secret kdev-relay-intercept, ConfigMap kdev-relay-amd64-",
        "PodDisruptionBudget kdev-relay, Deployment kdev-relay",
        "denied request: label team is required",
        "--label team=VALUE",
        "a pod of Deployment kdev-relay: ",
        "--cpu-limit",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert_eq!(place.everything(), before);

    let class = lab::unique("class");
    let _class = Global::apply(&json!({
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": class},
        "handler": "runc",
    }));
    let runtime = format!("--runtime-class={class}");
    let chosen = [
        "--label=team=shop",
        "--annotation=note=one\\,two",
        "--cpu-request=20m",
        "--cpu-limit=300m",
        "--node-selector=kubernetes.io/os=linux",
        "--toleration=spot:NoSchedule",
        "--image-pull-secret=registry",
        &runtime,
        "--priority-class=system-cluster-critical",
    ];
    // That class is the system's namespaces' alone, unless a quota says otherwise: said ahead.
    let said = place.install(&chosen);
    let chosen = match said.code {
        0 => &chosen[..],
        _ => {
            assert!(said.err.contains("nothing was changed"), "{said:?}");
            assert!(said.err.contains("--priority-class"), "{said:?}");
            assert_eq!(place.everything(), before);
            &chosen[..chosen.len() - 1]
        }
    };
    place.install(chosen).ok();
    works(&place, 2).await;
    let again = place.install(&["--json"]).json();
    assert_eq!(again["changed"], false, "{again}");
    place
        .kdev(&["upgrade", "--relay-binary", &crate::installed::RELAY])
        .ok();
    let pod = place.site.relays().remove(0);
    let pod = place
        .site
        .kubectl(&["get", "pod", &pod, "-o", "json"])
        .unwrap();
    let pod: Value = serde_json::from_str(&pod).unwrap();
    assert_eq!(pod["metadata"]["labels"]["team"], "shop");
    assert_eq!(pod["metadata"]["annotations"]["note"], "one,two");
    assert_eq!(pod["spec"]["nodeSelector"]["kubernetes.io/os"], "linux");
    assert_eq!(pod["spec"]["imagePullSecrets"][0]["name"], "registry");
    assert_eq!(pod["spec"]["runtimeClassName"], class.as_str());
    let limits = &pod["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(limits["cpu"], "300m");
    place.kdev(&["uninstall", "--yes"]).ok();
    assert_eq!(place.everything(), before);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn what_only_controllers_are_refused_is_taken_back_and_not_repeated() {
    if lab::older_than(30, "ValidatingAdmissionPolicies came with 1.30") {
        return;
    }
    let place = Place::new("controllers");
    // The dry run is the user's own.
    let users = "request.userInfo.username.startsWith('system:serviceaccount:kdev-real-')";
    let policy = Policy::new(&place, "late", &["pods"], users, "no pods today");
    let before = place.everything();
    let said = place.install(&[]).failed();
    for text in [
        "no pod can be made (FailedCreate)",
        "no pods today",
        "what this run has made is taken back: Secret kdev-relay,",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert_eq!(place.everything(), before);

    let said = place.install(&["--keep"]).failed();
    assert!(
        said.contains("--keep was given; left in namespace"),
        "{said}"
    );
    let doctor = place.kdev(&["doctor"]);
    let told = "it is installed, 0 of 2 pods ready: no pod can be made (FailedCreate)";
    // Its lines end where the words do.
    let said: Vec<&str> = doctor.out.split_whitespace().collect();
    assert!(said.join(" ").contains(told), "{doctor:?}");
    place
        .site
        .kubectl(&["create", "service", "clusterip", "web", "--tcp=80"])
        .unwrap();
    let refused = place.kdev(&["intercept", "web", "--to", "18080"]).failed();
    assert!(refused.contains(told), "{refused}");
    assert!(!refused.contains("was not found"), "{refused}");
    place.site.kubectl(&["delete", "service", "web"]).unwrap();

    // By now the ReplicaSet waits for longer than anybody would.
    std::thread::sleep(Duration::from_secs(20));
    drop(policy);
    let begun = Instant::now();
    let done = place.install(&[]);
    assert!(!done.err.contains("no pods today"), "{done:?}");
    done.ok();
    println!("the relay came after {} ms", begun.elapsed().as_millis());
    assert!(begun.elapsed() < COMES, "{:?}", begun.elapsed());
    works(&place, 2).await;
}
