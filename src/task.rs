//! Tasks that somebody owns, so that shutting down can wait for them.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks that ends in two steps: *drain* asks them to finish what they began, *kill*
/// drops what is left.
///
/// Cloning is shallow: all clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    drain: CancellationToken,
    kill: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A group inside this one: it drains and is killed with its parent, and the parent waits
    /// for its tasks, but it can be ended on its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            drain: self.drain.child_token(),
            kill: self.kill.child_token(),
            tracker: self.tracker.clone(),
        }
    }

    /// Runs `future` until it ends or the group is killed.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let kill = self.kill.clone();
        // The one place that may spawn: everything else goes through here.
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(self.tracker.track_future(async move {
            tokio::select! {
                biased;
                () = kill.cancelled() => {}
                () = future => {}
            }
        }));
    }

    /// Completes when the group was asked to finish: accept nothing new from then on.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Whether the group was asked to finish.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Asks the tasks to finish, without waiting.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Drops every task of the group at its next await.
    pub fn kill(&self) {
        self.drain.cancel();
        self.kill.cancel();
    }

    /// Asks the tasks to finish, waits up to `grace`, then kills what is left and waits for that.
    /// Returns whether everything finished by itself.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.drain.cancel();
        self.tracker.close();
        let finished = tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok();
        self.kill.cancel();
        self.tracker.wait().await;
        finished
    }
}

/// Lets HTTP/2 connections run what they need inside a group.
#[derive(Clone, Debug)]
pub struct Executor(pub Tasks);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(async move {
            let _ = future.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_what_drains_and_kills_the_rest() {
        let tasks = Tasks::new();
        let polite = tasks.clone();
        tasks.spawn(async move { polite.draining().await });
        assert!(tasks.shutdown(Duration::from_secs(5)).await);

        let tasks = Tasks::new();
        tasks.spawn(std::future::pending());
        assert!(!tasks.shutdown(Duration::from_millis(10)).await);
    }

    #[tokio::test]
    async fn a_child_group_ends_alone() {
        let tasks = Tasks::new();
        let child = tasks.child();
        child.spawn(std::future::pending());
        child.kill();
        assert!(!tasks.is_draining());
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
    }
}
