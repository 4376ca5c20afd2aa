//! Telling kdev of the requests of its claims.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::ports::Entry;
use crate::http::{Failure, Passing, broke_off};
use crate::rule::control::Tell;

/// Bytes of a path that kdev is told: a line of a terminal.
const LONGEST_PATH: usize = 200;
/// Characters of a reason that it is told: some lines.
const LONGEST_WHY: usize = 400;

/// A request that kdev is told of once it is answered, or once nobody waits for an answer any more,
/// which is when this is dropped.
pub(super) struct Served {
    request: Option<Asked>,
    status: Option<StatusCode>,
    why: Option<String>,
}

/// What was asked for.
struct Asked {
    entry: Arc<Entry>,
    method: String,
    path: String,
    began: Instant,
}

/// A request that was answered, as long as its answer is under way: kdev is told where it breaks off.
pub(super) struct Answered {
    request: Asked,
    status: StatusCode,
    /// Who answers.
    by: &'static str,
    sent: u64,
}

impl Served {
    /// For a request of `entry`, where its kdev wants to know.
    pub(super) fn of(entry: &Arc<Entry>, passing: &Passing) -> Option<Self> {
        // What follows the path may be secret. Paths are ASCII.
        let path = passing.uri().path();
        entry.log.then(|| Self {
            request: Some(Asked {
                entry: entry.clone(),
                method: passing.method().to_string(),
                path: path[..path.len().min(LONGEST_PATH)].to_owned(),
                began: Instant::now(),
            }),
            status: None,
            why: None,
        })
    }

    /// Its caller is answered with `status`, and from now on with a body, by the app or whoever
    /// else is named.
    pub(super) fn answered(mut self, status: StatusCode, by: &'static str) -> Option<Answered> {
        self.status = Some(status);
        self.why = None;
        self.tell();
        let request = self.request.take()?;
        Some(Answered {
            request,
            status,
            by,
            sent: 0,
        })
    }

    /// Why there is no answer of the app, in words for the app's owner.
    pub(super) fn because(&mut self, why: &str) {
        self.why = Some(cut(why));
    }

    /// Its caller is answered with `failure`, unless it is its leaving that failed.
    pub(super) fn failed(mut self, failure: &Failure) {
        if !failure.is_of_who_left() {
            self.status = Some(failure.status);
            self.why.get_or_insert_with(|| cut(&failure.text));
        }
    }

    fn tell(&self) {
        let Some(request) = &self.request else { return };
        request.entry.session.tell(&Tell::Served {
            id: request.entry.claim.id.clone(),
            method: request.method.clone(),
            path: request.path.clone(),
            status: self.status.map_or(0, |status| status.as_u16()),
            took: request.took(),
            why: self.why.clone(),
        });
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tell();
    }
}

impl Answered {
    /// So many bytes of the body came.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The body broke off.
    pub(super) fn broke_off(self, error: &hyper::Error) {
        let request = &self.request;
        request.entry.session.tell(&Tell::BrokeOff {
            id: request.entry.claim.id.clone(),
            method: request.method.clone(),
            path: request.path.clone(),
            status: self.status.as_u16(),
            sent: self.sent,
            why: cut(&broke_off(self.by, error)),
            took: request.took(),
        });
    }
}

impl Asked {
    /// How long ago it came, in microseconds.
    fn took(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST_WHY).collect()
}
