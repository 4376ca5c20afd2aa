//! The NetworkPolicy that lets callers of intercepted Services into the relay's pods, where others
//! keep them out.

use serde_json::{Value, json};

use super::manifest::Manifest;
use super::site::{Kind, name_of};
use super::{MANAGER, MANAGER_LABEL, NAME, NAME_LABEL};
use crate::k8s::netpolicy::advice::landing_rule;
use crate::k8s::netpolicy::selector::{Labels, labels};
use crate::k8s::netpolicy::spec::Policy;
use crate::tunnel::POD_TUNNEL_PORT;

/// Where they are.
pub static POLICIES: Kind = Kind {
    api: "networking.k8s.io/v1",
    plural: "networkpolicies",
    kind: "NetworkPolicy",
};
/// The Deployment's annotation with the choice, where it is not the usual one.
pub const ANNOTATION: &str = "kdev.dev/network-policy";

/// Whether there is to be one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Where another one isolates the relay's pods.
    #[default]
    Auto,
    /// In any case.
    On,
    /// Never.
    Off,
}

impl Choice {
    /// As the annotation has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }

    /// What a Deployment says.
    #[must_use]
    pub fn of(deployment: &Value) -> Self {
        match deployment["metadata"]["annotations"][ANNOTATION].as_str() {
            Some("on") => Self::On,
            Some("off") => Self::Off,
            _ => Self::Auto,
        }
    }
}

/// Whether a policy is the relay's own.
#[must_use]
pub fn is_own(policy: &Value) -> bool {
    let label = |name: &str| policy["metadata"]["labels"][name].as_str();
    name_of(policy) == NAME && label(MANAGER_LABEL) == Some(MANAGER)
}

impl Manifest {
    /// The labels of the pods.
    #[must_use]
    pub fn pod_labels(&self) -> Labels {
        labels(&self.deployment()["spec"]["template"]["metadata"]["labels"])
    }

    /// The NetworkPolicy, where it is chosen. `there` are those of the namespace.
    #[must_use]
    pub fn network_policy(&self, there: &[Value]) -> Option<Value> {
        let own = self.pod_labels();
        let isolates = |policy: &Value| {
            let policy = Policy::read(policy);
            policy.ingress.is_some() && policy.pods.selects(&own)
        };
        let mut foreign = there.iter().filter(|policy| !is_own(policy));
        let wanted = match self.settings.network_policy {
            Choice::On => true,
            Choice::Off => false,
            Choice::Auto => foreign.any(isolates),
        };
        wanted.then(|| {
            let mut ingress = vec![landing_rule()];
            if self.settings.pods_proxy {
                // From the API server, which has no labels.
                ingress.push(json!({"ports": [{"protocol": "TCP", "port": POD_TUNNEL_PORT}]}));
            }
            json!({
                "apiVersion": POLICIES.api,
                "kind": POLICIES.kind,
                "metadata": {
                    "name": NAME,
                    "namespace": self.namespace,
                    "labels": {NAME_LABEL: NAME, MANAGER_LABEL: MANAGER},
                },
                "spec": {
                    "podSelector": {"matchLabels": {NAME_LABEL: NAME}},
                    "policyTypes": ["Ingress"],
                    "ingress": ingress,
                },
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::super::settings::Source;
    use super::*;

    fn isolating(selector: &Value) -> Value {
        json!({"metadata": {"name": "x", "namespace": "shop"}, "spec": {"podSelector": selector}})
    }

    #[test]
    fn it_comes_where_another_isolates_the_pods() {
        let mut manifest = manifest(Source::Image("relay:1".to_owned()));
        manifest.keys = ["app".to_owned()].into();
        let other = isolating(&json!({"matchLabels": {"app": "web"}}));
        let by_key =
            isolating(&json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}));
        let mut egress = isolating(&json!({}));
        egress["spec"]["policyTypes"] = json!(["Egress"]);
        assert_eq!(manifest.network_policy(&[other.clone(), egress]), None);
        let own = manifest.network_policy(&[other, by_key.clone()]).unwrap();
        assert!(is_own(&own));
        // What it made itself is no reason to keep it.
        assert_eq!(manifest.network_policy(std::slice::from_ref(&own)), None);
        let ports = &own["spec"]["ingress"][0]["ports"][0];
        assert_eq!(
            (&ports["port"], &ports["endPort"]),
            (&json!(20_000), &json!(20_511))
        );
        manifest.settings.network_policy = Choice::Off;
        assert_eq!(manifest.network_policy(&[by_key]), None);
        manifest.settings.network_policy = Choice::On;
        manifest.settings.pods_proxy = true;
        let own = manifest.network_policy(&[]).unwrap();
        assert_eq!(own["spec"]["ingress"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn the_choice_is_kept_by_the_deployment() {
        for choice in [Choice::Auto, Choice::On, Choice::Off] {
            let mut manifest = manifest(Source::Image("relay:1".to_owned()));
            manifest.settings.network_policy = choice;
            assert_eq!(Choice::of(&manifest.deployment()), choice);
        }
    }
}
