//! Who is ready behind a Service: as its EndpointSlices have it, and where these may not be read or
//! are not there, as its pods do. Endpoints of v1 are never asked for: a cluster may go without them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::keys::is_ready;
use super::marks::{INTERCEPTED, ORIGIN_OF};
use super::object::{label, name, port_name, port_number, ports, selector, text};
use super::site::Site;
use crate::intercept::redirect::RedirectError;
use crate::k8s::Client;
use crate::k8s::netpolicy::party::{Party, Place};

/// Services that are looked at until one is found behind which a pod is ready.
const LOOKED_AT: usize = 5;

/// A pod behind a Service that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// Its name.
    pub(super) pod: String,
    /// Its UID.
    pub(super) uid: String,
    /// Names of the Service's ports, and where it has them.
    pub(super) ports: Vec<(String, u16)>,
}

/// The ready pods behind `service`, whose selector and ports are those of `spec`.
pub(super) async fn behind(
    site: &Site,
    service: &str,
    spec: &Value,
) -> Result<Vec<Ready>, RedirectError> {
    match site.slices(service).await? {
        Some(slices) => Ok(of_slices(&slices)),
        None => Ok(of_pods(&site.pods_of(spec).await?, spec)),
    }
}

/// A TCP port of a Service of `namespace` that leads to a pod which is ready: of the first few Services by
/// name, none that leads to the relay. What stands for an intercepted one comes last.
///
/// # Errors
/// When the Services, or who is behind them, may not be seen.
pub async fn served(
    client: &Client,
    namespace: &str,
) -> Result<Option<(String, u16)>, RedirectError> {
    let site = Site {
        client: client.clone(),
        namespace: namespace.to_owned(),
    };
    let all = site.list(&site.services(""), "list services").await?;
    let leads_to_pods = |service: &&Value| {
        let spec = &service["spec"];
        label(service, INTERCEPTED).is_empty()
            && selector(spec).next().is_some()
            && spec["type"] != "ExternalName"
            && spec["clusterIP"] != "None"
    };
    let (own, origins): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(leads_to_pods)
        .partition(|service| label(service, ORIGIN_OF).is_empty());
    let few = |services: Vec<_>| services.into_iter().take(LOOKED_AT);
    for service in few(own).chain(few(origins)) {
        let ready = behind(&site, name(service), &service["spec"]).await?;
        let mut tcp =
            ports(&service["spec"]).filter(|port| matches!(text(port, &["protocol"]), "" | "TCP"));
        if let Some(port) = tcp.find(|port| serves(&ready, port_name(port))) {
            return Ok(Some((name(service).to_owned(), port_number(port))));
        }
    }
    Ok(None)
}

/// Whether one of them is ready for the Service's port of this name.
pub(super) fn serves(ready: &[Ready], port: &str) -> bool {
    let mut ports = ready.iter().flat_map(|pod| &pod.ports);
    ports.any(|(name, _)| name == port)
}

fn of_slices(slices: &[Value]) -> Vec<Ready> {
    // A pod of two families is in two of them.
    let mut all: BTreeMap<String, Ready> = BTreeMap::new();
    for slice in slices {
        let named: Vec<(String, u16)> = ports(slice)
            .filter_map(|port| {
                let number = port["port"].as_u64().and_then(|n| u16::try_from(n).ok())?;
                Some((port_name(port).to_owned(), number))
            })
            .collect();
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            // Left out means that it is.
            if endpoint["conditions"]["ready"] == false {
                continue;
            }
            let pod = text(endpoint, &["targetRef", "name"]).to_owned();
            let ready = all.entry(pod.clone()).or_insert_with(|| Ready {
                pod,
                uid: text(endpoint, &["targetRef", "uid"]).to_owned(),
                ports: Vec::new(),
            });
            for port in &named {
                if !ready.ports.contains(port) {
                    ready.ports.push(port.clone());
                }
            }
        }
    }
    all.into_values().collect()
}

fn of_pods(pods: &[Value], spec: &Value) -> Vec<Ready> {
    if selector(spec).next().is_none() {
        return Vec::new();
    }
    let always = spec["publishNotReadyAddresses"] == true;
    let ready = pods.iter().filter(|pod| always || is_ready(pod));
    ready
        .filter_map(|pod| {
            // Only its ports are of interest, which it has wherever it lives.
            let party = Party::pod(pod, &Place::default())?;
            let own = ports(spec).filter_map(|port| {
                let number = party.port(&port["targetPort"])?;
                Some((port_name(port).to_owned(), number))
            });
            Some(Ready {
                pod: name(pod).to_owned(),
                uid: text(pod, &["metadata", "uid"]).to_owned(),
                ports: own.collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_of_ready_pods_are_served() {
        let endpoint = |name: &str, ready: Value| json!({"targetRef": {"name": name, "uid": "u"}, "conditions": {"ready": ready}});
        let slices = [
            json!({"ports": [{"name": "http", "port": 80}], "endpoints": [
                endpoint("a", json!(true)), endpoint("b", Value::Null)]}),
            json!({"ports": [{"name": "http", "port": 80}], "endpoints": [endpoint("a", json!(true))]}),
            json!({"ports": [{"name": "admin", "port": 81}], "endpoints": [endpoint("c", json!(false))]}),
        ];
        let ready = of_slices(&slices);
        let pods: Vec<&str> = ready.iter().map(|ready| &*ready.pod).collect();
        assert_eq!(pods, ["a", "b"]);
        assert_eq!(ready[0].ports, [("http".to_owned(), 80)]);
        assert!(serves(&ready, "http") && !serves(&ready, "admin"));
        let unnamed = of_slices(&[json!({"ports": [{"port": 80}], "endpoints": [{}]})]);
        assert!(serves(&unnamed, ""));
        assert!(of_slices(&[]).is_empty());
    }

    #[test]
    fn pods_say_the_same() {
        let pod = |name: &str, ready: &str, port: &str| {
            json!({
                "metadata": {"name": name},
                "spec": {"containers": [{"ports": [{"name": port, "containerPort": 8080}]}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
            })
        };
        let pods = [
            pod("a", "True", "web"),
            pod("b", "False", "web"),
            pod("c", "True", "other"),
        ];
        let mut spec = json!({
            "selector": {"app": "a"},
            "ports": [{"name": "http", "targetPort": "web"}, {"name": "raw", "targetPort": 9}],
        });
        let ready = of_pods(&pods, &spec);
        let both = [("http".to_owned(), 8080), ("raw".to_owned(), 9)];
        assert_eq!(ready.len(), 2);
        assert_eq!((&*ready[0].pod, &*ready[0].ports), ("a", &both[..]));
        assert_eq!((&*ready[1].pod, &*ready[1].ports), ("c", &both[1..]));
        spec["publishNotReadyAddresses"] = json!(true);
        assert_eq!(of_pods(&pods, &spec).len(), 3);
        spec["selector"] = json!({});
        assert!(of_pods(&pods, &spec).is_empty());
    }
}
