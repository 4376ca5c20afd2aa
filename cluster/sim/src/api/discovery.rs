//! What the server says about itself: version, health, groups and resources.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::eviction;
use crate::http::{self, Answer};
use crate::resources::{self, Resource};
use crate::world::World;

pub(crate) fn answer(world: &World, path: &str) -> Answer {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let known = resources::all(&world.options);
    let of = |group: &str, version: Option<&str>| -> Vec<&'static Resource> {
        let fits = |r: &&Resource| r.group == group && version.is_none_or(|v| v == r.version);
        known.iter().copied().filter(fits).collect()
    };
    let found = match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => return http::text(StatusCode::OK, "ok"),
        ["version"] => Some(version(world)),
        ["api"] => Some(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}],
        })),
        ["apis"] => Some(json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": groups(&known).iter().map(|r| group(r)).collect::<Vec<_>>(),
        })),
        ["apis", name] => of(name, None).first().map(|resource| {
            let mut document = group(resource);
            document["kind"] = json!("APIGroup");
            document["apiVersion"] = json!("v1");
            document
        }),
        ["api", version] => resource_list(world, &of("", Some(version))),
        ["apis", group, version] => resource_list(world, &of(group, Some(version))),
        _ => None,
    };
    found.map_or_else(http::page_not_found, |document| {
        http::document(StatusCode::OK, &document)
    })
}

fn version(world: &World) -> Value {
    let (major, minor, git) = &world.options.version;
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": git,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "simulated",
    })
}

/// One resource of each named group, in order.
fn groups(known: &[&'static Resource]) -> Vec<&'static Resource> {
    let mut seen: Vec<&'static Resource> = Vec::new();
    for resource in known.iter().filter(|resource| !resource.group.is_empty()) {
        if !seen.iter().any(|other| other.group == resource.group) {
            seen.push(resource);
        }
    }
    seen
}

fn group(resource: &Resource) -> Value {
    let version = json!({
        "groupVersion": resource.api_version(),
        "version": resource.version,
    });
    json!({"name": resource.group, "versions": [version], "preferredVersion": version})
}

fn resource_list(world: &World, resources: &[&'static Resource]) -> Option<Value> {
    let first = resources.first()?;
    let rows: Vec<Value> = resources
        .iter()
        .flat_map(|resource| rows(world, resource))
        .collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": rows,
    }))
}

fn rows(world: &World, resource: &Resource) -> Vec<Value> {
    let mut main = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    if !resource.short.is_empty() {
        main["shortNames"] = json!(resource.short);
    }
    if !resource.categories.is_empty() {
        main["categories"] = json!(resource.categories);
    }
    let below = resource.subresources.iter().map(|sub| {
        let mut row = json!({
            "name": format!("{}/{}", resource.plural, sub.name),
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": sub.kind,
            "verbs": sub.verbs,
        });
        if let Some(group) = sub.group {
            row["group"] = json!(group);
            row["version"] = json!(eviction::version(world));
        }
        row
    });
    std::iter::once(main).chain(below).collect()
}
