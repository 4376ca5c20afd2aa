//! Services, as tests and the demo write them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::families::Families;

/// A Service to add to the cluster: ClusterIP unless told otherwise.
#[derive(Clone, Debug)]
pub struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    selector: BTreeMap<String, String>,
    ports: Vec<Value>,
    headless: bool,
    external: Option<String>,
    publish_not_ready: bool,
    families: Families,
}

impl Service {
    /// A Service without ports or selector.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            selector: BTreeMap::new(),
            ports: Vec::new(),
            headless: false,
            external: None,
            publish_not_ready: false,
            families: Families::default(),
        }
    }

    /// Adds a label to the Service itself.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a label that pods must have. A Service without any gets no endpoints by itself.
    #[must_use]
    pub fn selector(mut self, key: &str, value: &str) -> Self {
        self.selector.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a TCP port with a numeric target; the name may be empty when there is only one.
    #[must_use]
    pub fn port(self, name: &str, port: u16, target: u16) -> Self {
        self.any_port(name, port, "TCP", json!(target))
    }

    /// Adds a TCP port whose target is the name of a container port.
    #[must_use]
    pub fn port_to_named(self, name: &str, port: u16, target: &str) -> Self {
        self.any_port(name, port, "TCP", json!(target))
    }

    /// Adds a UDP port: listed like the others, out of port-forward's reach.
    #[must_use]
    pub fn udp_port(self, name: &str, port: u16, target: u16) -> Self {
        self.any_port(name, port, "UDP", json!(target))
    }

    /// Sets `appProtocol` on the port added last.
    #[must_use]
    pub fn app_protocol(mut self, protocol: &str) -> Self {
        if let Some(port) = self.ports.last_mut() {
            port["appProtocol"] = json!(protocol);
        }
        self
    }

    /// Gives the Service no cluster address.
    #[must_use]
    pub fn headless(mut self) -> Self {
        self.headless = true;
        self
    }

    /// Gives it addresses of these families.
    #[must_use]
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// Makes it an alias for a name outside of the cluster.
    #[must_use]
    pub fn external_name(mut self, name: &str) -> Self {
        self.external = Some(name.to_owned());
        self
    }

    /// Counts pods that are not ready as endpoints.
    #[must_use]
    pub fn publish_not_ready(mut self) -> Self {
        self.publish_not_ready = true;
        self
    }

    fn any_port(mut self, name: &str, port: u16, protocol: &str, target: Value) -> Self {
        let mut entry = json!({"protocol": protocol, "port": port, "targetPort": target});
        if !name.is_empty() {
            entry["name"] = json!(name);
        }
        self.ports.push(entry);
        self
    }

    /// The Service as the API shows it.
    pub(crate) fn object(&self, cluster_ip: &str) -> Value {
        let mut metadata = json!({"name": self.name, "namespace": self.namespace});
        if !self.labels.is_empty() {
            metadata["labels"] = json!(self.labels);
        }
        if !self.annotations.is_empty() {
            metadata["annotations"] = json!(self.annotations);
        }
        let mut spec = json!({"sessionAffinity": "None"});
        if !self.ports.is_empty() {
            spec["ports"] = json!(self.ports);
        }
        if !self.selector.is_empty() {
            spec["selector"] = json!(self.selector);
        }
        if self.publish_not_ready {
            spec["publishNotReadyAddresses"] = json!(true);
        }
        if let Some(name) = &self.external {
            spec["type"] = json!("ExternalName");
            spec["externalName"] = json!(name);
        } else {
            let addresses = if self.headless {
                vec!["None".to_owned()]
            } else {
                self.families.addresses(cluster_ip)
            };
            spec["type"] = json!("ClusterIP");
            spec["clusterIP"] = json!(addresses[0]);
            spec["clusterIPs"] = json!(addresses);
            spec["ipFamilies"] = json!(self.families.names());
            spec["ipFamilyPolicy"] = json!(self.families.policy());
            spec["internalTrafficPolicy"] = json!("Cluster");
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": spec,
            "status": {"loadBalancer": {}},
        })
    }
}
