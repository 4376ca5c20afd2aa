//! The receiving half of a connection: reads, takes apart, hands out, and tells when the path is
//! dead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::lock;
use super::outgoing::Framing;
use super::shared::Shared;
use super::spdy::{self, Frame, STATUS_PROTOCOL_ERROR, STATUS_REFUSED_STREAM};
use super::state::StreamState;
use super::v4;
use super::websocket::{self, Event};

/// Bytes of a receive buffer: four TLS records.
const BUFFER: usize = 64 << 10;
/// Room below which a new receive buffer is taken: a TLS record fills it.
const MIN_READ: usize = 16 << 10;

/// How long nothing may arrive before a ping goes out, and how long each ping may go unanswered.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Unanswered pings after which a connection is dead.
const PINGS_MISSED: u32 = 2;

/// Bytes sent since something last arrived, above which silence proves nothing: a ping waits
/// behind them in the pipe, and the pod may simply not read.
const SILENT_UPLOAD: u64 = 64 << 10;

/// The receiving half: reads, takes apart, hands out.
pub(super) struct Reader<'a> {
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
    pub(super) fn new(shared: &'a Shared, framing: Framing) -> Self {
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
    pub(super) async fn run(mut self, mut io: impl AsyncRead + Unpin) -> String {
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
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                        return "the API server closed it".to_owned();
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
                    self.shared.counters.traffic.received(payload.len() as u64);
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
