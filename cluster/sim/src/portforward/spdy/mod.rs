//! The server's side of SPDY/3.1 as port-forward uses it, with the habits of the Go library that
//! real nodes run: five workers by stream id, fifty frames of queue each, no flow control.

mod dictionary;
mod frame;
mod headers;
mod pairs;
mod stream;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadHalf};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use self::frame::Frame;
use self::headers::{Deflater, Inflater};
use self::stream::Stream;
use super::Forward;
use super::wire::{Ended, Wire};

/// Workers that frames are spread over by stream id, so that one stream's keep their order.
const WORKERS: u32 = 5;

/// Frames that wait for one worker. When a worker is stuck and its queue is full, the reader is
/// stuck too, and with it every stream and every ping.
const QUEUE: usize = 50;

/// Serves one SPDY connection until the client leaves or a fault ends it.
pub(super) async fn serve<IO>(io: IO, forward: Arc<Forward>) -> Ended
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let Ok(deflater) = Deflater::new() else {
        return Ended::Closed;
    };
    let connection = Arc::new(Connection {
        wire: Wire::new(write, forward.world.clone()),
        deflater: AsyncMutex::new(deflater),
        streams: Mutex::default(),
        last: AtomicU32::new(0),
        client_said_goodbye: AtomicBool::new(false),
        forward,
    });
    let ended = connection.clone().run(read).await;
    connection.close_streams();
    if ended == Ended::Closed {
        // A goodbye is not answered with one.
        let said = connection.client_said_goodbye.load(Ordering::Relaxed);
        let last = connection.last.load(Ordering::Relaxed);
        let goodbye = if said {
            Vec::new()
        } else {
            frame::go_away(last)
        };
        connection.wire.close(&goodbye).await;
    }
    ended
}

/// What the workers, the pairing and the forwarding tasks of one connection share.
struct Connection<W> {
    forward: Arc<Forward>,
    wire: Wire<W>,
    deflater: AsyncMutex<Deflater>,
    streams: Mutex<HashMap<u32, Arc<Stream>>>,
    /// The highest stream id accepted.
    last: AtomicU32,
    client_said_goodbye: AtomicBool,
}

