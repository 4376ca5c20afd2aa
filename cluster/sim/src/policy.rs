//! Policies that refuse what is written, as ValidatingAdmissionPolicies do: dry runs and the pods of
//! ReplicaSets included.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::http::Failure;
use crate::resources::Resource;

type Check = Arc<dyn Fn(&Value) -> Result<(), String> + Send + Sync>;

struct Policy {
    name: String,
    resources: Vec<String>,
    check: Check,
}

/// Those that are in force.
#[derive(Default)]
pub(crate) struct Policies(RwLock<Vec<Policy>>);

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policies")
    }
}

impl Policies {
    pub(crate) fn add<F>(&self, name: &str, resources: &[&str], check: F)
    where
        F: Fn(&Value) -> Result<(), String> + Send + Sync + 'static,
    {
        self.remove(name);
        let policy = Policy {
            name: name.to_owned(),
            resources: resources.iter().map(|r| (*r).to_owned()).collect(),
            check: Arc::new(check),
        };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.push(policy);
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|policy| policy.name != name);
    }

    /// Refuses an object in the real server's words.
    pub(crate) fn admit(&self, resource: &Resource, object: &Value) -> Result<(), Failure> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut about = all
            .iter()
            .filter(|policy| policy.resources.iter().any(|r| r == resource.plural));
        let refused = about.find_map(|policy| Some((policy, (policy.check)(object).err()?)));
        let Some((Policy { name: policy, .. }, why)) = refused else {
            return Ok(());
        };
        let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        let name = field("name");
        let qualified = match resource.group {
            "" => resource.plural.to_owned(),
            group => format!("{}.{group}", resource.plural),
        };
        let message = format!(
            "{qualified} \"{name}\" is forbidden: ValidatingAdmissionPolicy '{policy}' with binding \
             '{policy}' denied request: {why}"
        );
        Err(
            Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
                .with_details(json!({"name": name, "kind": resource.plural})),
        )
    }
}
