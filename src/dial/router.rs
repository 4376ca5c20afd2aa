//! Which way a dial goes: through the relay, straight to a pod, or to the laptop's own network.

mod asked;
mod decision;
mod marked;
mod open;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

pub use self::decision::{Alias, Decision, MAX_ALIASES, Way};
use self::decision::{follow, no_relay, no_stream, unknown_there, was_answered};
use self::marked::MarkedBy;
use super::observe::Observer;
use super::{
    Answered, Dial, DialError, DialPods, DialRelay, Endpoints, Inside, Marker, NoRelay, Notes,
    Observe, Resolution, Resolve, Routes, Rule, Side, Via, Wanted,
};
use crate::addr::{Host, Names, Protocol, Target};

/// What is said in place of the advice to install a relay, where that is not what is missing.
const THROUGH_RELAY: &str = "a relay in the cluster reaches it";
/// The same where the session would not use one.
const LEFT_OUT: &str = "a relay in the cluster reaches it, and --via direct goes without one";

/// Sends each dial through the relay, to a pod, or to the laptop's own network.
#[derive(Clone, Debug)]
pub struct Router<R, P, L, T = NoRelay> {
    resolve: R,
    pods: P,
    laptop: L,
    relay: Option<T>,
    via: Via,
    routes: Routes,
    answered: Answered,
    observer: Observer,
    marker: MarkedBy,
    /// Which of several equal destinations is next.
    turn: Arc<AtomicUsize>,
}

impl<R: Resolve, P: DialPods, L: Dial> Router<R, P, L> {
    /// What `resolve` finds in the cluster goes through `pods`, all else through `laptop`.
    pub fn new(resolve: R, pods: P, laptop: L) -> Self {
        Self {
            resolve,
            pods,
            laptop,
            relay: None,
            via: Via::Auto,
            routes: Routes::default(),
            answered: Answered::default(),
            observer: Observer::default(),
            marker: MarkedBy::default(),
            turn: Arc::default(),
        }
    }
}

impl<R: Resolve, P: DialPods, L: Dial, T: DialRelay> Router<R, P, L, T> {
    /// The same, with rules of the user's that come first.
    #[must_use]
    pub fn with_routes(self, routes: Routes) -> Self {
        Self { routes, ..self }
    }

    /// The same, with addresses that are the cluster's because its DNS gave them.
    #[must_use]
    pub fn with_answered(self, answered: Answered) -> Self {
        Self { answered, ..self }
    }

    /// The same, with somebody who hears of its streams.
    #[must_use]
    pub fn with_observer(self, observe: Arc<dyn Observe>) -> Self {
        let observer = Observer::new(observe);
        Self { observer, ..self }
    }

    /// The same, with who has requests say whose they are.
    #[must_use]
    pub fn with_marker(self, marker: Option<Arc<dyn Marker>>) -> Self {
        let marker = MarkedBy(marker);
        Self { marker, ..self }
    }

    /// The same, with a relay where there may be one, and which way the user wants.
    #[must_use]
    pub fn with_relay<N: DialRelay>(self, relay: Option<N>, via: Via) -> Router<R, P, L, N> {
        Router {
            resolve: self.resolve,
            pods: self.pods,
            laptop: self.laptop,
            relay,
            via,
            routes: self.routes,
            answered: self.answered,
            observer: self.observer,
            marker: self.marker,
            turn: self.turn,
        }
    }

    /// Where a TCP connection to `target` would go now. Bounded in time; cancel-safe.
    pub async fn decide(&self, target: &Target, notes: &mut Notes) -> Decision {
        self.decide_for(target, Protocol::Tcp, notes).await
    }

