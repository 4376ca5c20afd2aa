//! `v4.channel.k8s.io`: the ports named in the URL, one connection into the pod each, dialled at
//! once; two channels per port, the channel number before every message.

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::copy::{Down, Up};
use super::wire::{Ended, Wire};
use super::{Forward, ws};

/// How channel numbers and payloads are written into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Binary,
    /// Text: a digit for the channel, then standard base64.
    Base64,
}

impl Coding {
    fn encode(self, channel: u8, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::Binary => ws::encode(ws::BINARY, &[&[channel], payload].concat()),
            Self::Base64 => {
                let mut text = vec![b'0'.wrapping_add(channel)];
                text.extend_from_slice(STANDARD.encode(payload).as_bytes());
                ws::encode(ws::TEXT, &text)
            }
        }
    }

    fn decode(self, message: &[u8]) -> Option<(u8, Bytes)> {
        let (&channel, payload) = message.split_first()?;
        match self {
            Self::Binary => Some((channel, Bytes::copy_from_slice(payload))),
            Self::Base64 => Some((
                channel.checked_sub(b'0')?,
                STANDARD.decode(payload).ok()?.into(),
            )),
        }
    }
}

pub(super) async fn serve<IO>(io: IO, forward: Arc<Forward>, ports: Vec<u16>, coding: Coding)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let wire = Arc::new(Wire::new(write, forward.world.clone()));
    let mut channels = Vec::new();
    let mut copies = JoinSet::new();
    for (index, &port) in ports.iter().enumerate() {
        // Two channels a port: the number wraps above 127 ports, as the real one does.
        let data = (2 * index) as u8;
        for channel in [data, data.wrapping_add(1)] {
            // A failed send is a client that left: the reader below notices.
            let _ = wire
                .send(&coding.encode(channel, &port.to_le_bytes()))
                .await;
        }
        let (up, incoming) = mpsc::channel(1);
        channels.push(up);
        let down = Channel {
            wire: wire.clone(),
            number: data,
            coding,
        };
        let forward = forward.clone();
        copies.spawn(async move { copy(&forward, port, Incoming(incoming), down).await });
    }
    let all_done = async { while copies.join_next().await.is_some() {} };
    let ended = tokio::select! {
        () = all_done => Ended::Closed,
        ended = wire.tampered() => ended,
        _ = receive(BufReader::new(read), &wire, channels, coding, &forward) => Ended::Closed,
    };
    if ended == Ended::Closed {
        wire.close(&ws::normal_close()).await;
    }
    // The copies get their grace although the client is gone, as the runtime's do.
    forward
        .world
        .node
        .spawn(async move { while copies.join_next().await.is_some() {} });
}

/// One port's connection into the pod.
async fn copy<W>(forward: &Forward, port: u16, mut up: Incoming, mut down: Channel<W>)
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let _counted = forward.world.counters.streams.enter();
    if let Err(text) = forward.connect(port, &mut up, &mut down).await {
        let message = down
            .coding
            .encode(down.number.wrapping_add(1), text.as_bytes());
        // Nobody reads it when this fails.
        let _ = down.wire.send(&message).await;
    }
}

/// Reads messages and hands them to their channels, waiting for each: one pod that does not read
/// holds up all.
async fn receive<R, W>(
    mut from: R,
    wire: &Wire<W>,
    channels: Vec<mpsc::Sender<Bytes>>,
    coding: Coding,
    forward: &Forward,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    while let Some(frame) = ws::read(&mut from).await? {
        match frame.opcode {
            ws::CLOSE => break,
            ws::PING if forward.world.faults.api().deaf_to_pings => {}
            ws::PING => wire.send(&ws::encode(ws::PONG, &frame.payload)).await?,
            ws::PONG => {}
            // Text, binary and continuation alike: each frame is taken for a whole message.
            _ => {
                let Some((channel, bytes)) = coding.decode(&frame.payload) else {
                    continue;
                };
                // Error channels and unknown ones are not read from.
                if channel % 2 == 0
                    && let Some(up) = channels.get(usize::from(channel / 2))
                {
                    // A copy that ended takes no more, without harm to the others.
                    let _ = up.send(bytes).await;
                }
            }
        }
    }
    Ok(())
}

struct Incoming(mpsc::Receiver<Bytes>);

impl Up for Incoming {
    async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// A data channel, towards the client.
struct Channel<W> {
    wire: Arc<Wire<W>>,
    number: u8,
    coding: Coding,
}

impl<W> Down for Channel<W>
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire
            .send(&self.coding.encode(self.number, bytes))
            .await
    }
}
