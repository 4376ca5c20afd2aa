//! Names of what there is in the cluster, asked for once, for completing what a user types.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::catalog::LabelledPod;
use super::client::{Client, ClientError};
use super::install::{MANAGER, MANAGER_LABEL};
use super::pods::Pods;

/// Most names that are asked for: nobody looks through more.
const LIMIT: usize = 500;

/// A Service's name and its TCP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The Service.
    pub name: String,
    /// Name (may be empty) and number of each port.
    pub ports: Vec<(String, u16)>,
    /// Whether its requests can be sent elsewhere: it has an address and a selector of its own, and
    /// is none that kdev made.
    pub interceptable: bool,
    /// Whether kdev made it.
    pub is_ours: bool,
}

#[derive(Deserialize)]
#[serde(bound = "Spec: Deserialize<'de> + Default")]
struct List<Spec> {
    #[serde(default)]
    items: Vec<Item<Spec>>,
}

#[derive(Deserialize)]
struct Item<Spec> {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    selector: BTreeMap<String, String>,
    ports: Vec<Port>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Port {
    name: String,
    port: u16,
    protocol: String,
}

#[derive(Default, Deserialize)]
struct Ignored {}

/// The Services of a namespace.
///
/// # Errors
/// When the API server cannot be reached or the user may not list them.
pub async fn services(client: &Client, namespace: &str) -> Result<Vec<Listed>, ClientError> {
    let path = format!("/api/v1/namespaces/{namespace}/services?limit={LIMIT}");
    let list: List<ServiceSpec> = client.get(&path).await?;
    let items = list.items.into_iter();
    Ok(items
        .map(|item| {
            let manager = item.metadata.labels.get(MANAGER_LABEL);
            let is_ours = manager.is_some_and(|by| by == MANAGER);
            let interceptable = item.spec.kind != "ExternalName"
                && item.spec.cluster_ip != "None"
                && !item.spec.selector.is_empty()
                && !is_ours;
            let ports = item.spec.ports.into_iter();
            // The default is not written by every server.
            let tcp = ports.filter(|p| p.protocol.is_empty() || p.protocol == "TCP");
            Listed {
                name: item.metadata.name,
                ports: tcp.map(|p| (p.name, p.port)).collect(),
                interceptable,
                is_ours,
            }
        })
        .collect())
}

/// The namespaces that have a Service `name`, or `None` where the user may not look into all.
///
/// # Errors
/// When the API server cannot be reached.
pub async fn namespaces_with(
    client: &Client,
    name: &str,
) -> Result<Option<Vec<String>>, ClientError> {
    let path = format!("/api/v1/services?limit={LIMIT}&fieldSelector=metadata.name%3D{name}");
    match client.get::<List<Ignored>>(&path).await {
        Ok(list) => {
            let items = list.items.into_iter();
            Ok(Some(items.map(|item| item.metadata.namespace).collect()))
        }
        Err(error) if error.code() == Some(403) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a namespace has a Service `name`, as far as the user may know.
pub async fn has_service(client: &Client, namespace: &str, name: &str) -> bool {
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
    client.get::<IgnoredAny>(&path).await.is_ok()
}

/// The pods of a namespace that `selector` (`KEY=VALUE`) means.
///
/// # Errors
/// When the API server cannot be reached or the user may not list them.
pub async fn labelled(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<Vec<LabelledPod>, ClientError> {
    let selector = selector.replace('=', "%3D");
    let path =
        format!("/api/v1/namespaces/{namespace}/pods?limit={LIMIT}&labelSelector={selector}");
    let list: Pods = client.get(&path).await?;
    let items = list.items.into_iter();
    Ok(items
        .map(|pod| LabelledPod {
            ready: pod.is_ready(),
            runs: pod.runs(),
            name: pod.metadata.name.into(),
        })
        .collect())
}

/// The namespaces.
///
/// # Errors
/// When the API server cannot be reached or the user may not list them.
pub async fn namespaces(client: &Client) -> Result<Vec<String>, ClientError> {
    let path = format!("/api/v1/namespaces?limit={LIMIT}");
    let list: List<Ignored> = client.get(&path).await?;
    let items = list.items.into_iter();
    Ok(items.map(|item| item.metadata.name).collect())
}