impl<W> Connection<W>
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    async fn run<R>(self: Arc<Self>, read: ReadHalf<R>) -> Ended
    where
        R: AsyncRead,
    {
        let (accepted, pairing) = mpsc::channel(1);
        let (queues, workers): (Vec<_>, Vec<_>) =
            (0..WORKERS).map(|_| mpsc::channel(QUEUE)).unzip();
        let mut workers = workers.into_iter();
        let mut worker = || {
            let queue = workers.next();
            let accepted = accepted.clone();
            async {
                if let Some(queue) = queue {
                    self.work(queue, accepted).await
                }
            }
        };
        let working = async { tokio::join!(worker(), worker(), worker(), worker(), worker()) };
        tokio::select! {
            // How the client's bytes ended makes no difference to anybody.
            _ = self.read(BufReader::with_capacity(64 * 1024, read), queues) => Ended::Closed,
            _ = working => Ended::Closed,
            () = pairs::run(&self, pairing) => Ended::Closed,
            ended = self.wire.tampered() => ended,
        }
    }

    /// Reads frames and spreads them over the workers.
    async fn read<R>(&self, mut from: R, queues: Vec<mpsc::Sender<Frame>>) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
    {
        let mut inflater = Inflater::new();
        let mut turn = 0;
        while let Some(frame) = frame::read(&mut from, &mut inflater).await? {
            let worker = match &frame {
                Frame::SynStream { id, .. } if !self.accepts(*id) => {
                    self.send(&frame::reset(*id, frame::PROTOCOL_ERROR)).await;
                    continue;
                }
                Frame::SynStream {
                    id,
                    fin,
                    unidirectional,
                    headers,
                } => {
                    let stream = Stream::new(*id, headers.clone(), *unidirectional);
                    if *fin {
                        stream.close_remote();
                    }
                    self.streams().insert(*id, Arc::new(stream));
                    id % WORKERS
                }
                Frame::Data { id, .. } | Frame::Reset { id } => id % WORKERS,
                Frame::GoAway => {
                    self.client_said_goodbye.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Frame::Ping { .. } | Frame::Ignored => {
                    let mine = turn;
                    turn = (turn + 1) % WORKERS;
                    mine
                }
            };
            if queues[worker as usize].send(frame).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Ids must rise; which parity they have is not checked.
    fn accepts(&self, id: u32) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        let rises = id <= 0x7fff_ffff && (last == 0 || id >= last + 2);
        if rises {
            self.last.store(id, Ordering::Relaxed);
        }
        rises
    }

    /// Handles one worker's frames in order.
    async fn work(&self, mut queue: mpsc::Receiver<Frame>, accepted: mpsc::Sender<Arc<Stream>>) {
        while let Some(frame) = queue.recv().await {
            match frame {
                Frame::SynStream { id, .. } => self.open(id, &accepted).await,
                Frame::Data { id, fin, data } => {
                    let Some(stream) = self.stream(id).filter(|s| s.is_replied()) else {
                        continue;
                    };
                    if !data.is_empty() {
                        stream.deliver(data).await;
                    }
                    if fin {
                        self.remote_finished(&stream);
                    }
                }
                Frame::Reset { id } => {
                    let removed = self.streams().remove(&id);
                    if let Some(stream) = removed {
                        stream.close_remote();
                        stream.finish();
                    }
                }
                Frame::Ping { id } if id % 2 == 1 => {
                    if !self.forward.world.faults.api().deaf_to_pings {
                        self.send(&frame::ping(id)).await;
                    }
                }
                Frame::Ping { .. } | Frame::GoAway | Frame::Ignored => {}
            }
        }
    }

    /// Takes or rejects a new stream by its headers.
    async fn open(&self, id: u32, accepted: &mpsc::Sender<Arc<Stream>>) {
        let Some(stream) = self.stream(id) else {
            return;
        };
        if !pairs::is_acceptable(&stream.headers) {
            self.reset(&stream).await;
            return;
        }
        if accepted.send(stream.clone()).await.is_err() {
            return;
        }
        let mut deflater = self.deflater.lock().await;
        if let Ok(block) = deflater.empty_block() {
            self.send(&frame::syn_reply(id, &block)).await;
        }
        drop(deflater);
        stream.set_replied();
    }

    /// Ends both directions of a stream with RST_STREAM, unless this side had ended already.
    async fn reset(&self, stream: &Stream) {
        self.streams().remove(&stream.id);
        stream.close_remote();
        if stream.finish() {
            self.send(&frame::reset(stream.id, frame::CANCEL)).await;
        }
    }

    /// Ends this side of a stream with FIN.
    async fn finish(&self, stream: &Stream) {
        stream.wait_replied().await;
        if stream.is_remote_closed() {
            self.streams().remove(&stream.id);
        }
        if stream.finish() {
            self.send(&frame::data(stream.id, true, &[])).await;
        }
    }

    /// Sends bytes on a stream. As the Go library does, it does so even after a reset from the
    /// client; only the end of the connection is an error.
    async fn write(&self, stream: &Stream, bytes: &[u8]) -> io::Result<()> {
        stream.wait_replied().await;
        self.wire.send(&frame::data(stream.id, false, bytes)).await
    }

    fn remote_finished(&self, stream: &Stream) {
        stream.close_remote();
        if stream.is_finished() {
            self.streams().remove(&stream.id);
        }
    }

    /// Sends a frame whose loss only means that the connection is over, which its reader notices.
    async fn send(&self, frame: &[u8]) {
        let _ = self.wire.send(frame).await;
    }

    fn close_streams(&self) {
        for (_, stream) in self.streams().drain() {
            stream.close_remote();
            // Whoever waits to write must find out that the connection is over.
            stream.set_replied();
        }
    }

    fn stream(&self, id: u32) -> Option<Arc<Stream>> {
        self.streams().get(&id).cloned()
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
