//! What is said of names that can only be the cluster's and are not there. Pure.

use super::lookup::service;
use super::name::{Query, What};
use super::store::Store;
use crate::addr::{ClusterName, Namespaced, Target};
use crate::dial::{DialError, Inside, NEEDS_RELAY, Resolution, Wanted};
use crate::k8s::similar::{did_you_mean, similar};

/// How many names a message lists.
const SHOWN_NAMES: usize = 8;

/// The answer for a name that can only be the cluster's and is not there.
pub(super) fn not_found(store: &Store, query: &Query, wanted: Wanted<'_>) -> Resolution {
    if let What::Name(ClusterName::PodIp { ip, .. }) = &query.what {
        // A pod has the name as long as it has the address, whether it may be seen or not.
        return Resolution::Inside {
            inside: Inside::unknown(Target::new((*ip).into(), wanted.target.port)),
            why: DialError::NotFound {
                what: query.to_string(),
                fix: NEEDS_RELAY.to_owned(),
            },
        };
    }
    let fix = match &query.what {
        What::Name(ClusterName::Service(name) | ClusterName::Srv { service: name, .. }) => {
            near(store, name)
        }
        What::Name(ClusterName::Endpoint { service: name, .. }) => {
            if service(store, name).is_none() {
                near(store, name)
            } else {
                "ready pods of a Service go by their address with dashes, and by their host \
                 name where `hostname` and `subdomain` are set, as StatefulSets set them"
                    .to_owned()
            }
        }
        What::Name(ClusterName::PodIp { .. })
        | What::Ip(_)
        | What::Reverse(_)
        | What::Namespace(_) => String::new(),
        What::Pods(pick) => pick.near(store),
    };
    Resolution::Failed(DialError::NotFound {
        what: query.to_string(),
        fix,
    })
}

/// What the user may have meant by a Service that is not there.
pub(super) fn near(store: &Store, name: &Namespaced) -> String {
    let Some(namespace) = store.namespace(&name.namespace) else {
        return elsewhere(store, name)
            .unwrap_or_else(|| format!("kdev sees no Service in namespace {}", name.namespace));
    };
    let known = || namespace.services.keys().map(|known| &**known);
    let meant = similar(known(), &name.name).into_iter();
    if let Some(question) = did_you_mean(&meant.map(str::to_owned).collect::<Vec<_>>()) {
        return question;
    }
    if let Some(question) = elsewhere(store, name) {
        return question;
    }
    let mut known: Vec<&str> = known().collect();
    known.sort_unstable();
    let shown = known.iter().take(SHOWN_NAMES).copied();
    let shown = shown.collect::<Vec<_>>().join(", ");
    match known.len() {
        0 => format!("kdev sees no Service in namespace {}", name.namespace),
        n if n > SHOWN_NAMES => {
            format!(
                "kdev sees {n} Services in namespace {}: {shown}, …",
                name.namespace
            )
        }
        _ => format!("in namespace {} there is {shown}", name.namespace),
    }
}

/// The same Service in another namespace: one whose name is a slip away, or any that has it.
fn elsewhere(store: &Store, name: &Namespaced) -> Option<String> {
    let has = |namespace: &str| {
        let other = Namespaced::new(namespace, &*name.name);
        store.service(&other).is_some()
    };
    let others = || {
        let all = store.namespaces.keys().map(|namespace| &**namespace);
        all.filter(|namespace| *namespace != name.namespace && has(namespace))
    };
    let mut meant = similar(others(), &name.namespace);
    if meant.is_empty() {
        meant = others().collect();
        meant.sort_unstable();
        meant.truncate(SHOWN_NAMES);
    }
    let meant = meant.into_iter();
    let meant: Vec<String> = meant
        .map(|other| format!("{}.{other}", name.name))
        .collect();
    did_you_mean(&meant)
}

/// What may have been meant by a Service in a namespace that does not exist.
pub(super) fn meant(store: &Store, name: &Namespaced) -> Option<String> {
    elsewhere(store, name).or_else(|| {
        let known = store.namespaces.keys().map(|namespace| &**namespace);
        let meant = similar(known, &name.namespace).into_iter();
        did_you_mean(&meant.map(|n| format!("namespace {n}")).collect::<Vec<_>>())
    })
}
