//! The relay's pods of a simulated cluster.

use kdev_sim::SimCluster;

/// Names of those in the namespace `shop` that are ready.
pub(crate) fn ready_relays(cluster: &SimCluster) -> Vec<String> {
    let pods = cluster.objects("pods", "shop").into_iter();
    let own = pods.filter(|pod| {
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        pod["metadata"]["labels"]["app.kubernetes.io/name"] == "kdev-relay"
            && conditions
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
    });
    own.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}
