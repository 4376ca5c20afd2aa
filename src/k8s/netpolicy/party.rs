//! Who connects, and who is connected to.

use std::net::IpAddr;

use serde_json::Value;

use super::selector::{Labels, NAMESPACE_NAME, labels};

/// A pod, or an address outside of all pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// What it is called, for people.
    pub name: String,
    /// Where it lives; none outside of the cluster.
    pub place: Option<Place>,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, as far as it has any yet.
    pub ips: Vec<IpAddr>,
    /// Its named TCP ports.
    pub ports: Vec<(String, u16)>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub namespace: String,
    /// Its labels.
    pub labels: Labels,
}

impl Place {
    /// One with these labels besides that with its name.
    #[must_use]
    pub fn new(namespace: &str, mut labels: Labels) -> Self {
        labels.insert(NAMESPACE_NAME.to_owned(), namespace.to_owned());
        Self {
            namespace: namespace.to_owned(),
            labels,
        }
    }
}

impl Party {
    /// A pod as the API shows it, in `place`. None for one in the node's network, to which no policy
    /// applies, and for one that has ended.
    #[must_use]
    pub fn pod(pod: &Value, place: &Place) -> Option<Self> {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        if spec["hostNetwork"] == true
            || ["Succeeded", "Failed"]
                .iter()
                .any(|p| status["phase"] == *p)
        {
            return None;
        }
        let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
        let ips = list(&status["podIPs"]);
        let ips = ips.iter().filter_map(|ip| ip["ip"].as_str()?.parse().ok());
        let mut ports = Vec::new();
        // Sidecars are init containers that go on.
        for container in [list(&spec["containers"]), list(&spec["initContainers"])].concat() {
            for port in list(&container["ports"]) {
                let number = port["containerPort"].as_u64();
                let number = number.and_then(|number| u16::try_from(number).ok());
                let tcp = matches!(port["protocol"].as_str(), None | Some("TCP"));
                if let (Some(name), Some(number), true) = (port["name"].as_str(), number, tcp) {
                    ports.push((name.to_owned(), number));
                }
            }
        }
        Some(Self {
            name: format!(
                "pod {}",
                pod["metadata"]["name"].as_str().unwrap_or_default()
            ),
            place: Some(place.clone()),
            labels: labels(&pod["metadata"]["labels"]),
            ips: ips.collect(),
            ports,
        })
    }

    /// Any pod with these labels, which may or may not be there now.
    #[must_use]
    pub fn example(place: Place, labels: Labels) -> Self {
        let mut texts = labels.iter().map(|(key, value)| format!("{key}={value}"));
        let name = match texts.len() {
            0 => "pods".to_owned(),
            _ => format!("pods with {}", texts.by_ref().collect::<Vec<_>>().join(",")),
        };
        Self {
            name,
            place: Some(place),
            labels,
            ..Self::default()
        }
    }

    /// Whoever has this address and is no pod.
    #[must_use]
    pub fn outside(ip: IpAddr) -> Self {
        Self {
            name: format!("callers from outside of the cluster ({ip})"),
            ips: vec![ip],
            ..Self::default()
        }
    }

    /// Its namespace, where it has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&String> {
        self.place.as_ref().map(|place| &place.namespace)
    }

    /// The number of one of its ports, by number or name as a Service's `targetPort` has it.
    #[must_use]
    pub fn port(&self, target: &Value) -> Option<u16> {
        if let Some(number) = target.as_u64() {
            return u16::try_from(number).ok();
        }
        let name = target.as_str()?;
        let found = self.ports.iter().find(|(own, _)| own == name);
        found.map(|(_, number)| *number)
    }
}
