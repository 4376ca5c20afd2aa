//! Copies of requests for whoever wants to look on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tracing::debug;

use super::ports::{Entry, Routes};
use super::route::{APP, of_app};
use super::served::Served;
use crate::addr::Target;
use crate::http::{CopyBudget, Passing};
use crate::rule::Head;
use crate::task::Tasks;

/// Copies that are under way at a time, of all ports. More are dropped.
const MOST: usize = 64;
/// Copies of one request.
const MOST_OF_ONE: usize = 8;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Sends copies. Cheap to clone.
#[derive(Clone)]
pub(super) struct Mirrors {
    budget: CopyBudget,
    places: Arc<Semaphore>,
    tasks: Tasks,
}

impl Mirrors {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self {
            budget: CopyBudget::default(),
            places: Arc::new(Semaphore::new(MOST)),
            tasks,
        }
    }

    /// The mirrors that get a copy of a request.
    pub(super) fn wanted(routes: &Routes, head: &Head<'_>) -> Vec<Arc<Entry>> {
        let mut wanted: Vec<Arc<Entry>> = Vec::new();
        routes.mirrors.each(head, |entry| {
            if wanted.len() < MOST_OF_ONE && entry.session.is_live() {
                wanted.push(entry.clone());
            }
        });
        wanted
    }

    /// Sends copies. Never waits; where there is no room, there is no copy.
    pub(super) fn send(
        &self,
        wanted: Vec<Arc<Entry>>,
        passing: &Passing,
        target: &Target,
        second: bool,
    ) {
        for entry in wanted {
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                return debug!("too many copies are under way; this one is dropped");
            };
            let Some(copy) = passing.copy(&self.budget) else {
                return;
            };
            entry.hit();
            let line = entry.lines(&self.tasks).of(second).clone();
            let target = target.clone();
            let served = Served::of(&entry, passing);
            self.tasks.spawn(async move {
                let exchange = async {
                    // Of a copy only the app's own answer counts: nobody gets another.
                    let response = match line.pass(&target, copy).await {
                        Ok(forwarded) => forwarded.response,
                        Err(failed) => {
                            if let Some(mut served) = served {
                                served.because(&of_app(&failed.failure, &target));
                            }
                            return;
                        }
                    };
                    let status = response.status();
                    let mut answered = served.and_then(|served| served.answered(status, APP));
                    let mut body = response.into_body();
                    // To its end, so that the app sees a caller like any other.
                    while let Some(frame) = body.frame().await {
                        match (frame, &mut answered) {
                            (Ok(frame), Some(answered)) => {
                                answered.sent(frame.data_ref().map_or(0, Bytes::len));
                            }
                            (Ok(_), None) => {}
                            (Err(error), _) => {
                                if let Some(answered) = answered.take() {
                                    answered.broke_off(&error);
                                }
                                return;
                            }
                        }
                    }
                };
                // Nobody waits for what comes of it.
                let _ = tokio::time::timeout(LIMIT, exchange).await;
                drop(place);
            });
        }
    }
}