    /// Where `target` leads now for who speaks `protocol`. Bounded in time; cancel-safe.
    pub async fn decide_for(
        &self,
        target: &Target,
        protocol: Protocol,
        notes: &mut Notes,
    ) -> Decision {
        let mut target = target.clone();
        let mut names = Names::Relative;
        let mut aliases: Vec<Alias> = Vec::new();
        loop {
            let rule = self.routes.decide(&target);
            if let Some(rule) = rule {
                let setting = rule.side().setting();
                notes.add(|| format!("{setting} {rule} decides on {target}"));
            }
            let wanted = Wanted {
                target: &target,
                names,
                protocol,
            };
            let way = match self.one(wanted, rule, notes).await {
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

    /// Where `wanted` itself leads, or the alias that it is.
    async fn one(
        &self,
        wanted: Wanted<'_>,
        rule: Option<&Rule>,
        notes: &mut Notes,
    ) -> Result<Way, Alias> {
        if rule.is_some_and(|rule| rule.side() == Side::Laptop) {
            return Ok(Way::Laptop);
        }
        let resolution = match self.resolve.resolve_as(wanted, notes) {
            Resolution::Unknown => self.resolve.learn_as(wanted, notes).await,
            known => known,
        };
        let target = wanted.target;
        Ok(match (resolution, rule) {
            (Resolution::Alias { service, name }, _) => return Err(Alias { service, name }),
            (Resolution::Pods(mut endpoints), _) => match wanted.protocol {
                Protocol::Tcp => self.to_pods(target, endpoints, notes).await,
                other => {
                    let inside = std::mem::take(&mut endpoints.inside);
                    let why = no_stream(target, other);
                    self.inside(inside, Some(endpoints), why, notes).await
                }
            },
            (Resolution::Inside { inside, why }, _) => self.inside(inside, None, why, notes).await,
            (Resolution::Failed(error), _) => Way::Failed(error),
            (Resolution::Elsewhere | Resolution::Unknown, Some(rule)) => {
                let inside = Inside::unknown(target.clone());
                self.inside(inside, None, unknown_there(target, rule), notes)
                    .await
            }
            (Resolution::Elsewhere | Resolution::Unknown, None) => match target.host {
                Host::Ip(ip) if self.answered.has(ip) => {
                    notes
                        .add(|| format!("the cluster's DNS gave {ip} for a name of the cluster's"));
                    let inside = Inside::unknown(target.clone());
                    self.inside(inside, None, was_answered(target), notes).await
                }
                _ => Way::Laptop,
            },
        })
    }

    /// The way to what pods serve.
    async fn to_pods(&self, target: &Target, mut endpoints: Endpoints, notes: &mut Notes) -> Way {
        match (self.via, &self.relay) {
            (Via::Direct, _) | (Via::Auto, None) => return Way::Cluster(endpoints),
            (Via::Auto, Some(relay)) if !relay.usable() => {
                if relay.hopeless().is_none() {
                    notes.add(|| "the relay is not usable now".to_owned());
                }
                return Way::Cluster(endpoints);
            }
            (Via::Auto | Via::Relay, _) => {}
        }
        let inside = std::mem::take(&mut endpoints.inside);
        self.inside(inside, Some(endpoints), no_relay(target), notes)
            .await
    }

    /// The way to what only who is inside reaches, for the reason `why`.
    async fn inside(
        &self,
        inside: Inside,
        endpoints: Option<Endpoints>,
        why: DialError,
        notes: &mut Notes,
    ) -> Way {
        if self.via == Via::Direct {
            return Way::Failed(why.advising(LEFT_OUT));
        }
        let Some(relay) = &self.relay else {
            return Way::Failed(why);
        };
        relay.settled().await;
        if let Some(error) = relay.hopeless() {
            return Way::Failed(why.advising(&format!("{THROUGH_RELAY}, but {error}")));
        }
        notes.add(|| match (relay.usable(), inside.known) {
            (false, _) => "the relay is not usable now: a dial waits for it".to_owned(),
            (true, true) => "the relay dials it, and is not waited for".to_owned(),
            (true, false) => "the relay dials it, and says what came of it".to_owned(),
        });
        Way::Relay(inside, endpoints)
    }
}
