//! The relay's objects. Where there is no registry to push to, the program travels in ConfigMaps,
//! and an init container of any image with a shell joins the parts for its machine.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::binary::Binary;
use super::netpolicy;
use super::settings::{ALLOW, DENY, POD_TUNNEL, Settings, Source};
use super::shape::SAFE_TO_EVICT;
use super::site::Kind;
use super::{
    INTERCEPT_SECRET, MANAGER, MANAGER_LABEL, NAME, NAME_LABEL, PORTS, RESOURCES_ANNOTATION,
    VERSION_ANNOTATION,
};
use crate::relay::HTTP_PORT;
use crate::tunnel::{POD_TUNNEL_PORT, TUNNEL_PORT};

/// The user that the pods run as where the cluster assigns none: `nonroot` of distroless images,
/// which owns nothing in others.
const USER: u32 = 65532;
/// Bytes of a secret.
const SECRET: usize = 32;
/// Seconds between a pod's readiness and the end of the next old one: kdev finds the new pod and
/// opens its tunnels meanwhile, so that an upgrade cuts nothing.
const SETTLE: u32 = 3;
/// Seconds that a pod may take to end: callers are taken for 10 more, what is open gets 15 after
/// that, and some to spare.
const GRACE: u32 = 30;
/// Disk for the unpacked program: four times what the relay may be.
const UNPACKED: &str = "16Mi";

/// Everything that decides what the objects look like.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The namespace.
    pub namespace: String,
    /// What the user chose.
    pub settings: Settings,
    /// The program, for each machine; none where the image has it.
    pub binaries: Vec<Binary>,
    /// The program's version.
    pub version: String,
    /// Whether the cluster gives each namespace a user of its own and refuses others.
    pub assigns_user: bool,
    /// The containers' `resources`.
    pub resources: Value,
    /// PodDisruptionBudgets, in the version that the server has.
    pub budgets: &'static Kind,
    /// Keys of selectors for which the pods carry a label: a Service that is intercepted selects
    /// them by its own keys.
    pub keys: BTreeSet<String>,
}

impl Manifest {
    fn metadata(&self, name: &str) -> Value {
        let mut metadata = json!({
            "name": name,
            "namespace": self.namespace,
            "labels": {NAME_LABEL: NAME, MANAGER_LABEL: MANAGER},
        });
        self.settings.shape.mark(&mut metadata);
        metadata
    }

