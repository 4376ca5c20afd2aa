//! Which destinations' requests are marked.

use std::fmt;
use std::sync::Arc;

use super::super::{Mark, Marker, Notes, Resolution, Resolve, Side, Wanted};
use super::Router;
use super::decision::{Alias, Decision, Way, follow};
use crate::addr::{Names, Protocol, Target};

/// Who has requests say whose they are, if anybody does.
#[derive(Clone, Default)]
pub(super) struct MarkedBy(pub(super) Option<Arc<dyn Marker>>);

impl MarkedBy {
    /// Whoever does, where there is something to mark.
    fn now(&self) -> Option<&Arc<dyn Marker>> {
        self.0.as_ref().filter(|marker| marker.any())
    }

    /// The mark of what was decided.
    pub(super) fn of(&self, decision: &Decision) -> Option<Mark> {
        let marker = self.now()?;
        let endpoints = match &decision.way {
            Way::Cluster(endpoints) | Way::Relay(_, Some(endpoints)) => endpoints,
            Way::Relay(_, None) | Way::Laptop | Way::Failed(_) => return None,
        };
        Mark::of(marker, endpoints.service.as_ref()?, decision.target.port)
    }
}

impl fmt::Debug for MarkedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MarkedBy").field(&self.0.is_some()).finish()
    }
}

impl<R: Resolve, P, L, T> Router<R, P, L, T> {
    /// The mark of what `target` means by the snapshot, as [`Router::decide`] would find it.
    pub(super) fn marked(&self, target: &Target) -> Option<Mark> {
        let marker = self.marker.now()?;
        let (mut target, mut names) = (target.clone(), Names::Relative);
        let mut aliases: Vec<Alias> = Vec::new();
        loop {
            let rule = self.routes.decide(&target);
            if rule.is_some_and(|rule| rule.side() == Side::Laptop) {
                return None;
            }
            let wanted = Wanted {
                target: &target,
                names,
                protocol: Protocol::Tcp,
            };
            match self.resolve.resolve_as(wanted, &mut Notes::off()) {
                Resolution::Pods(endpoints) => {
                    return Mark::of(marker, endpoints.service.as_ref()?, target.port);
                }
                Resolution::Alias { service, name } => {
                    aliases.push(Alias { service, name });
                    target = follow(&aliases, &target).ok()?;
                    names = Names::Absolute;
                }
                Resolution::Elsewhere
                | Resolution::Inside { .. }
                | Resolution::Failed(_)
                | Resolution::Unknown => return None,
            }
        }
    }
}
