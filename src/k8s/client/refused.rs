//! Credentials that are refused for good: how long it is waited for better ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::ClientError;

/// How long the API server may refuse credentials, fresh ones too, until they count as revoked.
/// Some API servers ask another service about tokens and answer 401 while that restarts.
const REFUSED_LIMIT: Duration = Duration::from_secs(30);
/// How long credentials that have ended may fail to be renewed. A laptop that wakes up finds its
/// network within a minute or two; nobody wants to start all over for that.
const FAILING_LIMIT: Duration = Duration::from_secs(300);

/// Whether credentials are refused, since when, and whether that is the end.
#[derive(Debug)]
pub(super) struct Refused {
    /// Whether `since` is set, for the many who have nothing to change.
    any: AtomicBool,
    since: Mutex<Option<Instant>>,
    lost: watch::Sender<Option<ClientError>>,
}

impl Refused {
    pub(super) fn new() -> Self {
        Self {
            any: AtomicBool::new(false),
            since: Mutex::default(),
            lost: watch::Sender::new(None),
        }
    }

    /// The API server knows the user.
    pub(super) fn accepted(&self) {
        if self.any.swap(false, Ordering::Relaxed) {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The API server does not know the user, and there are no better credentials.
    pub(super) fn by_server(&self, error: &ClientError) {
        self.note(error, REFUSED_LIMIT);
    }

    /// The credentials have ended and there are no others.
    pub(super) fn by_renewal(&self, error: &ClientError) {
        self.note(error, FAILING_LIMIT);
    }

    fn note(&self, error: &ClientError, limit: Duration) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(true, Ordering::Relaxed);
        let passed = since.get_or_insert_with(Instant::now).elapsed();
        if error.is_final() || passed >= limit {
            self.lost.send_if_modified(|lost| {
                let first = lost.is_none();
                lost.get_or_insert_with(|| error.clone());
                first
            });
        }
    }

    /// Completes when the credentials are lost, with the last reason.
    pub(super) async fn lost(&self) -> ClientError {
        let mut lost = self.lost.subscribe();
        let found = lost.wait_for(Option::is_some).await;
        match found.ok().and_then(|error| error.clone()) {
            Some(error) => error,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }
}
