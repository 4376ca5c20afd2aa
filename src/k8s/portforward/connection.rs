//! One upgraded connection to one pod, carrying many streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lock;
use super::outgoing::{Framing, Outgoing, Pair};
use super::spdy::{self, Frame, STATUS_PROTOCOL_ERROR, STATUS_REFUSED_STREAM};
use super::stream::{PodStream, Remains, StreamState};
use super::traffic::Traffic;
use super::v4;
use super::websocket::{self, Event};
use crate::dial::DialError;
use crate::task::Tasks;

/// Bytes of a receive buffer: four TLS records.
const BUFFER: usize = 64 << 10;
/// Room below which a new receive buffer is taken: a TLS record fills it.
const MIN_READ: usize = 16 << 10;

/// How long nothing may arrive before a ping goes out, and how long each ping may go unanswered.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Unanswered pings after which a connection is dead.
const PINGS_MISSED: u32 = 2;
/// How long a ping may take before the connection gets no new streams, as a multiple of the round
/// trip and at least this long.
const SUSPECT_AFTER: Duration = Duration::from_millis(400);

/// Bytes sent since something last arrived, above which silence proves nothing: a ping waits
/// behind them in the pipe, and the pod may simply not read.
const SILENT_UPLOAD: u64 = 64 << 10;

/// Workers to which servers hand the frames of a connection, by the stream's id modulo this
/// (`FRAME_WORKERS` of spdystream, which every kubelet uses).
const SERVER_WORKERS: u32 = 5;

/// Ids of refused streams whose end is still awaited. The server ends each within a round trip.
const MAX_LEAVING: usize = 256;

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

/// What the connection's tasks and its streams share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outgoing: Outgoing,
    pub(super) traffic: Arc<Traffic>,
    streams: Mutex<Streams>,
    /// Streams that are open, for a look without a lock.
    live: AtomicUsize,
    /// The reader waits for full streams to be read.
    stalled: AtomicBool,
    resumed: Notify,
    closed: AtomicBool,
    /// Cancelled together with `closed`.
    over: CancellationToken,
    /// When the oldest unanswered ping went out, in ms since `epoch` plus one; 0 for none.
    ping_sent: AtomicU64,
    /// The last round trip in microseconds; 0 before the first.
    round_trip: AtomicU64,
    epoch: Instant,
    idle_since: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct Streams {
    /// Both ids of a pair lead to it.
    by_id: HashMap<u32, Arc<StreamState>>,
    /// Refused streams whose owners left before the server said how it ended them.
    leaving: HashMap<u32, Arc<StreamState>>,
    lost: Option<DialError>,
    /// No stream is added any more: the server said GOAWAY, or a part of it is stuck.
    refused: bool,
}

/// A handle to a connection, which lives until it fails or is closed.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
}

