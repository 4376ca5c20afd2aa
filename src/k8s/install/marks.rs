//! Labels and annotations of what was created by an earlier run and never changes otherwise.

use serde_json::{Value, json};

use super::shape::pairs;
use super::site::{CONFIG_MAPS, Found, Kind, SECRETS, Site, name_of};
use crate::k8s::access::Permission;

/// The permissions that it takes to give labels and annotations to what is there; none where all is
/// as it should be.
#[must_use]
pub fn marking_permissions(site: &Site, objects: &[Value], found: &Found) -> Vec<Permission> {
    let mut all: Vec<Permission> = Vec::new();
    for (kind, object) in objects
        .iter()
        .filter_map(|object| Some((kept(object)?, object)))
    {
        let there = found.kept(kind, name_of(object));
        let patch = kind.permission("patch", &site.namespace);
        if there.is_some_and(|there| marks(there, object, found).is_some()) && !all.contains(&patch)
        {
            all.push(patch);
        }
    }
    all
}

/// The kind of an object that is created once and then only labelled.
pub(super) fn kept(object: &Value) -> Option<&'static Kind> {
    let kinds = [&SECRETS, &CONFIG_MAPS].into_iter();
    kinds.into_iter().find(|kind| object["kind"] == kind.kind)
}

/// The patch that gives `there` the labels and annotations of `object`, and takes off those that the
/// user had chosen before; none where there is nothing to change.
pub(super) fn marks(there: &Value, object: &Value, found: &Found) -> Option<Value> {
    let before = found.settings().unwrap_or_default().shape;
    let mut patch = json!({});
    for (field, chosen) in [
        ("labels", &before.labels),
        ("annotations", &before.annotations),
    ] {
        let (has, wanted) = (
            pairs(&there["metadata"][field]),
            pairs(&object["metadata"][field]),
        );
        let gone = chosen
            .keys()
            .filter(|key| has.contains_key(*key) && !wanted.contains_key(*key));
        for key in gone {
            patch["metadata"][field][key] = Value::Null;
        }
        for (key, value) in wanted
            .iter()
            .filter(|(key, value)| has.get(*key) != Some(value))
        {
            patch["metadata"][field][key] = json!(value);
        }
    }
    (patch != json!({})).then_some(patch)
}
