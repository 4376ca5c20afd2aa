//! The few fields of Services and Pods that matter, as the API server sends them.
//!
//! The full types of a large cluster would take gigabytes; everything not named here is skipped
//! while it is parsed.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::addr::{is_label, is_subdomain};

/// `metadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) deletion_timestamp: Option<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) labels: HashMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) annotations: Annotations,
}

/// Of all annotations the one that matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Annotations {
    /// [`CLAIMS`](crate::k8s::redirect::marks::CLAIMS), of the Service that leads to the original pods
    /// of an intercepted one.
    #[serde(rename = "kdev.dev/claims")]
    pub(super) claims: String,
}

/// Anything with `metadata`.
pub(super) trait Object: for<'de> Deserialize<'de> + Send + 'static {
    /// Its metadata.
    fn meta(&self) -> &Meta;
}

/// A Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawService {
    pub(super) metadata: Meta,
    pub(super) spec: ServiceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
    pub(super) cluster_ips: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ip_families: Vec<String>,
    pub(super) external_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) selector: HashMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ports: Vec<RawServicePort>,
    pub(super) publish_not_ready_addresses: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawServicePort {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) target_port: Option<IntOrString>,
    pub(super) protocol: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum IntOrString {
    Int(u16),
    Text(String),
}

/// A Pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawPod {
    pub(super) metadata: Meta,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) host_network: bool,
    pub(super) hostname: String,
    pub(super) subdomain: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) containers: Vec<Container>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) init_containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) restart_policy: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ports: Vec<ContainerPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerPort {
    pub(super) name: String,
    pub(super) container_port: u16,
    pub(super) protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    pub(super) phase: String,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "null_is_default")]
    pub(super) pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodIp {
    pub(super) ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

/// An EndpointSlice (`endpoints`, `ports`) or an Endpoints object (`subsets`): the two never
/// share a field.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawEndpoints {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) endpoints: Vec<SliceEndpoint>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ports: Vec<EndpointPort>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) subsets: Vec<Subset>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SliceEndpoint {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) addresses: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) hostname: String,
    pub(super) conditions: SliceConditions,
    pub(super) target_ref: Option<TargetRef>,
}

impl SliceEndpoint {
    /// Whether traffic may go there.
    pub(super) fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SliceConditions {
    /// Absent means ready.
    pub(super) ready: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Subset {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) addresses: Vec<Address>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) not_ready_addresses: Vec<Address>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ports: Vec<EndpointPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Address {
    pub(super) ip: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) hostname: String,
    pub(super) target_ref: Option<TargetRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EndpointPort {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) name: String,
    pub(super) port: Option<u16>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TargetRef {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl TargetRef {
    /// Whether it is a pod. Kubernetes does not look at the names in it, and a path to the API server
    /// is made of them.
    pub(super) fn is_pod(&self) -> bool {
        let named = |text: &str| text.is_empty() || is_label(text);
        self.kind == "Pod" && named(&self.namespace) && is_subdomain(&self.name)
    }
}

impl Object for RawService {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl Object for RawPod {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// A page of a list.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct Page<T> {
    #[serde(default)]
    pub(super) metadata: PageMeta,
    #[serde(default = "Vec::new", deserialize_with = "null_is_default")]
    pub(super) items: Vec<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// The addresses of a Service or a pod; `None` and empty texts are none.
pub(super) fn addresses<'a>(one: &'a str, many: impl Iterator<Item = &'a str>) -> Box<[IpAddr]> {
    let mut ips: Vec<IpAddr> = many.filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        ips.extend(one.parse::<IpAddr>());
    }
    ips.into()
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
