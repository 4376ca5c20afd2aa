//! What a connection's tasks and its streams share, and how one tells the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::lock;
use super::outgoing::Outgoing;
use super::state::{Remains, StreamState};
use crate::dial::DialError;

/// How long a ping may take before the connection gets no new streams, as a multiple of the round
/// trip and at least this long.
const SUSPECT_AFTER: Duration = Duration::from_millis(400);

/// Workers to which servers hand the frames of a connection, by the stream's id modulo this
/// (`FRAME_WORKERS` of spdystream, which every kubelet uses).
const SERVER_WORKERS: u32 = 5;

/// Ids of refused streams whose end is still awaited. The server ends each within a round trip.
const MAX_LEAVING: usize = 256;

/// What the connection's tasks and its streams share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outgoing: Outgoing,
    pub(super) counters: Arc<Counters>,
    pub(super) streams: Mutex<Streams>,
    /// Streams that are open, for a look without a lock.
    pub(super) live: AtomicUsize,
    /// The reader waits for full streams to be read.
    pub(super) stalled: AtomicBool,
    pub(super) resumed: Notify,
    pub(super) closed: AtomicBool,
    /// Cancelled together with `closed`.
    pub(super) over: CancellationToken,
    /// When the oldest unanswered ping went out, in ms since `epoch` plus one; 0 for none.
    pub(super) ping_sent: AtomicU64,
    /// The last round trip in microseconds; 0 before the first.
    pub(super) round_trip: AtomicU64,
    pub(super) epoch: Instant,
    pub(super) idle_since: Mutex<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Both ids of a pair lead to it.
    pub(super) by_id: HashMap<u32, Arc<StreamState>>,
    /// Refused streams whose owners left before the server said how it ended them.
    pub(super) leaving: HashMap<u32, Arc<StreamState>>,
    pub(super) lost: Option<DialError>,
    /// No stream is added any more: the server said GOAWAY, or a part of it is stuck.
    pub(super) refused: bool,
}

pub(super) fn lost(why: &str) -> DialError {
    DialError::Cluster {
        reason: format!("the connection to the pod through the API server was lost: {why}"),
        fix: String::new(),
    }
}

impl Shared {
    /// Lets the reader go on after a full stream was read.
    pub(super) fn resume(&self) {
        self.resumed.notify_one();
    }

    /// Drops what is known of a stream whose owner is gone.
    pub(super) fn forget(&self, state: &Arc<StreamState>) {
        let mut streams = lock(&self.streams);
        streams.by_id.remove(&state.pair.error);
        streams.by_id.remove(&state.pair.data);
        if state.awaits_end() && streams.leaving.len() < MAX_LEAVING {
            streams.leaving.insert(state.pair.error, state.clone());
            streams.leaving.insert(state.pair.data, state.clone());
        }
        // One stream was all, or there will be no more.
        let over = streams.refused && streams.by_id.is_empty();
        drop(streams);
        *lock(&self.idle_since) = Instant::now();
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.counters.traffic.stream_closed();
        if over {
            self.outgoing.close();
        }
        if state.full.load(Ordering::Acquire) {
            self.resume();
        }
    }

    /// Takes no new streams from now on, and closes with the last one it has.
    pub(super) fn retire(&self, why: &str) {
        let mut streams = lock(&self.streams);
        if std::mem::replace(&mut streams.refused, true) {
            return;
        }
        let over = streams.by_id.is_empty();
        drop(streams);
        tracing::debug!(why, "the connection takes no new streams");
        if over {
            self.outgoing.close();
        }
    }

    /// Looks what a stream that the runtime ended left behind. The server hands the frames of a
    /// stream to one of a few workers, which waits until somebody reads them, or the stream is
    /// reset: with neither, the worker is stuck for as long as the connection lives, and with it
    /// every stream that is its part.
    pub(super) fn judge(&self, state: &StreamState) {
        if !state.awaits_end() {
            let leaving = &mut lock(&self.streams).leaving;
            leaving.remove(&state.pair.error);
            leaving.remove(&state.pair.data);
        }
        match state.remains() {
            Remains::Nothing => {}
            Remains::Perhaps => self.retire("a stream ended with bytes on the way"),
            Remains::Bytes => {
                self.retire("a refused stream left bytes behind");
                let stuck = |id: u32| id % SERVER_WORKERS == state.pair.data % SERVER_WORKERS;
                let mut victims: Vec<_> = lock(&self.streams).by_id.values().cloned().collect();
                victims.retain(|other| {
                    other.pair.data != state.pair.data && other.needs_worker(stuck)
                });
                // They would hang instead.
                let why = lost("the server is stuck on the bytes of a refused stream");
                victims.iter().for_each(|victim| victim.lose(&why));
            }
        }
    }

    /// Ends every stream with `why`. The first reason stays.
    pub(super) fn lose(&self, why: &DialError) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.over.cancel();
        self.outgoing.abort();
        self.counters.connection_closed();
        let states: Vec<_> = {
            let mut streams = lock(&self.streams);
            streams.lost = Some(why.clone());
            streams.by_id.values().cloned().collect()
        };
        for state in states {
            state.lose(why);
        }
        self.resume();
    }

    pub(super) fn is_suspect(&self) -> bool {
        let sent = self.ping_sent.load(Ordering::Relaxed);
        if sent == 0 {
            return false;
        }
        let round_trip = Duration::from_micros(self.round_trip.load(Ordering::Relaxed));
        let waited = self
            .since_epoch()
            .saturating_sub(Duration::from_millis(sent - 1));
        waited > SUSPECT_AFTER.max(round_trip * 4)
    }

    pub(super) fn since_epoch(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Waits while a stream's queue is full.
    pub(super) async fn wait_until_read(&self) {
        loop {
            let resumed = self.resumed.notified();
            let full = !self.closed.load(Ordering::Acquire)
                && lock(&self.streams)
                    .by_id
                    .values()
                    .any(|s| s.full.load(Ordering::Acquire));
            self.stalled.store(full, Ordering::Relaxed);
            if !full {
                return;
            }
            resumed.await;
        }
    }
}