impl Connection {
    /// Starts to speak SPDY over an upgraded `io`.
    pub(super) fn start<T>(io: T, framing: Framing, traffic: Arc<Traffic>, tasks: &Tasks) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::launch(io, framing, traffic, tasks, None)
    }

    fn launch<T>(
        io: T,
        framing: Framing,
        traffic: Arc<Traffic>,
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
            traffic,
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
            let why = result.map_or_else(|e| e.to_string(), |()| "kdev closed it".to_owned());
            writer.lose(&lost(&why));
        });
        let reader = shared.clone();
        tasks.spawn(async move {
            let why = Reader::new(&reader, framing).run(read).await;
            reader.lose(&lost(&why));
        });
        shared.traffic.connection_opened();
        Self { shared }
    }

    /// Opens a stream to the pod's `port`. Nothing is waited for. `None` when the connection
    /// takes no more.
    pub(super) fn open(&self, port: u16, target: &str) -> Option<PodStream> {
        let shared = &self.shared;
        let mut opened = None;
        shared.outgoing.open(port, |pair| {
            let mut streams = lock(&shared.streams);
            if streams.lost.is_some() || streams.refused {
                return;
            }
            let state = Arc::new(StreamState::new(pair, target.to_owned()));
            streams.by_id.insert(pair.error, state.clone());
            streams.by_id.insert(pair.data, state.clone());
            opened = Some(state);
        })?;
        let state = opened?;
        shared.live.fetch_add(1, Ordering::Relaxed);
        shared.traffic.stream_opened();
        Some(PodStream::new(state, shared.clone()))
    }

    /// Starts to speak `v4.channel.k8s.io` over an upgraded `io`, which is one stream.
    pub(super) fn start_v4<T>(
        io: T,
        target: &str,
        traffic: Arc<Traffic>,
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
        let connection = Self::launch(io, Framing::V4, traffic, tasks, Some(state.clone()));
        connection.shared.live.fetch_add(1, Ordering::Relaxed);
        connection.shared.traffic.stream_opened();
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

fn lost(why: &str) -> DialError {
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
        self.traffic.stream_closed();
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
    fn judge(&self, state: &StreamState) {
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
    fn lose(&self, why: &DialError) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.over.cancel();
        self.outgoing.abort();
        self.traffic.connection_closed();
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

    fn is_suspect(&self) -> bool {
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

    fn since_epoch(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Waits while a stream's queue is full.
    async fn wait_until_read(&self) {
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

/// The receiving half: reads, takes apart, hands out.
struct Reader<'a> {
    shared: &'a Shared,
    websocket: Option<websocket::Decoder>,
    spdy: spdy::Decoder,
    v4: Option<v4::Demux>,
    /// A stream got full while the current buffer was handed out.
    any_full: bool,
    pings_missed: u32,
    next_ping: u32,
    /// When the newest ping went out.
    ping_clock: Instant,
    /// What had been sent when something last arrived.
    sent_at_life: u64,
}

impl<'a> Reader<'a> {
    fn new(shared: &'a Shared, framing: Framing) -> Self {
        Self {
            shared,
            websocket: (framing != Framing::Plain).then(websocket::Decoder::new),
            spdy: spdy::Decoder::new(),
            v4: (framing == Framing::V4).then(v4::Demux::new),
            any_full: false,
            pings_missed: 0,
            next_ping: 1,
            ping_clock: Instant::now(),
            sent_at_life: 0,
        }
    }

    /// Runs until the connection ends; returns why it did.
    async fn run(mut self, mut io: impl AsyncRead + Unpin) -> String {
        let mut buffer = BytesMut::new();
        // The first ping measures the round trip.
        self.ping();
        let timer = tokio::time::sleep(PING_INTERVAL);
        tokio::pin!(timer);
        let mut life = Instant::now();
        loop {
            if buffer.capacity() < MIN_READ {
                buffer.reserve(BUFFER);
            }
            tokio::select! {
                biased;
                () = self.shared.over.cancelled() => return "it was closed".to_owned(),
                read = io.read_buf(&mut buffer) => match read {
                    Ok(0) => return "the API server closed it".to_owned(),
                    Ok(_) => {
                        life = Instant::now();
                        self.alive();
                        if let Err(why) = self.take(buffer.split().freeze()) {
                            return why;
                        }
                        if std::mem::take(&mut self.any_full) {
                            self.shared.wait_until_read().await;
                            life = Instant::now();
                            self.alive();
                        }
                    }
                    Err(e) => return e.to_string(),
                },
                () = &mut timer => {
                    let idle = life.elapsed();
                    let due = if idle < PING_INTERVAL {
                        life + PING_INTERVAL
                    } else {
                        if self.pings_missed == PINGS_MISSED && !self.uploads_silently() {
                            return format!("nothing was heard for {} s", idle.as_secs());
                        }
                        self.pings_missed = PINGS_MISSED.min(self.pings_missed + 1);
                        self.ping();
                        // From now, not from the last sign of life: a laptop that slept gives
                        // the path its full time to answer.
                        Instant::now() + PING_INTERVAL
                    };
                    timer.as_mut().reset(due);
                }
            }
        }
    }

    /// Any byte is a sign of life.
    fn alive(&mut self) {
        self.pings_missed = 0;
        self.sent_at_life = self.shared.outgoing.accepted();
        self.shared.ping_sent.store(0, Ordering::Relaxed);
    }

    /// Whether so much was sent since the last sign of life that pings may be stuck behind it.
    /// Then only TCP can tell a dead path from a pod that does not read.
    fn uploads_silently(&self) -> bool {
        self.shared.outgoing.accepted() - self.sent_at_life > SILENT_UPLOAD
    }

    fn ping(&mut self) {
        let sent = self.shared.since_epoch().as_millis() as u64 + 1;
        // The oldest unanswered ping counts.
        let _ =
            self.shared
                .ping_sent
                .compare_exchange(0, sent, Ordering::Relaxed, Ordering::Relaxed);
        self.ping_clock = Instant::now();
        self.shared.outgoing.ping(self.next_ping);
        self.next_ping = self.next_ping.wrapping_add(2);
    }

    /// Hands out a buffer.
    fn take(&mut self, mut input: bytes::Bytes) -> Result<(), String> {
        let Some(mut decoder) = self.websocket.take() else {
            return self.take_spdy(input);
        };
        while let Some(event) = decoder.next(&mut input).map_err(|e| e.to_string())? {
            match event {
                Event::Data { payload, first } => match &mut self.v4 {
                    Some(v4) => {
                        if let Some((stream, payload)) = v4.take(payload, first) {
                            self.take_frame(Frame::Data {
                                stream,
                                payload,
                                fin: false,
                            });
                        }
                    }
                    None => self.take_spdy(payload)?,
                },
                Event::Ping(payload) => self.shared.outgoing.pong(&payload),
                Event::Pong(_) => self.pong(),
                Event::Close(code, reason) => {
                    if self.v4.is_some() && code == 1000 {
                        // The end of the one stream, after its last byte and its error text.
                        for stream in [v4::DATA, v4::ERROR] {
                            let payload = bytes::Bytes::new();
                            self.take_frame(Frame::Data {
                                stream,
                                payload,
                                fin: true,
                            });
                        }
                    }
                    return Err(
                        format!("the API server closed it with code {code} {reason}")
                            .trim_end()
                            .to_owned(),
                    );
                }
            }
        }
        self.websocket = Some(decoder);
        Ok(())
    }

    fn take_spdy(&mut self, mut input: bytes::Bytes) -> Result<(), String> {
        while let Some(frame) = self.spdy.next(&mut input).map_err(|e| e.to_string())? {
            self.take_frame(frame);
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame) {
        match frame {
            Frame::Data {
                stream,
                payload,
                fin,
            } => {
                // A stream whose owner is gone was reset; what was on its way is dropped.
                let Some(state) = self.stream(stream) else {
                    return;
                };
                if stream == state.pair.error {
                    state.error_text(&payload, fin);
                    if fin {
                        self.shared.judge(&state);
                    }
                    return;
                }
                if !payload.is_empty() {
                    self.shared.traffic.received(payload.len() as u64);
                    self.any_full |= state.push(payload);
                }
                if fin {
                    state.end();
                    self.shared.judge(&state);
                }
            }
            Frame::Reset { stream, .. } => {
                let Some(state) = self.stream(stream) else {
                    return;
                };
                if stream == state.pair.error {
                    state.error_text(b"", true);
                } else {
                    state.reset();
                }
                self.shared.judge(&state);
            }
            Frame::SynReply { stream, fin } | Frame::Headers { stream, fin } => {
                let Some(state) = self.stream(stream) else {
                    return;
                };
                let is_error = stream == state.pair.error;
                if is_error {
                    state.error_accepted();
                }
                if fin && is_error {
                    state.error_text(b"", true);
                } else if fin {
                    state.end();
                }
            }
            Frame::Ping { id } if id % 2 == 0 => self.shared.outgoing.ping(id),
            Frame::Ping { .. } => self.pong(),
            Frame::SynStream { stream } => {
                let status = if stream % 2 == 0 {
                    STATUS_REFUSED_STREAM
                } else {
                    STATUS_PROTOCOL_ERROR
                };
                self.shared.outgoing.reset(stream, status);
            }
            Frame::GoAway => lock(&self.shared.streams).refused = true,
            Frame::Ignored => {}
        }
    }

    fn pong(&self) {
        let micros = self.ping_clock.elapsed().as_micros() as u64;
        self.shared
            .round_trip
            .store(micros.max(1), Ordering::Relaxed);
    }

    fn stream(&self, id: u32) -> Option<Arc<StreamState>> {
        let streams = lock(&self.shared.streams);
        let leaving = || streams.leaving.get(&id);
        streams.by_id.get(&id).or_else(leaving).cloned()
    }
}
