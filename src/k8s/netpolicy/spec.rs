//! NetworkPolicies as the API has them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::party::Party;
use super::selector::Selector;

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its namespace, which is that of the pods that it selects.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which pods it isolates.
    pub pods: Selector,
    /// Who may connect to them; none where it says nothing of that.
    pub ingress: Option<Vec<Rule>>,
    /// Where they may connect to; none where it says nothing of that.
    pub egress: Option<Vec<Rule>>,
}

/// What one rule allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whom; everybody where there are none.
    pub peers: Vec<Peer>,
    /// On which ports of whoever is connected to; on all where there are none.
    pub ports: Vec<PortRule>,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods, of the policy's own namespace where no other is said.
    Pods {
        /// Which of them.
        pods: Selector,
        /// In which namespaces.
        namespaces: Option<Selector>,
    },
    /// Addresses.
    Block {
        /// These.
        cidr: IpNet,
        /// But for these.
        except: Vec<IpNet>,
    },
    /// What cannot be read, which is nobody.
    Nobody,
}

/// Ports that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRule {
    /// All TCP ports.
    All,
    /// These TCP ports, both included.
    Range(u16, u16),
    /// What a pod calls so among its TCP ports.
    Named(String),
    /// Those of another protocol.
    Other,
}

impl Policy {
    /// Reads one.
    #[must_use]
    pub fn read(policy: &Value) -> Self {
        let (metadata, spec) = (&policy["metadata"], &policy["spec"]);
        let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        let rules = |field: &str, peers: &str| -> Vec<Rule> {
            let rules = spec[field].as_array().into_iter().flatten();
            rules.map(|rule| Rule::read(rule, peers)).collect()
        };
        let types = spec["policyTypes"]
            .as_array()
            .filter(|types| !types.is_empty());
        let (ingress, egress) = (rules("ingress", "from"), rules("egress", "to"));
        // As the API server fills it in where it is left out.
        let has = |kind: &str, default: bool| match types {
            Some(types) => types.iter().any(|own| own == kind),
            None => default,
        };
        let (of_ingress, of_egress) = (has("Ingress", true), has("Egress", !egress.is_empty()));
        Self {
            namespace: text("namespace"),
            name: text("name"),
            pods: Selector::read(&spec["podSelector"]),
            ingress: of_ingress.then_some(ingress),
            egress: of_egress.then_some(egress),
        }
    }

    /// Whether it isolates this pod.
    #[must_use]
    pub fn selects(&self, party: &Party) -> bool {
        party.namespace() == Some(&self.namespace) && self.pods.selects(&party.labels)
    }
}

impl Rule {
    fn read(rule: &Value, peers: &str) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        Self {
            peers: list(&rule[peers]).iter().map(Peer::read).collect(),
            ports: list(&rule["ports"]).iter().map(PortRule::read).collect(),
        }
    }

    /// Whether it allows `peer` with `port` of `to`, in a policy of namespace `own`.
    pub(super) fn allows(&self, own: &str, peer: &Party, to: &Party, port: u16) -> bool {
        (self.peers.is_empty() || self.peers.iter().any(|one| one.is(own, peer)))
            && (self.ports.is_empty() || self.ports.iter().any(|one| one.has(to, port)))
    }
}

impl Peer {
    fn read(peer: &Value) -> Self {
        let net = |text: &Value| text.as_str().and_then(|text| text.parse::<IpNet>().ok());
        if peer["ipBlock"].is_object() {
            let block = &peer["ipBlock"];
            let except = block["except"].as_array().into_iter().flatten();
            return match net(&block["cidr"]) {
                Some(cidr) => Self::Block {
                    cidr,
                    except: except.filter_map(net).collect(),
                },
                None => Self::Nobody,
            };
        }
        let (pods, namespaces) = (&peer["podSelector"], &peer["namespaceSelector"]);
        match (pods.is_object(), namespaces.is_object()) {
            (false, false) => Self::Nobody,
            (_, has_namespaces) => Self::Pods {
                pods: Selector::read(pods),
                namespaces: has_namespaces.then(|| Selector::read(namespaces)),
            },
        }
    }

    /// Whether `party` is meant, in a policy of namespace `own`.
    pub(super) fn is(&self, own: &str, party: &Party) -> bool {
        match self {
            Self::Pods { pods, namespaces } => {
                let Some(place) = &party.place else {
                    return false;
                };
                let there = match namespaces {
                    None => place.namespace == own,
                    Some(namespaces) => namespaces.selects(&place.labels),
                };
                there && pods.selects(&party.labels)
            }
            // A pod has addresses as well; most enforcers look at these.
            Self::Block { cidr, except } => {
                let within =
                    |ip: &IpAddr| cidr.contains(ip) && !except.iter().any(|net| net.contains(ip));
                party.ips.iter().any(within)
            }
            Self::Nobody => false,
        }
    }
}

impl PortRule {
    fn read(rule: &Value) -> Self {
        if !matches!(rule["protocol"].as_str(), None | Some("TCP")) {
            return Self::Other;
        }
        let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
        match (&rule["port"], number(&rule["port"])) {
            (Value::Null, _) => Self::All,
            (_, Some(first)) => Self::Range(first, number(&rule["endPort"]).unwrap_or(first)),
            (name, None) => Self::Named(name.as_str().unwrap_or_default().to_owned()),
        }
    }

    fn has(&self, to: &Party, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Range(first, last) => (*first..=*last).contains(&port),
            Self::Named(name) => to.ports.iter().any(|(own, n)| own == name && *n == port),
            Self::Other => false,
        }
    }
}
