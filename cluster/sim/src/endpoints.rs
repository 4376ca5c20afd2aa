//! The endpoint controllers: what a Service's selector amounts to, given the pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};

use crate::pod::NODE;

/// The controllers' output for one Service.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    pub(crate) endpoints: Option<Value>,
    pub(crate) slices: Vec<Value>,
}

/// Computes both forms. `beta` is how 1.20 did it: v1beta1, without terminating pods.
pub(crate) fn derive(service: &Value, pods: &[Arc<Value>], beta: bool) -> Derived {
    let spec = &service["spec"];
    let Some(selector) = spec["selector"].as_object() else {
        return Derived::default();
    };
    if spec["type"] == "ExternalName" {
        return Derived::default();
    }
    let members_of = |family: &str| -> Vec<Member<'_>> {
        let selected = pods.iter().filter(|pod| {
            selector
                .iter()
                .all(|(k, v)| pod["metadata"]["labels"].get(k) == Some(v))
        });
        selected
            .filter_map(|pod| Member::of(pod, service, family))
            .collect()
    };
    let families = spec["ipFamilies"].as_array().into_iter().flatten();
    let families: Vec<&str> = families.filter_map(Value::as_str).collect();
    let mut slices = Vec::new();
    for family in &families {
        let members = members_of(family);
        let groups = grouped(&members, |member| !(beta && member.terminating));
        let groups = groups.into_iter();
        slices
            .extend(groups.map(|(ports, members)| slice(service, family, &ports, &members, beta)));
    }
    // Endpoints hold the Service's first family only.
    let members = members_of(families.first().unwrap_or(&"IPv4"));
    if beta && spec["clusterIP"] == "None" && families == ["IPv4"] {
        // 1.20 took headless Services for dual-stack whatever the cluster was.
        slices.push(slice(service, "IPv6", &[], &[], beta));
    }
    Derived {
        endpoints: Some(endpoints(service, &members, beta)),
        slices,
    }
}

/// A pod that the selector matches.
struct Member<'a> {
    pod: &'a Value,
    ip: &'a str,
    ready: bool,
    /// `publishNotReadyAddresses`: an endpoint whatever its state.
    always: bool,
    terminating: bool,
    ports: Vec<Value>,
    /// Its name under the Service.
    hostname: Option<&'a str>,
}

impl<'a> Member<'a> {
    fn of(pod: &'a Value, service: &Value, family: &str) -> Option<Self> {
        let spec = &service["spec"];
        let mut ips = pod["status"]["podIPs"].as_array()?.iter();
        let ip = ips.find_map(|ip| {
            let ip = ip["ip"].as_str()?;
            (ip.contains(':') == (family == "IPv6")).then_some(ip)
        })?;
        if pod["status"]["phase"] != "Running" {
            return None;
        }
        let conditions = pod["status"]["conditions"].as_array()?;
        let ready = conditions
            .iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        Some(Self {
            pod,
            ip,
            ready,
            always: spec["publishNotReadyAddresses"] == true,
            terminating: pod["metadata"]["deletionTimestamp"].is_string(),
            ports: ports_at(pod, spec),
            hostname: pod["spec"]["hostname"]
                .as_str()
                .filter(|_| pod["spec"]["subdomain"] == service["metadata"]["name"]),
        })
    }

    /// The endpoint with its host name, where it has one.
    fn named(&self, mut endpoint: Value) -> Value {
        if let Some(hostname) = self.hostname {
            endpoint["hostname"] = json!(hostname);
        }
        endpoint
    }

    fn target(&self) -> Value {
        let metadata = &self.pod["metadata"];
        json!({
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        })
    }
}

/// The Service's ports as this pod has them: a name that it does not declare is left out.
fn ports_at(pod: &Value, spec: &Value) -> Vec<Value> {
    let declared = &pod["spec"]["containers"][0]["ports"];
    let number = |target: &Value, protocol: &Value| match target.as_str() {
        None => Some(target.clone()),
        Some(name) => declared.as_array()?.iter().find_map(|port| {
            (port["name"] == name && port["protocol"] == *protocol)
                .then(|| port["containerPort"].clone())
        }),
    };
    spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| {
            let mut found = Map::new();
            found.insert(
                "name".into(),
                port.get("name").cloned().unwrap_or_else(|| json!("")),
            );
            found.insert(
                "port".into(),
                number(&port["targetPort"], &port["protocol"])?,
            );
            found.insert("protocol".into(), port["protocol"].clone());
            if let Some(app) = port.get("appProtocol") {
                found.insert("appProtocol".into(), app.clone());
            }
            Some(Value::Object(found))
        })
        .collect()
}

