//! A large cluster: Services and pods by the thousands, as big as real ones, that only stand in
//! the API. Nothing runs in these pods.

use serde_json::{Value, json};

use crate::cluster::SimCluster;
use crate::resources::{PODS, SERVICES};

/// Pods of one Service: 4, as in the 20,000 pods of 5,000 Services.
const REPLICAS: usize = 4;
/// Services in a namespace.
const PER_NAMESPACE: usize = 50;

/// A crowd's size.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Services, 50 in a namespace; each selects 4 pods.
    pub services: usize,
}

impl Crowd {
    /// How many pods that makes.
    #[must_use]
    pub fn pods(&self) -> usize {
        self.services * REPLICAS
    }

    /// Adds them all to a cluster.
    pub fn join(&self, cluster: &SimCluster) {
        for namespace in 0..self.services.div_ceil(PER_NAMESPACE) {
            cluster.add_namespace(&format!("team-{namespace}"));
        }
        cluster.put_objects(SERVICES.plural, (0..self.services).map(service));
        cluster.put_objects(PODS.plural, (0..self.pods()).map(|number| pod(number, 0)));
    }

    /// Does `count` changes as a cluster at work has them, the `first`th and on: three of four are
    /// a new status, one is a pod that another takes the place of.
    pub fn churn(&self, cluster: &SimCluster, first: usize, count: usize) {
        let pods = self.pods();
        for change in first..first + count {
            // A prime step spreads them over all namespaces.
            let number = change * 7919 % pods;
            let (round, replaced) = (change / pods, change % 4 == 3);
            // A number is replaced in every round or in none where 4 divides the count of pods.
            let generation = if replaced { round } else { 0 };
            let mut next = pod(number, generation + usize::from(replaced));
            if replaced {
                let old = pod(number, generation);
                let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or("").to_owned();
                let namespace = old["metadata"]["namespace"].as_str().unwrap_or_default();
                cluster.remove_object(PODS.plural, namespace, &name(&old));
            } else {
                next["status"]["containerStatuses"][0]["restartCount"] = json!(change);
                next["status"]["conditions"][1]["status"] =
                    json!(if round % 2 == 0 { "False" } else { "True" });
            }
            cluster.put_objects(PODS.plural, [next]);
        }
    }
}

fn namespace_of(service: usize) -> String {
    format!("team-{}", service / PER_NAMESPACE)
}

/// What deployments of real clusters are called: a few words and numbers.
fn name_of(service: usize) -> String {
    const WORDS: [&str; 8] = [
        "checkout",
        "inventory-sync",
        "user-profile",
        "billing-worker",
        "search-indexer",
        "notification-gateway",
        "report-renderer",
        "session-store",
    ];
    format!("{}-{service}", WORDS[service % WORDS.len()])
}

/// A Service, about 1 KiB of JSON with its managed fields.
fn service(number: usize) -> Value {
    let name = name_of(number);
    let ip = format!(
        "10.{}.{}.{}",
        97 + number / 62500,
        number / 250 % 250,
        number % 250 + 2
    );
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace_of(number),
            "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"meta.helm.sh/release-name": name,
                "meta.helm.sh/release-namespace": namespace_of(number)},
            "managedFields": [managed("helm", &["f:metadata", "f:labels", "f:annotations",
                "f:spec", "f:internalTrafficPolicy", "f:ports", "f:selector", "f:sessionAffinity",
                "f:type"])],
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "selector": {"app.kubernetes.io/name": name},
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"},
                {"name": "metrics", "port": 9090, "protocol": "TCP", "targetPort": "metrics"},
            ],
        },
        "status": {"loadBalancer": {}},
    })
}

