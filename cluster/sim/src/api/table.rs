//! Tables: what `kubectl get` prints, made by the server as real ones do.

use hyper::HeaderMap;
use hyper::header::ACCEPT;
use serde_json::{Value, json};

use crate::clock;

/// Whether the client would rather have a table than objects.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    asks_for(headers, "as=Table")
}

/// Whether the client wants of each object only the metadata.
pub(crate) fn is_metadata_wanted(headers: &HeaderMap) -> bool {
    asks_for(headers, "as=PartialObjectMetadata")
}

fn asks_for(headers: &HeaderMap, form: &str) -> bool {
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    accept
        .split(',')
        .next()
        .is_some_and(|first| first.contains(form))
}

/// A table of objects of one kind; `version` is the list's.
pub(crate) fn of<'a>(
    kind: &str,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: &Value,
) -> Value {
    let columns = columns(kind);
    let definitions: Vec<Value> = columns.iter().map(Column::definition).collect();
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            json!({
                "cells": columns.iter().map(|column| (column.cell)(object)).collect::<Vec<_>>(),
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": object["metadata"],
                },
            })
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// One column: its title, whether only `-o wide` shows it, and what stands in it.
struct Column {
    title: &'static str,
    wide: bool,
    cell: fn(&Value) -> Value,
}

impl Column {
    fn definition(&self) -> Value {
        json!({
            "name": self.title,
            "type": "string",
            "format": if self.title == "Name" { "name" } else { "" },
            "description": "",
            "priority": u8::from(self.wide),
        })
    }
}

fn columns(kind: &str) -> Vec<Column> {
    let column = |title, cell| Column {
        title,
        wide: false,
        cell,
    };
    let wide = |title, cell| Column {
        title,
        wide: true,
        cell,
    };
    let middle = match kind {
        "Pod" => vec![
            column("Ready", |pod| {
                let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
                json!(format!("{}/1", u8::from(ready)))
            }),
            column("Status", pod_status),
            column("Restarts", |_| json!("0")),
            column("Age", age),
            wide("IP", |pod| text(&pod["status"]["podIP"])),
            wide("Node", |pod| text(&pod["spec"]["nodeName"])),
        ],
        "Service" => vec![
            column("Type", |service| text(&service["spec"]["type"])),
            column("Cluster-IP", |service| text(&service["spec"]["clusterIP"])),
            column("External-IP", |service| {
                text(&service["spec"]["externalName"])
            }),
            column("Port(s)", |service| {
                joined(&service["spec"]["ports"], |port| {
                    format!(
                        "{}/{}",
                        port["port"],
                        port["protocol"].as_str().unwrap_or("TCP")
                    )
                })
            }),
            column("Age", age),
        ],
        "Endpoints" => vec![
            column("Endpoints", |endpoints| {
                let subset = &endpoints["subsets"][0];
                let port = &subset["ports"][0]["port"];
                joined(&subset["addresses"], |address| {
                    format!("{}:{port}", address["ip"].as_str().unwrap_or_default())
                })
            }),
            column("Age", age),
        ],
        "EndpointSlice" => vec![
            column("AddressType", |slice| text(&slice["addressType"])),
            column("Ports", |slice| {
                joined(&slice["ports"], |port| port["port"].to_string())
            }),
            column("Endpoints", |slice| {
                joined(&slice["endpoints"], |endpoint| {
                    endpoint["addresses"][0]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                })
            }),
            column("Age", age),
        ],
        "Namespace" => vec![
            column("Status", |namespace| text(&namespace["status"]["phase"])),
            column("Age", age),
        ],
        _ => vec![column("Age", age)],
    };
    let name = column("Name", |object| object["metadata"]["name"].clone());
    std::iter::once(name).chain(middle).collect()
}

fn pod_status(pod: &Value) -> Value {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return json!("Terminating");
    }
    match pod["status"]["phase"].as_str() {
        Some("Succeeded") => json!("Completed"),
        _ => text(&pod["status"]["phase"]),
    }
}

fn text(value: &Value) -> Value {
    if value.is_string() {
        value.clone()
    } else {
        json!("<none>")
    }
}

fn joined(list: &Value, each: impl Fn(&Value) -> String) -> Value {
    match list.as_array() {
        Some(items) if !items.is_empty() => {
            json!(items.iter().map(each).collect::<Vec<_>>().join(","))
        }
        _ => json!("<none>"),
    }
}

fn age(object: &Value) -> Value {
    let created = object["metadata"]["creationTimestamp"]
        .as_str()
        .unwrap_or_default();
    let seconds = clock::since(created);
    json!(match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    })
}
