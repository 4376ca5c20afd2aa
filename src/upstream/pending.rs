//! Dials that wait for a proxy of this machine, counted by destination.
//!
//! A proxy of this machine may be another kdev whose own proxy is this one. Each answers only when
//! its own dial is through, so a loop shows as ever more dials to one destination that all wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::addr::Target;

/// Dials to one destination that may wait for a proxy of this machine at a time: more than a
/// browser or a test opens to one host at once, few enough that a loop ends at once.
pub(super) const MAX_SAME: usize = 64;

/// The dials that wait. Cloning is shallow.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<Mutex<HashMap<Target, usize>>>);

/// One dial that waits.
pub(super) struct Waiting {
    pending: Pending,
    target: Target,
}

impl Pending {
    /// Counts one more; `None` where there are too many.
    pub(super) fn enter(&self, target: &Target) -> Option<Waiting> {
        let mut counts = self.counts();
        let count = counts.entry(target.clone()).or_default();
        if *count >= MAX_SAME {
            return None;
        }
        *count += 1;
        Some(Waiting {
            pending: self.clone(),
            target: target.clone(),
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Target, usize>> {
        // Every change is whole when the lock is released.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut counts = self.pending.counts();
        if let Some(count) = counts.get_mut(&self.target) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.target);
            }
        }
    }
}
