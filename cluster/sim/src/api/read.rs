//! Getting and listing.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::options::{ListOptions, Token};
use super::route::Target;
use super::table;
use crate::http::{self, Answer, Failure};
use crate::world::World;

pub(crate) fn get(world: &World, target: &Target, as_table: bool) -> Result<Answer, Failure> {
    let resource = target.resource;
    let namespace = if resource.namespaced {
        target.ask.namespace.as_str()
    } else {
        ""
    };
    let name = &target.ask.name;
    let object = world.store.get(resource.plural, namespace, name);
    let object = object.ok_or_else(|| Failure::not_found(resource.plural, resource.group, name))?;
    if as_table {
        let version = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let table = table::of(resource.kind, [&*object], &version);
        return Ok(http::document(StatusCode::OK, &table));
    }
    Ok(http::document(StatusCode::OK, &object))
}

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Metadata,
    Table,
}

fn metadata_of(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

pub(crate) fn list(
    world: &World,
    target: &Target,
    options: ListOptions,
    form: Form,
) -> Result<Answer, Failure> {
    let gone = world.faults.api().gone_lists;
    let forgotten = |version: u64| gone || !world.store.remembers(version);
    let view = View::of(target, options);
    let ListOptions {
        limit,
        version: asked,
        exact,
        ref resumed,
        ..
    } = view.options;
    if resumed
        .as_ref()
        .is_some_and(|token| forgotten(token.version))
    {
        return Err(Failure::expired(
            "The provided continue parameter is too old to display a consistent list result. You \
             can start a new list without the continue parameter.",
        ));
    }
    if asked.is_some_and(|asked| asked > 0 && (gone || (exact && forgotten(asked)))) {
        return Err(Failure::expired(
            "The resourceVersion for the provided list is too old.",
        ));
    }
    let (mut version, mut objects) = view.objects(world);
    if let Some(asked) = asked.filter(|asked| *asked > version) {
        return Err(too_large(asked, version));
    }
    if let Some(token) = resumed {
        version = token.version;
        objects.retain(|object| place(object) > token.after);
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
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
    if form == Form::Metadata {
        let items: Vec<Value> = objects.iter().map(|object| metadata_of(object)).collect();
        // Real servers leave an empty list of these null.
        let items = (!items.is_empty()).then_some(items);
        let document = json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": items,
        });
        return Ok(http::document(StatusCode::OK, &document));
    }
    if form == Form::Table {
        let objects = objects.iter().map(AsRef::as_ref);
        let table = table::of(target.resource.kind, objects, &metadata);
        return Ok(http::document(StatusCode::OK, &table));
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

fn too_large(asked: u64, current: u64) -> Failure {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    Failure::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).with_details(json!({
        "causes": [{
            "reason": "ResourceVersionTooLarge",
            "message": "Too large resource version",
        }],
        "retryAfterSeconds": 1,
    }))
}

/// The part of a resource that a list or watch asked for.
pub(crate) struct View {
    resource: &'static str,
    namespace: Option<String>,
    pub(crate) options: ListOptions,
}

impl View {
    pub(crate) fn of(target: &Target, options: ListOptions) -> Self {
        Self {
            resource: target.resource.plural,
            namespace: namespace(target),
            options,
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
        self.options.labels.matches(object) && self.options.fields.matches(object)
    }
}

fn namespace(target: &Target) -> Option<String> {
    let namespace = &target.ask.namespace;
    (!namespace.is_empty()).then(|| namespace.clone())
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
