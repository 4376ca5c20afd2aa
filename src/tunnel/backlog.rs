//! How much waits to be written to a tunnel.
//!
//! HTTP/2 lets each stream queue what its window allows; with many streams and a line that takes
//! nothing that would be all of their windows. Streams of one tunnel therefore share this bound,
//! which also keeps the queue short that a small request has to go through beside bulk.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Bytes of an HTTP/2 frame's header (RFC 9113, 4.1).
const FRAME_HEADER: usize = 9;

/// Bytes that streams gave to a tunnel and that its line did not take yet.
#[derive(Debug)]
pub(super) struct Backlog {
    bytes: AtomicI64,
    most: AtomicI64,
    waiting: Mutex<Vec<Waker>>,
}

impl Backlog {
    /// A backlog of at most `most` bytes and one chunk.
    pub(super) fn new(most: u32) -> Self {
        Self {
            bytes: AtomicI64::new(0),
            most: AtomicI64::new(most.into()),
            waiting: Mutex::default(),
        }
    }

    /// Changes the bound.
    pub(super) fn limit(&self, most: u32) {
        self.most.store(most.into(), Ordering::Relaxed);
        self.wake();
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.most.load(Ordering::Relaxed)
    }

    /// Ready when a chunk may be queued.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        drop(waiting);
        // Room that came up before the waker stood in the list has woken nobody.
        if self.is_full() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// A chunk of so many bytes was queued.
    pub(super) fn queued(&self, bytes: usize) {
        let bytes = i64::try_from(bytes + FRAME_HEADER).unwrap_or(i64::MAX);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The line took so many bytes, frames of other kinds among them.
    pub(super) fn written(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before < bytes {
            // Frames that no stream queued as data: what is left of them must not count as room.
            self.bytes.fetch_max(0, Ordering::Relaxed);
        }
        // From half on: waking a stream for every few bytes costs more than it brings.
        if before - bytes <= self.most.load(Ordering::Relaxed) / 2 {
            self.wake();
        }
    }

    /// The tunnel is gone: whoever waits shall see that.
    pub(super) fn release(&self) {
        self.most.store(i64::MAX, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting());
        for waker in waiting {
            waker.wake();
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
