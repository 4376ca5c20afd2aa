//! Getting and listing.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::route::Target;
use super::selector::{Fields, Labels};
use crate::http::{self, Answer, Failure};
use crate::world::World;

pub(crate) fn get(world: &World, target: &Target) -> Result<Answer, Failure> {
    let namespace = if target.resource.namespaced {
        target.ask.namespace.as_str()
    } else {
        ""
    };
    let name = &target.ask.name;
    let object = world.store.get(target.resource.plural, namespace, name);
    let object = object
        .ok_or_else(|| Failure::not_found(target.resource.plural, target.resource.group, name))?;
    Ok(http::document(StatusCode::OK, &object))
}

pub(crate) fn list(world: &World, target: &Target, query: &Query) -> Result<Answer, Failure> {
    let resumed = query.get("continue").map(Token::decode).transpose()?;
    let named = query
        .get("resourceVersion")
        .is_some_and(|version| version != "0");
    if world.faults.api().gone_lists && (named || resumed.is_some()) {
        return Err(Failure::expired(
            "The provided continue parameter is too old to display a consistent list result. \
             You can start a new list without the continue parameter.",
        ));
    }
    let view = View::of(target, query);
    let (mut version, mut objects) = view.objects(world);
    if let Some(token) = resumed {
        version = token.version;
        objects.retain(|object| place(object) > token.after);
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
    let limit = query
        .get("limit")
        .and_then(|limit| limit.parse::<usize>().ok())
        .unwrap_or(0);
    if limit > 0 && objects.len() > limit {
        let left = objects.len() - limit;
        objects.truncate(limit);
        if let Some(last) = objects.last() {
            metadata["continue"] = json!(
                Token {
                    version,
                    after: place(last)
                }
                .encode()
            );
            metadata["remainingItemCount"] = json!(left);
        }
    }
    // Items of a list carry neither kind nor version: the list's own say it.
    let items: Vec<Value> = objects.iter().map(|object| without_kind(object)).collect();
    let document = json!({
        "kind": format!("{}List", target.resource.kind),
        "apiVersion": target.resource.api_version(),
        "metadata": metadata,
        "items": items,
    });
    Ok(http::document(StatusCode::OK, &document))
}

/// The part of a resource that a list or watch asked for.
pub(crate) struct View {
    pub(crate) resource: &'static str,
    namespace: Option<String>,
    labels: Labels,
    fields: Fields,
}

impl View {
    pub(crate) fn of(target: &Target, query: &Query) -> Self {
        let namespace = &target.ask.namespace;
        Self {
            resource: target.resource.plural,
            namespace: (!namespace.is_empty()).then(|| namespace.clone()),
            labels: Labels::parse(query.get("labelSelector")),
            fields: Fields::parse(query.get("fieldSelector")),
        }
    }

    /// The store's version and the objects in view.
    pub(crate) fn objects(&self, world: &World) -> (u64, Vec<Arc<Value>>) {
        let (version, mut objects) = world.store.list(self.resource, self.namespace.as_deref());
        objects.retain(|object| self.shows(object));
        (version, objects)
    }

    pub(crate) fn covers(&self, resource: &str, namespace: &str) -> bool {
        self.resource == resource && self.namespace.as_ref().is_none_or(|ns| ns == namespace)
    }

    pub(crate) fn shows(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

fn without_kind(object: &Value) -> Value {
    let mut item = object.clone();
    if let Some(map) = item.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    item
}

/// Namespace and name: the order of a list, and where its next page begins.
fn place(object: &Value) -> (String, String) {
    let field = |name: &str| {
        object["metadata"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (field("namespace"), field("name"))
}

/// A `continue` token.
struct Token {
    version: u64,
    after: (String, String),
}

impl Token {
    fn encode(&self) -> String {
        let token = json!({"rv": self.version, "ns": self.after.0, "name": self.after.1});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str) -> Result<Self, Failure> {
        let invalid = || Failure::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        let field = |name: &str| token[name].as_str().map(str::to_owned).ok_or_else(invalid);
        let version = token["rv"].as_u64().ok_or_else(invalid)?;
        Ok(Self {
            version,
            after: (field("ns")?, field("name")?),
        })
    }
}
