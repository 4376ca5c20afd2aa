//! Which way a dial goes: into the cluster or to the laptop's own network.

use std::fmt;

use super::{
    Dial, DialError, DialPods, Endpoints, HttpIo, NEEDS_RELAY, Notes, Resolution, Resolve, Routes,
    Rule, Side,
};
use crate::addr::{Host, Names, Namespaced, Target};
use crate::io::BoxIo;

/// How many aliases are followed in a row: as many as CoreDNS and common resolvers do. More is a
/// loop or a mistake.
pub const MAX_ALIASES: usize = 8;

/// Sends each dial to the cluster or to the laptop's own network.
#[derive(Clone, Debug)]
pub struct Router<R, P, L> {
    resolve: R,
    pods: P,
    laptop: L,
    routes: Routes,
}

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

impl<R: Resolve, P: DialPods, L: Dial> Router<R, P, L> {
    /// What `resolve` finds in the cluster goes through `pods`, all else through `laptop`.
    pub fn new(resolve: R, pods: P, laptop: L) -> Self {
        Self {
            resolve,
            pods,
            laptop,
            routes: Routes::default(),
        }
    }

    /// The same, with rules of the user's that come first.
    #[must_use]
    pub fn with_routes(self, routes: Routes) -> Self {
        Self { routes, ..self }
    }

    /// Where a dial of `target` would go now. Bounded in time; cancel-safe.
    pub async fn decide(&self, target: &Target, notes: &mut Notes) -> Decision {
        let mut target = target.clone();
        let mut names = Names::Relative;
        let mut aliases: Vec<Alias> = Vec::new();
        loop {
            let rule = self.routes.decide(&target);
            if let Some(rule) = rule {
                let setting = rule.side().setting();
                notes.add(|| format!("{setting} {rule} decides on {target}"));
            }
            let way = match self.one(&target, names, rule, notes).await {
                Ok(way) => way,
                Err(alias) => {
                    notes.add(|| alias.to_string());
                    aliases.push(alias);
                    match follow(&aliases, &target) {
                        Ok(next) => {
                            target = next;
                            names = Names::Absolute;
                            continue;
                        }
                        Err(error) => Way::Failed(error),
                    }
                }
            };
            let rule = rule.cloned();
            return Decision {
                target,
                way,
                rule,
                aliases,
            };
        }
    }

    /// Where `target` itself leads, or the alias that it is.
    async fn one(
        &self,
        target: &Target,
        names: Names,
        rule: Option<&Rule>,
        notes: &mut Notes,
    ) -> Result<Way, Alias> {
        if rule.is_some_and(|rule| rule.side() == Side::Laptop) {
            return Ok(Way::Laptop);
        }
        let resolution = match self.resolve.resolve_as(target, names, notes) {
            Resolution::Unknown => self.resolve.learn_as(target, names, notes).await,
            known => known,
        };
        Ok(match (resolution, rule) {
            (Resolution::Alias { service, name }, _) => return Err(Alias { service, name }),
            (Resolution::Pods(endpoints), _) => Way::Cluster(endpoints),
            (Resolution::Elsewhere | Resolution::Unknown, Some(rule)) => {
                Way::Failed(unknown_there(target, rule))
            }
            (Resolution::Failed(error), _) => Way::Failed(error),
            (Resolution::Elsewhere | Resolution::Unknown, None) => Way::Laptop,
        })
    }
}

impl<R: Resolve, P: DialPods, L: Dial> Dial for Router<R, P, L> {
    type Io = BoxIo;

    async fn dial(&self, target: &Target) -> Result<BoxIo, DialError> {
        let decision = self.decide(target, &mut Notes::off()).await;
        match decision.way {
            Way::Cluster(endpoints) => {
                let io = self.pods.dial_pods(&decision.target, &endpoints).await?;
                Ok(Box::new(io))
            }
            Way::Laptop => match self.laptop.dial(&decision.target).await {
                Ok(io) => Ok(Box::new(io)),
                Err(error) => Err(explain(error, &decision.aliases)),
            },
            Way::Failed(error) => Err(error),
        }
    }

    async fn dial_http(&self, target: &Target) -> Result<HttpIo<BoxIo>, DialError> {
        let decision = self.decide(target, &mut Notes::off()).await;
        match decision.way {
            Way::Cluster(endpoints) => {
                let io = self.pods.dial_pods(&decision.target, &endpoints).await?;
                Ok(HttpIo::direct(Box::new(io)))
            }
            // An HTTP proxy goes by the name in the request, which is none outside of the cluster.
            Way::Laptop if !decision.aliases.is_empty() => {
                match self.laptop.dial(&decision.target).await {
                    Ok(io) => Ok(HttpIo::direct(Box::new(io))),
                    Err(error) => Err(explain(error, &decision.aliases)),
                }
            }
            Way::Laptop => {
                let HttpIo { io, via } = self.laptop.dial_http(&decision.target).await?;
                let io: BoxIo = Box::new(io);
                Ok(HttpIo { io, via })
            }
            Way::Failed(error) => Err(error),
        }
    }
}

/// What the last alias leads to, on the port that was asked for.
fn follow(aliases: &[Alias], target: &Target) -> Result<Target, DialError> {
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
fn explain(error: DialError, aliases: &[Alias]) -> DialError {
    match (error, aliases.last()) {
        (DialError::NotFound { .. }, Some(alias)) => DialError::NotFound {
            what: format!("host {}", alias.name),
            fix: format!("{alias}, and this machine does not resolve that name"),
        },
        (error, _) => error,
    }
}

/// The failure of what a rule sends into the cluster, which kdev does not see there.
fn unknown_there(target: &Target, rule: &Rule) -> DialError {
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

#[cfg(test)]
mod tests;
