//! What `kdev status` shows of the intercepts of a session.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Begun, Event, Teller};
use crate::app::registry::InterceptReport;
use crate::intercept::reverse::{Reverse, ReverseStatus};

/// The intercepts of a session, as far as they are shown. Cloning is shallow: all clones are the same.
#[derive(Clone, Default)]
pub(in crate::app) struct Shown(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    live: Vec<InterceptReport>,
    reverse: Option<Reverse>,
}

impl Shown {
    /// Passes on to `tell` what happens, and notes what of it is shown. The requests come through
    /// `reverse`.
    pub(super) fn teller(&self, tell: Teller, reverse: Reverse) -> Teller {
        self.lock().reverse = Some(reverse);
        let this = self.clone();
        Arc::new(move |event| {
            this.note(&event);
            tell(event);
        })
    }

    /// Those that are live.
    pub(in crate::app) fn live(&self) -> Vec<InterceptReport> {
        self.lock().live.clone()
    }

    /// How their tunnels are doing.
    pub(in crate::app) fn tunnels(&self) -> ReverseStatus {
        let reverse = self.lock().reverse.clone();
        reverse.map(|reverse| reverse.status()).unwrap_or_default()
    }

    fn note(&self, event: &Event) {
        let live = &mut self.lock().live;
        match event {
            Event::Live(begun) => {
                // One that began again, after it had waited for the relay, takes its own place.
                let same = |one: &InterceptReport| {
                    (&one.service, one.port) == (&begun.service, begun.port)
                };
                live.retain(|one| !same(one));
                live.push(report(begun));
            }
            Event::Request { served, .. } => {
                if let Some(one) = live.iter_mut().find(|one| one.id == served.id) {
                    one.requests += 1;
                }
            }
            Event::Ended { id, .. } => live.retain(|one| one.id != *id),
            Event::BrokeOff { .. } | Event::Note(_) | Event::Step(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report(begun: &Begun) -> InterceptReport {
    InterceptReport {
        id: begun.claim.id.clone(),
        service: begun.service.clone(),
        namespace: begun.namespace.clone(),
        port: begun.port,
        conditions: begun.claim.conditions.to_string(),
        mirror: begun.claim.mirror,
        app: begun.app.to_string(),
        requests: 0,
    }
}