    /// A Secret with a new random key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn secret(&self, name: &str) -> Result<Value, getrandom::Error> {
        let mut key = [0; SECRET];
        getrandom::fill(&mut key)?;
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": self.metadata(name),
            "type": "Opaque",
            "data": {"key": STANDARD.encode(key)},
        }))
    }

    /// The ConfigMaps with the program.
    #[must_use]
    pub fn parts(&self) -> Vec<Value> {
        let parts = self.binaries.iter().flat_map(|binary| {
            binary.parts().enumerate().map(|(number, part)| {
                json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": self.metadata(&binary.part_name(number)),
                    "immutable": true,
                    "binaryData": {"part": STANDARD.encode(part)},
                })
            })
        });
        parts.collect()
    }

    /// Where intercepts keep whose the relay's ports are. What stands in it is theirs.
    #[must_use]
    pub fn ports(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": self.metadata(PORTS)})
    }

    /// What keeps one pod when a node is drained; none for a single pod, which could then not be
    /// moved at all.
    #[must_use]
    pub fn budget(&self) -> Option<Value> {
        (self.settings.replicas > 1).then(|| {
            json!({
                "apiVersion": self.budgets.api,
                "kind": self.budgets.kind,
                "metadata": self.metadata(NAME),
                "spec": {"minAvailable": 1, "selector": {"matchLabels": {NAME_LABEL: NAME}}},
            })
        })
    }

    /// The Deployment.
    #[must_use]
    pub fn deployment(&self) -> Value {
        let mut metadata = self.metadata(NAME);
        metadata["annotations"][VERSION_ANNOTATION] = json!(self.version);
        if let Some(sizes) = self.settings.shape.noted_sizes() {
            metadata["annotations"][RESOURCES_ANNOTATION] = json!(sizes);
        }
        if self.settings.network_policy != netpolicy::Choice::Auto {
            metadata["annotations"][netpolicy::ANNOTATION] =
                json!(self.settings.network_policy.name());
        }
        let mut inner = json!({
            "labels": {NAME_LABEL: NAME, MANAGER_LABEL: MANAGER},
            "annotations": {VERSION_ANNOTATION: self.version, SAFE_TO_EVICT: "true"},
        });
        self.settings.shape.mark(&mut inner);
        for key in &self.keys {
            if inner["labels"].get(key).is_none() {
                inner["labels"][key] = json!(NAME);
            }
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": self.settings.replicas,
                "selector": {"matchLabels": {NAME_LABEL: NAME}},
                // A rollback would look for ConfigMaps that went with the old version.
                "revisionHistoryLimit": 0,
                "minReadySeconds": SETTLE,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
                },
                "template": {
                    "metadata": inner,
                    "spec": self.pod(),
                },
            },
        })
    }

    fn pod(&self) -> Value {
        let mut security = json!({
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        if !self.assigns_user {
            security["runAsUser"] = json!(USER);
            security["runAsGroup"] = json!(USER);
        }
        let secret = |name: &str, secret: &str| json!({"name": name, "secret": {"secretName": secret, "defaultMode": 0o444}});
        let mut pod = json!({
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE,
            "securityContext": security,
            "topologySpreadConstraints": [{
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {NAME_LABEL: NAME}},
            }],
            "containers": [self.relay()],
            "volumes": [secret("forward", NAME), secret("intercept", INTERCEPT_SECRET)],
        });
        if let Source::BaseImage(image) = &self.settings.source {
            pod["initContainers"] = json!([self.unpacker(image)]);
            if let Some(volumes) = pod["volumes"].as_array_mut() {
                volumes.push(json!({"name": "program", "emptyDir": {"sizeLimit": UNPACKED}}));
                let sources = self.part_sources();
                volumes.push(json!({"name": "parts", "projected": {"sources": sources}}));
            }
        }
        self.settings.shape.place(&mut pod);
        pod
    }

    fn relay(&self) -> Value {
        let (image, base) = match &self.settings.source {
            Source::Image(image) => (image, false),
            Source::BaseImage(image) => (image, true),
        };
        let mut mounts = vec![
            mount("forward", "/var/run/secrets/kdev/forward", true),
            mount("intercept", "/var/run/secrets/kdev/intercept", true),
        ];
        let mut container = json!({
            "name": "relay",
            "image": image,
            "ports": [
                {"name": "tunnel", "containerPort": TUNNEL_PORT, "protocol": "TCP"},
                {"name": "metrics", "containerPort": HTTP_PORT, "protocol": "TCP"},
            ],
            // Bound listeners are all that readiness means, so a look every second costs nothing.
            "readinessProbe": {
                "httpGet": {"path": "/readyz", "port": HTTP_PORT},
                "periodSeconds": 1,
                "failureThreshold": 2,
            },
            "resources": self.resources,
            "securityContext": confined(),
            // What it said last stands in the pod's status then, for those who may not read logs.
            "terminationMessagePolicy": "FallbackToLogsOnError",
        });
        if base {
            container["command"] = json!(["/kdev/kdev-relay"]);
            mounts.push(mount("program", "/kdev", true));
        }
        container["volumeMounts"] = json!(mounts);
        let rules = [(ALLOW, &self.settings.allow), (DENY, &self.settings.deny)];
        let rules = rules.into_iter().filter(|(_, rules)| !rules.is_empty());
        let mut variables: Vec<Value> = rules
            .map(|(name, rules)| json!({"name": name, "value": rules.join(",")}))
            .collect();
        if self.settings.pods_proxy {
            let port = POD_TUNNEL_PORT.to_string();
            variables.push(json!({"name": POD_TUNNEL, "value": port}));
            // Declared, since that is how kdev sees that it may go there.
            if let Some(ports) = container["ports"].as_array_mut() {
                ports.push(json!({
                    "name": "pods-proxy", "containerPort": POD_TUNNEL_PORT, "protocol": "TCP",
                }));
            }
        }
        if !variables.is_empty() {
            container["env"] = json!(variables);
        }
        container
    }

    fn unpacker(&self, image: &str) -> Value {
        json!({
            "name": "unpack",
            "image": image,
            "command": ["sh", "-c", self.script()],
            "volumeMounts": [mount("program", "/kdev", false), mount("parts", "/parts", true)],
            "resources": self.resources,
            "securityContext": confined(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        })
    }

    /// Joins the parts for the machine that it runs on. The sum is looked at where the image has
    /// `sha256sum`; `gunzip` checks its own in any case.
    fn script(&self) -> String {
        let names: Vec<&str> = self.binaries.iter().map(|b| b.arch.name).collect();
        let names = names.join(", ");
        let mut cases = String::new();
        for Binary { arch, sha256, .. } in &self.binaries {
            cases += &format!("{}) arch={} sum={sha256} ;;\n", arch.machine, arch.name);
        }
        format!(
            "set -eu\n\
             say() {{ echo \"kdev: $*\" >&2; exit 1; }}\n\
             machine=$(uname -m)\n\
             case $machine in\n\
             {cases}\
             *) say \"this node is $machine and the relay was installed for {names};\" \\\n\
             \x20 \"install it with a --relay-binary for this machine too\" ;;\n\
             esac\n\
             rm -f /kdev/new\n\
             cat /parts/$arch/* | gunzip >/kdev/new || say \"the relay's parts cannot be joined\"\n\
             if command -v sha256sum >/dev/null; then\n\
             \x20 is=$(sha256sum /kdev/new)\n\
             \x20 [ \"${{is%% *}}\" = $sum ] || say \"the joined relay has the wrong sum,\" \\\n\
             \x20   \"${{is%% *}} in place of $sum\"\n\
             fi\n\
             chmod 555 /kdev/new\n\
             mv -f /kdev/new /kdev/kdev-relay\n"
        )
    }

    fn part_sources(&self) -> Vec<Value> {
        let sources = self.binaries.iter().flat_map(|binary| {
            (0..binary.parts().count()).map(|number| {
                json!({"configMap": {
                    "name": binary.part_name(number),
                    "items": [{"key": "part", "path": binary.part_path(number)}],
                }})
            })
        });
        sources.collect()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> Value {
    let mut mount = json!({"name": name, "mountPath": path});
    if read_only {
        mount["readOnly"] = json!(true);
    }
    mount
}

/// The container's half of the `restricted` Pod Security profile.
fn confined() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::k8s::install::site::BUDGETS;

    pub(in super::super) fn manifest(source: Source) -> Manifest {
        Manifest {
            namespace: "shop".to_owned(),
            settings: Settings {
                source,
                ..Settings::default()
            },
            binaries: Vec::new(),
            version: "1.2.3".to_owned(),
            assigns_user: false,
            resources: json!({}),
            budgets: &BUDGETS,
            keys: BTreeSet::new(),
        }
    }

    #[test]
    fn a_user_is_chosen_unless_the_cluster_assigns_one() {
        let mut manifest = manifest(Source::Image("relay:1".to_owned()));
        let security = |manifest: &Manifest| manifest.pod()["securityContext"].clone();
        assert_eq!(security(&manifest)["runAsUser"], USER);
        manifest.assigns_user = true;
        let assigned = security(&manifest);
        assert_eq!(assigned.get("runAsUser"), None);
        assert_eq!(assigned.get("runAsGroup"), None);
        assert_eq!(assigned["runAsNonRoot"], true);
    }

    #[test]
    fn pods_carry_a_label_for_each_key() {
        let mut manifest = manifest(Source::Image("relay:1".to_owned()));
        manifest.keys = ["app", NAME_LABEL, MANAGER_LABEL].map(str::to_owned).into();
        let deployment = manifest.deployment();
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let expected = json!({"app": NAME, NAME_LABEL: NAME, MANAGER_LABEL: MANAGER});
        assert_eq!(*labels, expected);
        assert_eq!(
            deployment["spec"]["selector"]["matchLabels"],
            json!({NAME_LABEL: NAME})
        );
    }

    #[test]
    fn each_secret_is_another() {
        let manifest = manifest(Source::Image("relay:1".to_owned()));
        let key = |name| manifest.secret(name).unwrap()["data"]["key"].clone();
        let (first, second) = (key("a"), key("a"));
        assert_ne!(first, second);
        let bytes = STANDARD.decode(first.as_str().unwrap()).unwrap();
        assert_eq!(bytes.len(), SECRET);
    }

    #[test]
    fn what_the_grace_has_to_hold() {
        assert!(u64::from(GRACE) > crate::relay::LONGEST_END.as_secs());
    }
}
