//! What the streams of a tunnel do together: how many there are, and how much of what came they read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The streams of one tunnel.
#[derive(Debug)]
pub(super) struct Tally {
    streams: AtomicUsize,
    /// Bytes that were read, once that is followed.
    read: AtomicU32,
    /// So many are worth a word.
    much: AtomicU32,
    said: Notify,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Counted(Arc<Tally>);

impl Tally {
    /// Of no streams; what they read is not followed before [`Tally::follow`].
    pub(super) fn new() -> Self {
        Self {
            streams: AtomicUsize::new(0),
            read: AtomicU32::new(0),
            much: AtomicU32::new(u32::MAX),
            said: Notify::new(),
        }
    }

    /// How many there are.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// From now on [`Tally::much_was_read`] is told of so many bytes.
    pub(super) fn follow(&self, much: u32) {
        self.much.store(much, Ordering::Relaxed);
    }

    /// Bytes that were read since they were last forgotten.
    pub(super) fn read(&self) -> u32 {
        self.read.load(Ordering::Relaxed)
    }

    /// Counts anew.
    pub(super) fn forget_read(&self) {
        self.read.store(0, Ordering::Relaxed);
    }

    /// Completes when so much was read as is followed. Cancel-safe.
    pub(super) async fn much_was_read(&self) {
        self.said.notified().await;
    }
}

impl Counted {
    pub(super) fn new(tally: &Arc<Tally>) -> Self {
        tally.streams.fetch_add(1, Ordering::Relaxed);
        Self(tally.clone())
    }

    /// This one read so many bytes.
    pub(super) fn read(&self, bytes: usize) {
        let Tally {
            read, much, said, ..
        } = &*self.0;
        let much = much.load(Ordering::Relaxed);
        if much == u32::MAX {
            return;
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = read.fetch_add(bytes, Ordering::Relaxed);
        if before < much && before.saturating_add(bytes) >= much {
            said.notify_one();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
