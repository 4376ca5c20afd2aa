//! Names of what there is in the cluster, asked for once, for completing what a user types.

use serde::Deserialize;

use super::catalog::LabelledPod;
use super::client::{Client, ClientError};
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
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServiceSpec {
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
            let ports = item.spec.ports.into_iter();
            // The default is not written by every server.
            let tcp = ports.filter(|p| p.protocol.is_empty() || p.protocol == "TCP");
            Listed {
                name: item.metadata.name,
                ports: tcp.map(|p| (p.name, p.port)).collect(),
            }
        })
        .collect())
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
