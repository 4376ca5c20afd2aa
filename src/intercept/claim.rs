//! Who wants which of a Service's traffic, as it is kept in the cluster for all to see.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A claim. What it claims is opaque here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Which; no other claim on any Service has it.
    pub id: String,
    /// Whose, for people.
    pub owner: String,
    /// All else that it says: port, conditions, since when.
    #[serde(flatten)]
    pub rule: Map<String, Value>,
}

/// Whether a claim may join others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Admitted,
    /// It may, in the place of the claims with these ids: its owner's own ghosts, or what is taken
    /// over.
    InPlaceOf(Vec<String>),
    /// It may not, because of this, with the owner of what is in the way.
    Conflict(String),
}

/// Says whether a claim (the second) may join those that there are. It may be asked several times,
/// about other ones each time.
pub type Judge = Arc<dyn Fn(&[Claim], &Claim) -> Verdict + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_claim_says_besides_survives() {
        let text = json!({"id": "a", "owner": "ada", "port": "http", "headers": {"x": "1"}});
        let claim: Claim = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(claim.rule["port"], "http");
        assert_eq!(serde_json::to_value(&claim).unwrap(), text);
    }
}
