//! Owned tasks: whatever the simulation spawns ends when its owner stops.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A family of tasks that are cancelled together and can be waited for.
///
/// Nothing in the simulation drains: a killed API server does not say goodbye.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// A family of its own that also stops when this one does.
    pub(crate) fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: self.stop.child_token(),
        }
    }

    /// Runs `future` until it ends or the family is stopped.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled(future).await;
        });
    }

    /// Cancels every task at its next await.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the last task is gone; call [`Tasks::stop`] first.
    pub(crate) async fn stopped(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