/// A running pod, about 4 KiB of JSON: two containers, environment, volumes, managed fields.
fn pod(number: usize, generation: usize) -> Value {
    let service = number / REPLICAS;
    let (name, namespace) = (name_of(service), namespace_of(service));
    let hash = format!("{:010x}", (service * 2_654_435_761) % 0xff_ffff_ffff);
    let suffix = format!("{:05x}", (number * 40_503 + generation * 65_537) % 0xf_ffff);
    let ip = format!(
        "10.{}.{}.{}",
        128 + generation % 64,
        number / 250,
        number % 250 + 2
    );
    let since = "2026-01-02T03:04:05Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": since});
    let image = format!("registry.example.com/platform/{name}:2026.1.{generation}");
    let env: Vec<Value> = [
        "DATABASE_URL",
        "LOG_LEVEL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "REGION",
    ]
    .iter()
    .map(|key| json!({"name": key, "value": format!("{}-{namespace}", key.to_lowercase())}))
    .collect();
    let mounts = json!([
        {"name": "config", "mountPath": "/etc/config", "readOnly": true},
        {"name": "kube-api-access", "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
    ]);
    let container = |kind: &str, ports: Value| {
        json!({
            "name": kind, "image": image, "imagePullPolicy": "IfNotPresent", "env": env,
            "ports": ports, "volumeMounts": mounts,
            "resources": {"limits": {"memory": "512Mi"},
                "requests": {"cpu": "100m", "memory": "256Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
                "periodSeconds": 10, "failureThreshold": 3, "timeoutSeconds": 1},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        })
    };
    let status = |kind: &str| {
        json!({
            "name": kind, "image": image, "ready": true, "started": true, "restartCount": 0,
            "imageID": format!("{image}@sha256:{}", hash.repeat(6)),
            "containerID": format!("containerd://{}", hash.repeat(6)),
            "lastState": {}, "state": {"running": {"startedAt": since}},
        })
    };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("{name}-{hash}-{suffix}"),
            "generateName": format!("{name}-{hash}-"),
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/name": name,
                "app.kubernetes.io/managed-by": "Helm",
                "app.kubernetes.io/version": "2026.1",
                "pod-template-hash": hash,
            },
            "annotations": {"checksum/config": hash.repeat(6), "prometheus.io/scrape": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "blockOwnerDeletion": true, "name": format!("{name}-{hash}"),
                "uid": format!("6d0f0a00-0000-4000-8000-{service:012x}")}],
            "managedFields": [
                managed("kube-controller-manager", &["f:metadata", "f:annotations",
                    "f:generateName", "f:labels", "f:ownerReferences", "f:spec", "f:containers",
                    "f:env", "f:image", "f:imagePullPolicy", "f:livenessProbe", "f:ports",
                    "f:resources", "f:volumeMounts", "f:dnsPolicy", "f:enableServiceLinks",
                    "f:restartPolicy", "f:schedulerName", "f:securityContext",
                    "f:terminationGracePeriodSeconds", "f:volumes"]),
                managed("kubelet", &["f:status", "f:conditions", "f:containerStatuses", "f:hostIP",
                    "f:phase", "f:podIP", "f:podIPs", "f:startTime"]),
            ],
        },
        "spec": {
            "containers": [
                container("main", json!([
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}])),
                container("sidecar", json!([])),
            ],
            "volumes": [
                {"name": "config", "configMap": {"name": name, "defaultMode": 420}},
                {"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt"}}]}},
            ],
            "nodeName": format!("node-{}", number % 400),
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "serviceAccountName": name,
            "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {
            "phase": "Running", "qosClass": "Burstable", "startTime": since,
            "hostIP": format!("192.0.2.{}", number % 250), "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [condition("Initialized"), condition("Ready"),
                condition("ContainersReady"), condition("PodScheduled")],
            "containerStatuses": [status("main"), status("sidecar")],
        },
    })
}

/// An entry of `managedFields` with these fields in it.
fn managed(manager: &str, fields: &[&str]) -> Value {
    let owned = fields
        .iter()
        .map(|field| ((*field).to_owned(), json!({".": {}})));
    json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "time": "2026-01-02T03:04:05Z", "fieldsV1": Value::Object(owned.collect())})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_as_big_as_real_ones() {
        let size = |object: Value| object.to_string().len();
        assert!(
            (700..2_000).contains(&size(service(4_999))),
            "{}",
            size(service(4_999))
        );
        assert!(
            (3_500..6_000).contains(&size(pod(19_999, 0))),
            "{}",
            size(pod(19_999, 0))
        );
    }
}
