//! One upgraded connection to one pod, carrying many streams.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::lock;
use super::outgoing::{Framing, Outgoing, Pair};
use super::reader::Reader;
use super::shared::{Shared, Streams, lost};
use super::state::StreamState;
use super::stream::PodStream;
use crate::task::Tasks;

/// Why a connection takes no new streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    /// It takes new streams; the number of those it has.
    Fit(usize),
    /// A stream that moves much, or one that does not read, would delay others.
    Busy,
    /// A ping is late: the path may be gone.
    Suspect,
    /// It is over.
    Closed,
}

/// A handle to a connection, which lives until it fails or is closed.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
}

impl Connection {
    /// Starts to speak SPDY over an upgraded `io`.
    pub(super) fn start<T>(io: T, framing: Framing, counters: Arc<Counters>, tasks: &Tasks) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::launch(io, framing, counters, tasks, None)
    }

    fn launch<T>(
        io: T,
        framing: Framing,
        counters: Arc<Counters>,
        tasks: &Tasks,
        only: Option<Arc<StreamState>>,
    ) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let now = Instant::now();
        let mut streams = Streams::default();
        if let Some(state) = only {
            streams.by_id.insert(state.pair.data, state.clone());
            streams.by_id.insert(state.pair.error, state);
            streams.refused = true;
        }
        let shared = Arc::new(Shared {
            outgoing: Outgoing::new(framing),
            counters,
            streams: Mutex::new(streams),
            live: AtomicUsize::new(0),
            stalled: AtomicBool::new(false),
            resumed: Notify::new(),
            closed: AtomicBool::new(false),
            over: CancellationToken::new(),
            ping_sent: AtomicU64::new(0),
            round_trip: AtomicU64::new(0),
            epoch: now,
            idle_since: Mutex::new(now),
        });
        let (read, write) = tokio::io::split(io);
        let writer = shared.clone();
        tasks.spawn(async move {
            // A lost connection must not leave its writer behind on a full socket.
            let result = tokio::select! {
                result = writer.outgoing.run(write) => result,
                () = writer.over.cancelled() => return,
            };
            let why = result.map_or_else(|e| crate::io::why(&e), |()| "kdev closed it".to_owned());
            writer.lose(&lost(&why));
        });
        let reader = shared.clone();
        tasks.spawn(async move {
            let why = Reader::new(&reader, framing).run(read).await;
            reader.lose(&lost(&why));
        });
        shared.counters.connection_opened();
        Self { shared }
    }

    /// Opens a stream to the pod's `port`. Nothing is waited for. `None` when the connection
    /// takes no more.
    pub(super) fn open(&self, port: u16, target: &str) -> Option<PodStream> {
        let shared = &self.shared;
        let state = shared.outgoing.open(port, |pair| {
            let mut streams = lock(&shared.streams);
            if streams.lost.is_some() || streams.refused {
                return None;
            }
            let state = Arc::new(StreamState::new(pair, target.to_owned()));
            streams.by_id.insert(pair.error, state.clone());
            streams.by_id.insert(pair.data, state.clone());
            Some(state)
        })?;
        shared.live.fetch_add(1, Ordering::Relaxed);
        shared.counters.traffic.stream_opened();
        Some(PodStream::new(state, shared.clone()))
    }

    /// Starts to speak `v4.channel.k8s.io` over an upgraded `io`, which is one stream.
    pub(super) fn start_v4<T>(
        io: T,
        target: &str,
        counters: Arc<Counters>,
        tasks: &Tasks,
    ) -> PodStream
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        // Channels are numbered like this on the wire: the data's, then the error's.
        let state = Arc::new(StreamState::new(
            Pair { data: 0, error: 1 },
            target.to_owned(),
        ));
        let connection = Self::launch(io, Framing::V4, counters, tasks, Some(state.clone()));
        connection.shared.live.fetch_add(1, Ordering::Relaxed);
        connection.shared.counters.traffic.stream_opened();
        PodStream::new(state, connection.shared)
    }

    /// Whether new streams should go here.
    pub(super) fn fitness(&self) -> Fitness {
        let shared = &self.shared;
        if shared.closed.load(Ordering::Acquire) {
            return Fitness::Closed;
        }
        if shared.is_suspect() {
            return Fitness::Suspect;
        }
        if shared.stalled.load(Ordering::Relaxed) {
            return Fitness::Busy;
        }
        let streams = lock(&shared.streams);
        if streams.refused || streams.lost.is_some() {
            return Fitness::Closed;
        }
        if streams.by_id.values().any(|stream| stream.is_bulk()) {
            return Fitness::Busy;
        }
        Fitness::Fit(streams.by_id.len() / 2)
    }

    /// Streams that are open.
    pub(super) fn live(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// How long no stream has been open; `None` while one is.
    pub(super) fn idle(&self) -> Option<Duration> {
        (self.live() == 0).then(|| lock(&self.shared.idle_since).elapsed())
    }

    /// The last measured round trip.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        match self.shared.round_trip.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// Says goodbye and ends the connection; streams that are open fail.
    pub(super) fn close(&self) {
        self.shared.outgoing.close();
    }
}
