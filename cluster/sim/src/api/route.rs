//! From method and path to what the authorizer calls a request.

use hyper::Method;

use super::query::Query;
use super::selector::Fields;
use super::verb_of;
use crate::rbac::Ask;
use crate::resources::{self, Resource};
use crate::world::World;

/// What a request is about.
#[derive(Debug)]
pub(crate) enum Route {
    /// Discovery, health, version: paths without a resource.
    Path(String),
    Resource(Target),
    /// A group, version or resource that this server does not have; asked for all the same,
    /// because authorization comes first.
    Unknown(Ask),
}

/// A known resource and what is wanted of it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) resource: &'static Resource,
    pub(crate) ask: Ask,
}

impl Route {
    /// Verb and resource for the counters.
    pub(crate) fn counted(&self, method: &Method) -> (String, String) {
        match self {
            Self::Path(path) => (verb_of(method).to_owned(), path.clone()),
            Self::Resource(target) => (target.ask.verb.clone(), target.ask.full_resource()),
            Self::Unknown(ask) => (ask.verb.clone(), ask.full_resource()),
        }
    }
}

pub(crate) fn parse(world: &World, method: &Method, path: &str, query: &Query) -> Route {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Route::Path(path.to_owned()),
    };
    let (namespace, plural, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..] => (*namespace, *plural, rest),
        // The namespace object itself is authorised within its own namespace.
        ["namespaces", name] => (*name, "namespaces", &rest[1..]),
        [plural, rest @ ..] => ("", *plural, rest),
        [] => return Route::Path(path.to_owned()),
    };
    let (name, subresource) = match rest {
        [] => ("", ""),
        [name] => (*name, ""),
        [name, subresource, ..] => (*name, *subresource),
    };
    let mut ask = Ask {
        verb: verb(method, name, query).to_owned(),
        group: group.to_owned(),
        resource: plural.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let single = Fields::parse(query.get("fieldSelector"))
        .ok()
        .and_then(|f| f.single_name());
    if name.is_empty()
        && let Some(single) = single
    {
        // A list of one name is authorised as that name.
        ask.name = single;
    }
    let known = resources::all(&world.options).into_iter().find(|resource| {
        resource.group == group && resource.version == version && resource.plural == plural
    });
    match known {
        Some(resource) if rest.len() <= 2 => Route::Resource(Target { resource, ask }),
        _ => Route::Unknown(ask),
    }
}

fn verb(method: &Method, name: &str, query: &Query) -> &'static str {
    match verb_of(method) {
        "get" if name.is_empty() && query.flag("watch") => "watch",
        "get" if name.is_empty() => "list",
        "delete" if name.is_empty() => "deletecollection",
        verb => verb,
    }
}
