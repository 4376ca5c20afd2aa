//! What the API server makes of a Service that somebody writes: defaults, an address, node ports.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::route::Target;
use super::write::invalid;
use crate::http::Failure;
use crate::resources::SERVICES;
use crate::world::World;

/// Where node ports begin.
const FIRST_NODE_PORT: u64 = 30_000;

/// Fills in what was left out of `object`, which is to take the place of `live`, and refuses what
/// cannot be.
pub(super) fn complete(
    world: &World,
    target: &Target,
    live: Option<&Value>,
    object: &mut Value,
) -> Result<(), Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let name = name.to_owned();
    let refuse = |cause: &str| Err(invalid(target, &name, cause));
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let spec = &mut object["spec"];
    for (field, default) in [("type", "ClusterIP"), ("sessionAffinity", "None")] {
        if spec.get(field).is_none() {
            spec[field] = json!(default);
        }
    }
    if spec["publishNotReadyAddresses"] == false
        && let Some(spec) = spec.as_object_mut()
    {
        spec.remove("publishNotReadyAddresses");
    }
    let external = spec["type"] == "ExternalName";
    if let Some(cause) = complete_ports(world, spec, external) {
        return refuse(&cause);
    }
    if external {
        return Ok(());
    }
    let before = live.map(|live| &live["spec"]["clusterIP"]);
    match (before, spec.get("clusterIP").and_then(Value::as_str)) {
        (Some(before), Some(ip)) if before.is_string() && before != ip => {
            return refuse(&format!(
                "spec.clusterIP: Invalid value: \"{ip}\": field is immutable"
            ));
        }
        (Some(before), None) if before.is_string() => spec["clusterIP"] = before.clone(),
        (_, None | Some("")) => {
            spec["clusterIP"] = json!(world.service_address());
        }
        _ => {}
    }
    if spec.get("clusterIPs").is_none() {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    for (field, default) in [
        ("ipFamilies", json!(["IPv4"])),
        ("ipFamilyPolicy", json!("SingleStack")),
        ("internalTrafficPolicy", json!("Cluster")),
    ] {
        if spec.get(field).is_none() {
            spec[field] = default;
        }
    }
    if object.get("status").is_none() {
        object["status"] = json!({"loadBalancer": {}});
    }
    Ok(())
}

/// Fills in ports; what is wrong with one, if anything.
fn complete_ports(world: &World, spec: &mut Value, external: bool) -> Option<String> {
    let outward = spec["type"] == "NodePort" || spec["type"] == "LoadBalancer";
    let mut taken = node_ports(world);
    let ports = spec["ports"].as_array_mut();
    let Some(ports) = ports.filter(|ports| !ports.is_empty()) else {
        return (!external).then(|| "spec.ports: Required value".to_owned());
    };
    let (many, mut names) = (ports.len() > 1, BTreeSet::new());
    for (index, port) in ports.iter_mut().enumerate() {
        let name = port["name"].as_str().unwrap_or_default().to_owned();
        if many && name.is_empty() {
            return Some(format!("spec.ports[{index}].name: Required value"));
        }
        if !names.insert(name.clone()) {
            return Some(format!(
                "spec.ports[{index}].name: Duplicate value: \"{name}\""
            ));
        }
        if port.get("protocol").is_none() {
            port["protocol"] = json!("TCP");
        }
        if port.get("targetPort").is_none() {
            port["targetPort"] = port["port"].clone();
        }
        if outward && port.get("nodePort").is_none() {
            let free = (FIRST_NODE_PORT..).find(|port| taken.insert(*port));
            port["nodePort"] = json!(free);
        }
    }
    None
}

fn node_ports(world: &World) -> BTreeSet<u64> {
    let (_, services) = world.store.list(SERVICES.plural, None);
    let ports = services.iter().flat_map(|service| {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["nodePort"].as_u64())
    });
    ports.collect()
}
