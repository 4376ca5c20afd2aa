//! Requests that fulfil a claim and go to the original pods all the same: their answers say so, and
//! the owner hears how many there were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Response;
use http::header::{HeaderName, HeaderValue};

use super::ports::Entry;
use crate::rule::control::Tell;
use crate::task::Tasks;

/// Marks an original pod's answer to a request that a claim is for, with the reason.
const HEADER: HeaderName = HeaderName::from_static("x-kdev-fallback");
/// How long after the first the owner is told: many that come at once are told together.
const TOGETHER: Duration = Duration::from_secs(1);
/// How long until more are told: what goes on is no news each second.
const AGAIN: Duration = Duration::from_secs(10);

/// Why the original pods answer a request that a claim is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// The owner's kdev has no tunnel, for so long that nobody waits any more.
    Silent,
    /// The app does not answer, and the owner wants this.
    AppDown,
    /// The relay has just started, and the owner's kdev has not told it of the claim yet.
    Started,
}

impl Fallback {
    const ALL: [Self; 3] = [Self::Silent, Self::AppDown, Self::Started];

    /// In words.
    const fn reason(self) -> &'static str {
        match self {
            Self::Silent => "owner silent",
            Self::AppDown => "app down",
            Self::Started => "relay started",
        }
    }

    /// Whether nobody looked into the request, so that it may have been none of the claim's.
    const fn is_unread(self) -> bool {
        matches!(self, Self::Started)
    }

    /// Marks an answer.
    pub(super) fn mark<B>(self, response: &mut Response<B>) {
        let reason = HeaderValue::from_static(self.reason());
        response.headers_mut().insert(HEADER, reason);
    }
}

/// Whether an answer is marked so.
pub(super) fn is_marked<B>(response: &Response<B>) -> bool {
    response.headers().contains_key(&HEADER)
}

/// How many requests of a claim went to the original pods and were not told yet, by reason.
#[derive(Debug, Default)]
pub(super) struct Untold {
    times: [AtomicU64; Fallback::ALL.len()],
    /// Whether they are about to be told.
    telling: AtomicBool,
}

impl Untold {
    /// Counts some.
    pub(super) fn add(&self, why: Fallback, times: u64) {
        self.times[why as usize].fetch_add(times, Ordering::Relaxed);
    }
}

impl Entry {
    /// Why the original pods answer instead of the app; `None` where they must not. `lost` is
    /// whether kdev does not answer, and not only the app.
    pub(super) fn fallback(&self, lost: bool) -> Option<Fallback> {
        match lost {
            true => (!self.claim.strict).then_some(Fallback::Silent),
            false => self.claim.fallback.then_some(Fallback::AppDown),
        }
    }

    /// A request, or a connection, that the claim is for goes to the original pods. The owner is
    /// told, by a task of `tasks`.
    pub(super) fn fell_back(self: &Arc<Self>, why: Fallback, tasks: &Tasks) {
        self.untold.add(why, 1);
        if self.untold.telling.swap(true, Ordering::AcqRel) {
            return;
        }
        let (entry, ending) = (self.clone(), tasks.clone());
        tasks.spawn(async move {
            for pause in [TOGETHER, AGAIN] {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = ending.draining() => {}
                }
                entry
                    .untold
                    .telling
                    .store(pause != AGAIN, Ordering::Release);
                entry.tell_fallbacks();
            }
        });
    }

    /// Tells the owner what was not told yet, or keeps it until there is a tunnel again.
    pub(super) fn tell_fallbacks(&self) {
        for why in Fallback::ALL {
            let times = self.untold.times[why as usize].swap(0, Ordering::Relaxed);
            if times == 0 {
                continue;
            }
            let told = self.session.tell(&Tell::Fallback {
                id: self.claim.id.clone(),
                reason: why.reason().to_owned(),
                times,
                unread: why.is_unread(),
            });
            if !told {
                self.untold.add(why, times);
            }
        }
    }
}
