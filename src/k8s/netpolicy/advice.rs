//! What a policy would have to say, for whoever may change it.

use serde_json::{Value, json};

use super::losses::{Half, Loss};
use super::selector::NAMESPACE_NAME;
use super::spec::Policy;
use super::verdict::Direction;
use crate::k8s::install::{NAME, NAME_LABEL};
use crate::relay::{FIRST_PORT, PORTS};

/// The last of the relay's ports where callers arrive.
pub const LAST_PORT: u16 = FIRST_PORT + PORTS - 1;

/// What lets callers into the relay's pods, and how to get it.
#[must_use]
pub fn let_callers_in(namespace: &str) -> String {
    format!(
        "a network policy may keep callers from the relay: `kdev install -n {namespace} \
         --network-policy on` lets them in, and so does this for the pods with {NAME_LABEL}={NAME}: \
         ingress: [{}]",
        flow(&landing_rule())
    )
}

/// A rule for the ports where callers arrive, whoever they are.
#[must_use]
pub fn landing_rule() -> Value {
    json!({"ports": [{"protocol": "TCP", "port": FIRST_PORT, "endPort": LAST_PORT}]})
}

impl Loss<'_> {
    /// What somebody would lose, and by which policy. `place` is the Service's namespace.
    #[must_use]
    pub fn what(&self, place: &str) -> String {
        let caller = match self.caller.namespace() {
            Some(own) if own != place => format!("{} in namespace {own}", self.caller.name),
            _ => self.caller.name.clone(),
        };
        let by = named(&self.by, place);
        let port = &self.port.name;
        match (self.half, self.direction) {
            (Half::ToRelay, Direction::Ingress) => format!(
                "{caller} may reach {port} today, and would not be let into the relay's pods by {by}"
            ),
            (Half::ToRelay, Direction::Egress) => format!(
                "{caller} may reach {port} today, and would not be let out to the relay's pods by {by}"
            ),
            (Half::ToPods(_), Direction::Ingress) => format!(
                "{caller} may reach {port} today, and the relay in their place would not be let in \
                 by {by}"
            ),
            (Half::ToPods(_), Direction::Egress) => format!(
                "{caller} may reach {port} today, and the relay in their place would not be let out \
                 by {by}"
            ),
        }
    }

    /// By which policy.
    #[must_use]
    pub fn by_whom(&self, place: &str) -> String {
        named(&self.by, place)
    }

    /// What would have to be added, and where. `place` is the Service's namespace, `selector` what it
    /// selects its pods by.
    #[must_use]
    pub fn rule(&self, place: &str, selector: &Value) -> String {
        let relays = json!({"matchLabels": {NAME_LABEL: NAME}});
        let to = match self.by.first() {
            None => String::new(),
            Some(policy) => named(&[*policy], place),
        };
        match (self.half, self.direction) {
            (Half::ToRelay, Direction::Ingress) => let_callers_in(place),
            (Half::ToRelay, Direction::Egress) => {
                let mut rule = landing_rule();
                rule["to"] = json!([{
                    "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: place}},
                    "podSelector": relays,
                }]);
                format!("add to {to}: egress: [{}]", flow(&rule))
            }
            (Half::ToPods(port), Direction::Ingress) => {
                let rule = json!({
                    "from": [{"podSelector": relays}],
                    "ports": [{"protocol": "TCP", "port": port}],
                });
                format!("add to {to}: ingress: [{}]", flow(&rule))
            }
            (Half::ToPods(port), Direction::Egress) => {
                let rule = json!({
                    "to": [{"podSelector": {"matchLabels": selector}}],
                    "ports": [{"protocol": "TCP", "port": port}],
                });
                format!("add to {to}: egress: [{}]", flow(&rule))
            }
        }
    }
}

/// Policies by name, with their namespace where it is not `place`.
fn named(policies: &[&Policy], place: &str) -> String {
    let names = policies
        .iter()
        .map(|policy| match policy.namespace == place {
            true => policy.name.clone(),
            false => format!("{} in namespace {}", policy.name, policy.namespace),
        });
    let word = if policies.len() == 1 {
        "NetworkPolicy"
    } else {
        "NetworkPolicies"
    };
    format!("{word} {}", names.collect::<Vec<_>>().join(", "))
}

/// YAML on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            let items = items.iter().map(flow);
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
        // Words that YAML would read as something else, and all that is not a plain one.
        Value::String(text) if !plain(text) => value.to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn plain(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic());
    let word = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    first
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
        && !word.contains(&text.to_ascii_lowercase().as_str())
}
