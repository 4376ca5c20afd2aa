//! The sending half of a connection: frames of all streams gather in one buffer, which one task
//! writes out as a whole. So streams share system calls and TLS records when the network is the
//! bottleneck, and wait for nobody when it is not.

use std::io::IoSlice;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::lock;
use super::parts::Parts;
use super::spdy::{Encoder, MAX_DATA, StreamType, encode};
use super::v4;
use super::websocket::{self, HEADER_ROOM, Opcode};

/// Bytes that may wait for the network before streams have to: enough for one write to be on its
/// way while the next one gathers, on a path of 10 Gbit/s and 0.2 ms.
const HIGH_WATER: usize = 256 << 10;

/// How the SPDY bytes of a connection travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// As they are, after `Upgrade: SPDY/3.1`.
    Plain,
    /// In binary WebSocket messages whose boundaries mean nothing.
    WebSocket,
    /// No SPDY: `v4.channel.k8s.io`, one stream whose data are the messages of channel 0.
    V4,
}

/// Largest message that is sent over `v4.channel.k8s.io`, below the 32 MiB that servers take: all
/// that may wait, so that one write of a tunnel is one message.
const MAX_MESSAGE: usize = HIGH_WATER;

/// Frames on their way to the network.
#[derive(Debug)]
pub(super) struct Outgoing {
    framing: Framing,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug)]
struct State {
    /// Always starts with [`HEADER_ROOM`] bytes for the frame that will wrap it.
    buffer: BytesMut,
    /// WebSocket control frames; they stand outside the SPDY bytes.
    control: BytesMut,
    encoder: Encoder,
    next_id: u32,
    waiting: Vec<Waker>,
    /// Set once: nothing is taken any more; what is there still goes out.
    closing: bool,
    /// Payload bytes handed over since the connection began.
    accepted: u64,
}

/// The ids of a new pair of streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) error: u32,
    pub(super) data: u32,
}

