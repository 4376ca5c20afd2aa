//! Peers of whom nothing is known yet: a few at a time, the newest ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// So many at a time. One more cuts off the oldest, so that many who never speak keep nobody out: an
/// honest peer is through, or has its answer, long before as many newer ones have come.
#[derive(Clone, Debug)]
pub(super) struct Strangers {
    all: Arc<Mutex<VecDeque<oneshot::Sender<()>>>>,
    most: usize,
}

impl Strangers {
    /// None are there.
    #[must_use]
    pub(super) fn new(most: usize) -> Self {
        Self {
            all: Arc::default(),
            most,
        }
    }

    /// One more, until the result is dropped; completes when it is cut off for a newer one.
    pub(super) fn enter(&self) -> impl Future<Output = ()> + Send + use<> {
        let (cut, told) = oneshot::channel();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| !one.is_closed());
        if all.len() >= self.most
            && let Some(oldest) = all.pop_front()
        {
            // Gone meanwhile is as good.
            let _ = oldest.send(());
        }
        all.push_back(cut);
        async {
            if told.await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_goes_for_a_newer_one() {
        let strangers = Strangers::new(2);
        let mut first = Box::pin(strangers.enter());
        let second = strangers.enter();
        assert!(first.as_mut().now_or_never().is_none());
        // One that left by itself makes room.
        drop(second);
        let mut third = Box::pin(strangers.enter());
        assert!(first.as_mut().now_or_never().is_none());
        let mut fourth = Box::pin(strangers.enter());
        assert!(first.now_or_never().is_some());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
    }
}