/// Members with the same port numbers, because one slice (or subset) has one list of ports. A
/// Service without any member still gets one empty slice.
fn grouped<'a, 'b>(
    members: &'b [Member<'a>],
    keep: impl Fn(&Member<'a>) -> bool,
) -> Vec<(Vec<Value>, Vec<&'b Member<'a>>)> {
    let mut groups: BTreeMap<String, (Vec<Value>, Vec<&Member<'_>>)> = BTreeMap::new();
    for member in members.iter().filter(|member| keep(member)) {
        let signature = Value::from(member.ports.clone()).to_string();
        let group = groups
            .entry(signature)
            .or_insert_with(|| (member.ports.clone(), Vec::new()));
        group.1.push(member);
    }
    if groups.is_empty() {
        return vec![(Vec::new(), Vec::new())];
    }
    groups.into_values().collect()
}

fn endpoints(service: &Value, members: &[Member<'_>], beta: bool) -> Value {
    let mut labels = inherited_labels(service);
    if !beta {
        labels.insert(
            "endpoints.kubernetes.io/managed-by".into(),
            json!("endpoint-controller"),
        );
    }
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": service["metadata"]["name"],
            "namespace": service["metadata"]["namespace"],
            "labels": labels,
        },
    });
    let subsets: Vec<Value> = grouped(members, |member| member.always || !member.terminating)
        .into_iter()
        .filter(|(_, members)| !members.is_empty())
        .map(|(ports, members)| subset(ports, &members))
        .collect();
    if !subsets.is_empty() {
        object["subsets"] = json!(subsets);
    }
    object
}

fn subset(mut ports: Vec<Value>, members: &[&Member<'_>]) -> Value {
    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
        if port["name"] == "" {
            port.remove("name");
        }
    }
    let addresses = |ready: bool| -> Vec<Value> {
        let chosen = members.iter().filter(|m| (m.ready || m.always) == ready);
        chosen
            .map(|m| m.named(json!({"ip": m.ip, "nodeName": NODE, "targetRef": m.target()})))
            .collect()
    };
    let mut subset = json!({});
    for (field, list) in [
        ("addresses", addresses(true)),
        ("notReadyAddresses", addresses(false)),
    ] {
        if !list.is_empty() {
            subset[field] = json!(list);
        }
    }
    if !ports.is_empty() {
        subset["ports"] = json!(ports);
    }
    subset
}

fn slice(
    service: &Value,
    family: &str,
    ports: &[Value],
    members: &[&Member<'_>],
    beta: bool,
) -> Value {
    let metadata = &service["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let mut labels = inherited_labels(service);
    labels.insert("kubernetes.io/service-name".into(), json!(name));
    labels.insert(MANAGED_BY.into(), json!(CONTROLLER));
    let endpoints: Vec<Value> = members
        .iter()
        .map(|member| endpoint(member, beta))
        .collect();
    let unique = suffix(&format!("{name}{family}{}", Value::from(ports.to_vec())));
    json!({
        "apiVersion": if beta { "discovery.k8s.io/v1beta1" } else { "discovery.k8s.io/v1" },
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-{unique}"),
            "generateName": format!("{name}-"),
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": name,
                "uid": metadata["uid"],
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "addressType": family,
        "endpoints": if endpoints.is_empty() && !beta { Value::Null } else { json!(endpoints) },
        "ports": if ports.is_empty() { Value::Null } else { json!(ports) },
    })
}

fn endpoint(member: &Member<'_>, beta: bool) -> Value {
    let ready = member.always || (member.ready && !member.terminating);
    if beta {
        return member.named(json!({
            "addresses": [member.ip],
            "conditions": {"ready": ready},
            "targetRef": member.target(),
            "topology": {"kubernetes.io/hostname": NODE},
        }));
    }
    member.named(json!({
        "addresses": [member.ip],
        "conditions": {
            "ready": ready,
            "serving": member.ready,
            "terminating": member.terminating,
        },
        "nodeName": NODE,
        "targetRef": member.target(),
    }))
}

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Whether the controller made this slice, and so may delete it.
pub(crate) fn is_managed(slice: &Value) -> bool {
    slice["metadata"]["labels"][MANAGED_BY] == CONTROLLER
}

fn inherited_labels(service: &Value) -> Map<String, Value> {
    let mut labels = service["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    if service["spec"]["clusterIP"] == "None" {
        labels.insert("service.kubernetes.io/headless".into(), json!(""));
    }
    labels
}

/// Five characters from the alphabet of generated names; the same input gives the same name.
fn suffix(from: &str) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = Sha1::digest(from.as_bytes());
    digest
        .iter()
        .take(5)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % 27]))
        .collect()
}