impl Outgoing {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            framing,
            state: Mutex::new(State {
                buffer: empty_buffer(),
                control: BytesMut::new(),
                encoder: Encoder::new(),
                next_id: 1,
                waiting: Vec::new(),
                closing: false,
                accepted: 0,
            }),
            ready: Notify::new(),
        }
    }

    /// Opens a pair of streams to the pod's `port`; `None` when the connection takes no more.
    ///
    /// `register` runs before the frames can reach the network, so that no answer comes early. With
    /// its `None` nothing is opened.
    pub(super) fn open<T>(&self, port: u16, register: impl FnOnce(Pair) -> Option<T>) -> Option<T> {
        let mut state = lock(&self.state);
        // Ids only grow: after two thousand million of them a connection has served its time.
        if state.closing || state.next_id > super::spdy::MAX_STREAM_ID - 4 {
            return None;
        }
        let pair = Pair {
            error: state.next_id,
            data: state.next_id + 2,
        };
        let registered = register(pair)?;
        state.next_id += 4;
        let State {
            buffer, encoder, ..
        } = &mut *state;
        encoder.syn_stream(buffer, pair.error, StreamType::Error, port, pair.error);
        encoder.syn_stream(buffer, pair.data, StreamType::Data, port, pair.error);
        drop(state);
        self.ready.notify_one();
        Some(registered)
    }

    /// Takes as much of `payload` as fits; [`Poll::Pending`] when nothing does, `Ready(None)`
    /// when the connection takes nothing any more. What is given together shares frames.
    pub(super) fn poll_data(
        &self,
        cx: &mut Context<'_>,
        id: u32,
        payload: &[IoSlice<'_>],
    ) -> Poll<Option<usize>> {
        let mut state = lock(&self.state);
        if state.closing {
            return Poll::Ready(None);
        }
        let room = HIGH_WATER.saturating_sub(state.buffer.len());
        if room == 0 {
            if !state.waiting.iter().any(|w| w.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let given: usize = payload.iter().map(|slice| slice.len()).sum();
        let taken = given.min(room);
        let (mut left, mut parts) = (taken, Parts::new(payload));
        while left > 0 {
            let out = &mut state.buffer;
            if self.framing == Framing::V4 {
                let chunk = left.min(MAX_MESSAGE);
                websocket::put_frame_of(out, Opcode::Binary, chunk + 1, rand::random(), |out| {
                    out.put_u8(v4::DATA as u8);
                    parts.put(out, chunk);
                });
                left -= chunk;
            } else {
                let chunk = left.min(MAX_DATA);
                encode::data_header(out, id, chunk, false);
                parts.put(out, chunk);
                left -= chunk;
            }
        }
        state.accepted += taken as u64;
        drop(state);
        self.ready.notify_one();
        Poll::Ready(Some(taken))
    }

    /// Ends a stream in order. Small frames like this one are taken whatever waits: their number
    /// is bounded by the number of streams. `v4.channel.k8s.io` has no word for it.
    pub(super) fn finish(&self, id: u32) {
        if self.framing != Framing::V4 {
            self.put(|out| encode::data_header(out, id, 0, true));
        }
    }

    /// Gives a stream up.
    pub(super) fn reset(&self, id: u32, status: u32) {
        if self.framing == Framing::V4 {
            self.close();
        } else {
            self.put(|out| encode::rst_stream(out, id, status));
        }
    }

    /// Sends a ping, ours (odd) or the answer to the server's (even).
    pub(super) fn ping(&self, id: u32) {
        if self.framing == Framing::V4 {
            self.put(|out| {
                websocket::put_frame(out, Opcode::Ping, &id.to_be_bytes(), &[], rand::random());
                // The runtime's idle limit counts messages only, empty ones too.
                websocket::put_frame(out, Opcode::Binary, &[], &[], rand::random());
            });
        } else {
            self.put(|out| encode::ping(out, id));
        }
    }

    /// Answers a WebSocket ping. Only the newest unsent answer is kept (RFC 6455, 5.5.3).
    pub(super) fn pong(&self, payload: &[u8]) {
        let mut state = lock(&self.state);
        state.control.clear();
        websocket::put_frame(
            &mut state.control,
            Opcode::Pong,
            payload,
            &[],
            rand::random(),
        );
        drop(state);
        self.ready.notify_one();
    }

    /// Says goodbye after what is waiting, and takes nothing more.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        if !state.closing && self.framing != Framing::V4 {
            encode::goaway(&mut state.buffer);
        }
        Self::stop(&mut state);
        drop(state);
        self.ready.notify_one();
    }

    /// Drops what is waiting: the connection is lost.
    pub(super) fn abort(&self) {
        let mut state = lock(&self.state);
        Self::stop(&mut state);
        state.buffer = empty_buffer();
        drop(state);
        self.ready.notify_one();
    }

    /// Payload bytes handed over since the connection began.
    pub(super) fn accepted(&self) -> u64 {
        lock(&self.state).accepted
    }

    fn stop(state: &mut State) {
        state.closing = true;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    fn put(&self, encode: impl FnOnce(&mut BytesMut)) {
        let mut state = lock(&self.state);
        if !state.closing {
            encode(&mut state.buffer);
            drop(state);
            self.ready.notify_one();
        }
    }

    /// Writes everything to `io` until the connection closes. Run it once.
    pub(super) async fn run(&self, mut io: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut spare = empty_buffer();
        loop {
            let (control, closing) = {
                let mut state = lock(&self.state);
                std::mem::swap(&mut state.buffer, &mut spare);
                state.waiting.drain(..).for_each(Waker::wake);
                (state.control.split(), state.closing)
            };
            if spare.len() > HEADER_ROOM {
                let start = match self.framing {
                    Framing::Plain | Framing::V4 => HEADER_ROOM,
                    Framing::WebSocket => {
                        websocket::frame_in_place(&mut spare, Opcode::Binary, rand::random())
                    }
                };
                io.write_all(&spare[start..]).await?;
            }
            io.write_all(&control).await?;
            if closing {
                if self.framing != Framing::Plain {
                    let mut goodbye = BytesMut::new();
                    // 1000, a normal end (RFC 6455, 7.4.1).
                    let code = 1000u16.to_be_bytes();
                    websocket::put_frame(&mut goodbye, Opcode::Close, &code, &[], rand::random());
                    io.write_all(&goodbye).await?;
                }
                io.flush().await?;
                return io.shutdown().await;
            }
            let idle = spare.len() == HEADER_ROOM && control.is_empty();
            recycle(&mut spare);
            if idle {
                self.ready.notified().await;
            } else {
                io.flush().await?;
            }
        }
    }
}

/// Bytes of buffer that an idle connection keeps; a burst's larger buffer is given back.
const KEPT: usize = 16 << 10;

fn empty_buffer() -> BytesMut {
    BytesMut::zeroed(HEADER_ROOM)
}

fn recycle(buffer: &mut BytesMut) {
    if buffer.len() <= KEPT && buffer.capacity() > 4 * KEPT {
        *buffer = empty_buffer();
    }
    buffer.truncate(HEADER_ROOM);
}
