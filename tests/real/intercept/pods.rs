//! Pods that run a program of the scenario's.

use serde_json::{Value, json};

use crate::lab;
use crate::team::Team;

/// How many pods each Deployment has.
pub(super) const PODS: usize = 4;

/// A Deployment that runs `command` in a shell, with the folder `from` of the node at `/from`, and a Service
/// with one port of each name over it.
pub(super) fn deploy(
    team: &Team,
    name: &str,
    command: &str,
    from: &str,
    ports: &[(&str, u16, u16)],
) {
    let labels = json!({"app": name});
    let service: Vec<Value> = ports
        .iter()
        .map(|(name, port, target)| json!({"name": name, "port": port, "targetPort": target}))
        .collect();
    let first = ports[0].2;
    let container = json!({
        "name": "server", "image": "kdev-lab/server:1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
        "readinessProbe": {"tcpSocket": {"port": first}, "periodSeconds": 1},
        "volumeMounts": [{"name": "from", "mountPath": "/from", "readOnly": true}],
    });
    let spec = json!({
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": "from", "hostPath": {"path": from, "type": "Directory"}}],
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": PODS, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": labels, "ports": service},
    });
    // A pod that reads a folder of the node is let in by no other profile.
    let level = "pod-security.kubernetes.io/enforce=privileged";
    let namespace = [
        "label",
        "--overwrite",
        "namespace",
        &team.place.site.0,
        level,
    ];
    lab::kubectl(&namespace).unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]});
    team.place.apply(&list.to_string());
    let rollout = [
        "rollout",
        "status",
        &format!("deployment/{name}"),
        "--timeout=90s",
    ];
    team.place.site.kubectl(&rollout).unwrap();
}
