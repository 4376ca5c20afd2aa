//! Pods as the API server lists them, asked for once.

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Pods {
    #[serde(default)]
    pub(super) items: Vec<Pod>,
}

#[derive(Deserialize)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) uid: String,
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    ports: Vec<Port>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    container_port: u16,
    #[serde(default)]
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Pod {
    /// Whether it runs and is not about to end.
    pub(super) fn runs(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && self.status.phase == "Running"
    }

    /// Whether it runs and is ready.
    pub(super) fn is_ready(&self) -> bool {
        let ready = |c: &Condition| c.kind == "Ready" && c.status == "True";
        self.runs() && self.status.conditions.iter().any(ready)
    }

    /// The first TCP port that it declares.
    pub(super) fn port(&self) -> Option<u16> {
        let mut ports = self.spec.containers.iter().flat_map(|c| &c.ports);
        // The default is not written by every server.
        let tcp = ports.find(|p| p.protocol.is_empty() || p.protocol == "TCP");
        tcp.map(|p| p.container_port)
    }
}
