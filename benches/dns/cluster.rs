//! A large simulated cluster.

use std::path::PathBuf;

use kdev_sim::{Options, SimCluster};
use serde_json::json;

const NAMESPACES: usize = 100;
const SERVICES_EACH: usize = 50;
const PODS_EACH: usize = 200;
pub(crate) const PODS: usize = NAMESPACES * PODS_EACH;

pub(crate) struct Stage {
    _cluster: SimCluster,
    _folder: tempfile::TempDir,
    pub(crate) kubeconfig: PathBuf,
    /// Full names and addresses.
    pub(crate) services: Vec<(String, String)>,
}

pub(crate) async fn furnish() -> Stage {
    let cluster = SimCluster::start(Options::default()).await.unwrap();
    let mut services = Vec::new();
    for n in 0..NAMESPACES {
        let namespace = format!("team-{n}");
        cluster.add_namespace(&namespace);
        for s in 0..SERVICES_EACH {
            let (name, ip) = (format!("service-{s}"), format!("10.96.{n}.{}", s + 1));
            cluster.put_object(
                "services",
                json!({
                    "apiVersion": "v1", "kind": "Service",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {
                        "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                        "selector": {"app": format!("app-{s}")},
                        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
                    },
                }),
            );
            services.push((format!("{name}.{namespace}.svc.cluster.local"), ip));
        }
    }
    // After the Services, whose endpoints nobody asks for here.
    for n in 0..NAMESPACES {
        for p in 0..PODS_EACH {
            let (name, ip) = (
                format!("app-{}-{p}", p % SERVICES_EACH),
                format!("10.244.{n}.{}", p + 1),
            );
            cluster.put_object(
                "pods",
                json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {
                        "name": name, "namespace": format!("team-{n}"),
                        "labels": {"app": format!("app-{}", p % SERVICES_EACH)},
                    },
                    "spec": {"containers": [{"name": "main", "ports": [{"containerPort": 8080}]}]},
                    "status": {
                        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                        "conditions": [{"type": "Ready", "status": "True"}],
                    },
                }),
            );
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("config");
    cluster
        .write_kubeconfig(&kubeconfig, "admin", "team-0")
        .unwrap();
    Stage {
        _cluster: cluster,
        _folder: folder,
        kubeconfig,
        services,
    }
}
