//! Where a destination leads, and what is said of it where it leads nowhere.

use std::fmt;

use super::super::{DialError, Endpoints, Inside, NEEDS_RELAY, Rule};
use crate::addr::{Host, Namespaced, Protocol, Target};

/// How many aliases are followed in a row: as many as CoreDNS and common resolvers do. More is a
/// loop or a mistake.
pub const MAX_ALIASES: usize = 8;

/// Where a destination leads.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The destination in the end, after all aliases.
    pub target: Target,
    /// The way there.
    pub way: Way,
    /// The rule of the user's that decided on it, if any did.
    pub rule: Option<Rule>,
    /// The aliases that were followed, in order.
    pub aliases: Vec<Alias>,
}

/// A way to a destination.
#[derive(Clone, Debug)]
pub enum Way {
    /// To these pods.
    Cluster(Endpoints),
    /// Through the relay; with the pods behind it, where they are known.
    Relay(Inside, Option<Endpoints>),
    /// From the laptop, as any program on it would.
    Laptop,
    /// There is none.
    Failed(DialError),
}

/// An ExternalName Service that was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The Service.
    pub service: Namespaced,
    /// The name that it stands for.
    pub name: String,
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Namespaced { namespace, name } = &self.service;
        write!(
            f,
            "Service {name} in namespace {namespace} is an alias of {} (ExternalName)",
            self.name
        )
    }
}

/// What the last alias leads to, on the port that was asked for.
pub(super) fn follow(aliases: &[Alias], target: &Target) -> Result<Target, DialError> {
    let failed = |reason: String, fix: &str| DialError::Unreachable {
        target: target.to_string(),
        reason,
        fix: fix.to_owned(),
    };
    let Some(alias) = aliases.last() else {
        return Ok(target.clone());
    };
    if aliases.len() > MAX_ALIASES || aliases[..aliases.len() - 1].contains(alias) {
        let names: Vec<&str> = aliases.iter().map(|a| &*a.name).collect();
        return Err(failed(
            format!("its aliases lead nowhere: {}", names.join(" → ")),
            "correct externalName of these Services",
        ));
    }
    match alias.name.parse() {
        Ok(host @ Host::Name(_)) => Ok(Target::new(host, target.port)),
        Ok(Host::Ip(_)) | Err(_) => Err(failed(
            format!("{alias}, which is no DNS name: the cluster's DNS has no answer to it either"),
            "a Service without selector with an EndpointSlice leads to an address",
        )),
    }
}

/// The failure of an alias that leads out of the cluster.
pub(super) fn explain(error: DialError, aliases: &[Alias]) -> DialError {
    match (error, aliases.last()) {
        (DialError::NotFound { .. }, Some(alias)) => DialError::NotFound {
            what: format!("host {}", alias.name),
            fix: format!("{alias}, and this machine does not resolve that name"),
        },
        (error, _) => error,
    }
}

/// The failure of what a rule sends into the cluster, which kdev does not see there.
pub(super) fn unknown_there(target: &Target, rule: &Rule) -> DialError {
    let what = match target.host {
        Host::Ip(_) => "it is no address of a Service or pod that you may see",
        Host::Name(_) => "it is no Service or pod that you may see",
    };
    DialError::Unreachable {
        target: target.to_string(),
        reason: format!(
            "{} {rule} sends it into the cluster, where {what}",
            rule.side().setting()
        ),
        fix: NEEDS_RELAY.to_owned(),
    }
}

/// The failure of an address that the cluster's DNS gave.
pub(super) fn was_answered(target: &Target) -> DialError {
    DialError::Unreachable {
        target: target.to_string(),
        reason: "the cluster's DNS gave the address, for a name of --resolve-in-cluster".to_owned(),
        fix: NEEDS_RELAY.to_owned(),
    }
}

/// The failure of what port-forward does not carry.
pub(super) fn no_stream(target: &Target, protocol: Protocol) -> DialError {
    DialError::Unreachable {
        target: target.to_string(),
        reason: format!(
            "it is {}, and port-forward carries TCP alone",
            protocol.name()
        ),
        fix: NEEDS_RELAY.to_owned(),
    }
}

/// The failure of a session that wants a relay where there is none.
pub(super) fn no_relay(target: &Target) -> DialError {
    DialError::Unreachable {
        target: target.to_string(),
        reason: "--via relay leaves no other way, and no relay was found".to_owned(),
        fix: NEEDS_RELAY.to_owned(),
    }
}
