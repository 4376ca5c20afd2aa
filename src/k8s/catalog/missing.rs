//! What is said of names that can only be the cluster's and are not there. Pure.

use super::lookup::service;
use super::name::{Query, What};
use super::store::Store;
use crate::addr::{ClusterName, Namespaced, Target};
use crate::dial::{DialError, Inside, NEEDS_RELAY, Resolution, Wanted};

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

/// What the user may have meant.
fn near(store: &Store, name: &Namespaced) -> String {
    let Some(namespace) = store.namespace(&name.namespace) else {
        return format!("kdev sees no Service in namespace {}", name.namespace);
    };
    let mut known: Vec<&str> = namespace.services.keys().map(|n| &**n).collect();
    known.sort_unstable();
    let similar = similar(known.iter().copied(), &name.name);
    if !similar.is_empty() {
        return format!("did you mean {}?", similar.join(", "));
    }
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

/// Those of the `known` names that differ from `asked` by a slip, as many as a message lists.
pub(super) fn similar<'a>(known: impl Iterator<Item = &'a str>, asked: &str) -> Vec<&'a str> {
    let similar = known.filter(|known| is_similar(known, asked));
    let mut similar: Vec<&str> = similar.collect();
    similar.sort_unstable();
    similar.truncate(SHOWN_NAMES);
    similar
}

/// Whether two names differ by a slip: one contains the other, or two letters at most differ.
fn is_similar(known: &str, asked: &str) -> bool {
    /// Shorter names than this are contained in too many.
    const MIN_PART: usize = 3;
    let contained = asked.len() >= MIN_PART && known.contains(asked)
        || known.len() >= MIN_PART && asked.contains(known);
    contained || known.len().abs_diff(asked.len()) <= 2 && distance(known, asked) <= 2
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
