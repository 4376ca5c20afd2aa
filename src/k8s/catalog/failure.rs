//! Why what is there cannot be dialled, in words. Pure.

use super::store::Service;
use crate::addr::{Namespaced, Protocol};
use crate::dial::{DialError, Resolution, Wanted};

/// The answer for a port that is declared, but not for the protocol that is wanted.
pub(super) fn other_protocol(
    name: &Namespaced,
    declared: Protocol,
    wanted: Wanted<'_>,
) -> Resolution {
    unreachable(
        wanted,
        format!(
            "port {} of {} is {}, and not {}",
            wanted.target.port,
            describe(name),
            declared.name(),
            wanted.protocol.name()
        ),
        "",
    )
}

/// The pods that a selector matches, for who has to say why none will do.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) all: usize,
    /// Ready, and without an address of the Service's families.
    pub(super) of_other_family: usize,
}

pub(super) fn no_ready_pod(
    name: &Namespaced,
    service: &Service,
    seen: &Seen,
    wanted: Wanted<'_>,
) -> Resolution {
    let count = match (seen.all, seen.of_other_family) {
        (0, _) => "no pod matches its selector".to_owned(),
        (1, 0) => "1 pod, not ready".to_owned(),
        (n, 0) => format!("{n} pods, none ready"),
        (_, 1) => format!("1 is ready and has no {} address", service.families),
        (_, n) => format!("{n} are ready and have no {} address", service.families),
    };
    let mut terms: Vec<&str> = service.selector.iter().map(|term| &**term).collect();
    terms.sort_unstable();
    unreachable(
        wanted,
        format!("{} has no ready pod ({count})", describe(name)),
        &format!(
            "`kubectl get pods -n {} -l {}` shows them",
            name.namespace,
            terms.join(",")
        ),
    )
}

pub(super) fn describe(name: &Namespaced) -> String {
    format!("Service {} in namespace {}", name.name, name.namespace)
}

pub(super) fn unreachable(wanted: Wanted<'_>, reason: String, fix: &str) -> Resolution {
    Resolution::Failed(DialError::Unreachable {
        target: wanted.target.to_string(),
        reason,
        fix: fix.to_owned(),
    })
}
