//! Telling kdev of the requests of its claims.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::ports::Entry;
use crate::http::{Failure, Passing};
use crate::rule::control::Tell;

/// Bytes of a path that kdev is told: a line of a terminal.
const LONGEST_PATH: usize = 200;

/// A request that kdev is told of once it is answered, or once nobody waits for an answer any more,
/// which is when this is dropped.
pub(super) struct Served {
    entry: Arc<Entry>,
    method: String,
    path: String,
    began: Instant,
    status: Option<StatusCode>,
}

impl Served {
    /// For a request of `entry`, where its kdev wants to know.
    pub(super) fn of(entry: &Arc<Entry>, passing: &Passing) -> Option<Self> {
        // What follows the path may be secret. Paths are ASCII.
        let path = passing.uri().path();
        entry.log.then(|| Self {
            entry: entry.clone(),
            method: passing.method().to_string(),
            path: path[..path.len().min(LONGEST_PATH)].to_owned(),
            began: Instant::now(),
            status: None,
        })
    }

    /// Its caller is answered with `status`.
    pub(super) fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Its caller is answered with `failure`, unless it is its leaving that failed.
    pub(super) fn failed(self, failure: &Failure) {
        if !failure.is_of_who_left() {
            self.answered(failure.status);
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.entry.session.tell(&Tell::Served {
            id: self.entry.claim.id.clone(),
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            status: self.status.map_or(0, |status| status.as_u16()),
            took: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
    }
}
