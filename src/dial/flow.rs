//! Flows of datagrams: from a socket, or in capsules of a stream (RFC 9297, RFC 9298).

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::DialError;
use crate::addr::Target;
use crate::io::{BoxIo, Io, Transferred, datagram};

/// Bytes of a buffer that a flow keeps between two datagrams: what fits into a frame of Ethernet.
/// Larger ones are allocated when they are needed.
const KEPT: usize = 2 << 10;
/// Bytes read at a time from a stream that carries datagrams.
const READ: usize = 16 << 10;
/// Datagrams that are taken from a socket at once before other tasks have their turn.
const BATCH: usize = 64;

thread_local! {
    /// Where datagrams are received before their size is known: one per thread, so that a flow
    /// that waits holds no memory.
    static ARENA: RefCell<Box<[u8]>> = RefCell::new(vec![0; 1 << 16].into());
}

/// Opens flows of datagrams to a destination.
pub trait DialUdp: Clone + Send + Sync + 'static {
    /// Opens a flow to `target`. Dropping the future abandons the attempt.
    ///
    /// What does not say how carries none.
    fn dial_udp(&self, target: &Target) -> impl Future<Output = Result<Flow, DialError>> + Send {
        let target = target.to_string();
        async {
            Err(DialError::Unreachable {
                target,
                reason: "no datagrams are carried this way".to_owned(),
                fix: String::new(),
            })
        }
    }
}

/// Datagrams to and from one destination. As everywhere, they may be lost, and no flow has an end
/// that the other side is sure to see.
pub struct Flow {
    sender: FlowSender,
    receiver: FlowReceiver,
}

/// The way of a flow to its destination.
pub struct FlowSender(Sender);

/// The way of a flow back.
pub struct FlowReceiver(Receiver);

enum Sender {
    Socket(Arc<UdpSocket>),
    Behind {
        socket: Arc<UdpSocket>,
        header: Vec<u8>,
        wire: Vec<u8>,
        /// The flow is open as long as this is.
        _control: BoxIo,
    },
    Capsules {
        io: WriteHalf<BoxIo>,
        wire: BytesMut,
    },
}

enum Receiver {
    Socket(Arc<UdpSocket>),
    /// With so many bytes before each datagram.
    Behind(Arc<UdpSocket>, usize),
    Capsules {
        io: ReadHalf<BoxIo>,
        /// What came and is no whole capsule yet.
        read: BytesMut,
        room: Room,
        /// For a large capsule that is coming.
        taken: Option<Taken>,
    },
}

/// What datagrams may take of the memory that several share.
#[derive(Clone, Debug)]
pub struct Room(Arc<AtomicUsize>);

/// A part of a [`Room`], given back when dropped.
#[derive(Debug)]
pub struct Taken(Arc<AtomicUsize>, usize);

impl Room {
    /// So many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Takes so many bytes, or none where there are fewer.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<Taken> {
        let take = |left: usize| left.checked_sub(bytes);
        let order = Ordering::Relaxed;
        self.0.fetch_update(order, order, take).ok()?;
        Some(Taken(self.0.clone(), bytes))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_add(self.1, Ordering::Relaxed);
    }
}

impl Flow {
    /// The datagrams of a connected socket.
    #[must_use]
    pub fn socket(socket: UdpSocket) -> Self {
        let socket = Arc::new(socket);
        Self {
            sender: FlowSender(Sender::Socket(socket.clone())),
            receiver: FlowReceiver(Receiver::Socket(socket)),
        }
    }

    /// The datagrams of a connected socket, each behind a header of the same length, sent with
    /// `header`; the flow ends when `control` is closed from here.
    #[must_use]
    pub fn behind(socket: UdpSocket, header: Vec<u8>, control: BoxIo) -> Self {
        let socket = Arc::new(socket);
        let length = header.len();
        Self {
            sender: FlowSender(Sender::Behind {
                socket: socket.clone(),
                header,
                wire: Vec::new(),
                _control: control,
            }),
            receiver: FlowReceiver(Receiver::Behind(socket, length)),
        }
    }

    /// The datagrams in a stream of capsules. One that is larger than a frame of Ethernet takes
    /// its bytes from `room` while it is on the way.
    pub fn capsules<I: Io>(io: I, room: Room) -> Self {
        let (read, write) = tokio::io::split(Box::new(io) as BoxIo);
        Self {
            sender: FlowSender(Sender::Capsules {
                io: write,
                wire: BytesMut::new(),
            }),
            receiver: FlowReceiver(Receiver::Capsules {
                io: read,
                read: BytesMut::new(),
                room,
                taken: None,
            }),
        }
    }

    /// Its two ways.
    #[must_use]
    pub fn split(self) -> (FlowSender, FlowReceiver) {
        (self.sender, self.receiver)
    }
}

impl FlowSender {
    /// Sends a datagram of at most [`datagram::MAX_PAYLOAD`] bytes. What a socket does not take is
    /// lost. A send that is given up half way makes the flow useless.
    ///
    /// # Errors
    /// When the flow is over.
    pub async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Sender::Socket(socket) => {
                if let Err(error) = socket.send(payload).await
                    && error.kind() == io::ErrorKind::ConnectionRefused
                {
                    // What an earlier one came to was told here in place of sending this one.
                    let _ = socket.send(payload).await;
                }
                Ok(())
            }
            Sender::Behind {
                socket,
                header,
                wire,
                ..
            } => {
                wire.clear();
                wire.extend_from_slice(header);
                wire.extend_from_slice(payload);
                // As above: what it does not take is lost.
                let _ = socket.send(wire).await;
                Ok(())
            }
            Sender::Capsules { io, wire } => {
                wire.clear();
                if payload.len() <= KEPT - datagram::MAX_HEAD {
                    datagram::encode(payload, wire);
                    io.write_all(wire).await?;
                } else {
                    datagram::encode_head(payload.len(), wire);
                    io.write_all(wire).await?;
                    io.write_all(payload).await?;
                }
                io.flush().await
            }
        }
    }

    /// Ends the flow in order, where that can be told.
    pub async fn finish(&mut self) {
        if let Sender::Capsules { io, .. } = &mut self.0 {
            // The other side may be gone already.
            let _ = io.shutdown().await;
        }
    }
}

impl FlowReceiver {
    /// Appends the next datagram to `into`; `false` when the flow is over. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// When the flow is broken.
    pub async fn receive(&mut self, into: &mut BytesMut) -> io::Result<bool> {
        match &mut self.0 {
            Receiver::Socket(socket) => from_socket(socket, 0, into).await,
            Receiver::Behind(socket, header) => from_socket(socket, *header, into).await,
            Receiver::Capsules {
                io,
                read,
                room,
                taken,
            } => loop {
                let payload = datagram::decode(read);
                let payload = payload.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                if let Some(payload) = payload {
                    into.extend_from_slice(&payload);
                    drop(payload);
                    *taken = None;
                    if read.is_empty() && read.capacity() > KEPT {
                        *read = BytesMut::new();
                    }
                    return Ok(true);
                }
                let size = datagram::capsule(read).filter(|size| *size > KEPT);
                if let (Some(size), None) = (size, &taken) {
                    let full = || io::Error::other("too many large datagrams at a time");
                    *taken = Some(room.take(size).ok_or_else(full)?);
                }
                if std::future::poll_fn(|cx| poll_more(io, read, cx)).await? == 0 {
                    return Ok(false);
                }
            },
        }
    }
}

/// The next datagram of a socket without its first `header` bytes. One that is shorter is none.
async fn from_socket(socket: &UdpSocket, header: usize, into: &mut BytesMut) -> io::Result<bool> {
    loop {
        socket.readable().await?;
        let received = ARENA.with_borrow_mut(|arena| {
            let n = socket.try_recv(arena)?;
            let payload = arena[..n].get(header..);
            into.extend_from_slice(payload.unwrap_or_default());
            Ok(payload.is_some())
        });
        match received.map_err(|e: io::Error| (e.kind(), e)) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            // The peer's port is closed, perhaps for a moment: UDP has no connections.
            Err((io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused, _)) => {}
            Err((_, error)) => return Err(error),
        }
    }
}

/// Reads what is there, without a buffer while nothing is.
fn poll_more(
    io: &mut ReadHalf<BoxIo>,
    read: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    ARENA.with_borrow_mut(|arena| {
        let mut buf = ReadBuf::new(&mut arena[..READ]);
        ready!(Pin::new(io).poll_read(cx, &mut buf))?;
        read.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    })
}

/// Waits for datagrams at `socket` and hands all that are there to `take`, with their senders, up
/// to a number that leaves others their turn. Dropping the future loses nothing.
///
/// # Errors
/// When the socket is broken.
pub async fn receive_from(
    socket: &UdpSocket,
    mut take: impl FnMut(&[u8], SocketAddr),
) -> io::Result<()> {
    socket.readable().await?;
    for _ in 0..BATCH {
        let received = ARENA.with_borrow_mut(|arena| {
            let (n, from) = socket.try_recv_from(arena)?;
            take(&arena[..n], from);
            Ok(())
        });
        match received.map_err(|e: io::Error| (e.kind(), e)) {
            Ok(()) => {}
            Err((io::ErrorKind::WouldBlock, _)) => return Ok(()),
            // An earlier answer found nobody.
            Err((io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset, _)) => {}
            Err((_, error)) => return Err(error),
        }
    }
    tokio::task::yield_now().await;
    Ok(())
}

/// Joins two flows until one is over, or neither carried anything for `idle`. Large datagrams for
/// which there is no room are lost. `forth` counts from the first to the second.
pub async fn join(first: Flow, second: Flow, idle: Duration, room: &Room) -> Transferred {
    let (mut to_first, mut from_first) = first.split();
    let (mut to_second, mut from_second) = second.split();
    let activity = Activity::new();
    let (forth, back) = (AtomicU64::new(0), AtomicU64::new(0));
    tokio::select! {
        // Either side may end a flow at any time, and there is nobody to tell why.
        _ = pump(&mut from_first, &mut to_second, &activity, room, &forth) => {}
        _ = pump(&mut from_second, &mut to_first, &activity, room, &back) => {}
        () = activity.idle(idle) => {}
    }
    to_first.finish().await;
    to_second.finish().await;
    Transferred {
        forth: forth.into_inner(),
        back: back.into_inner(),
    }
}

/// One direction. Each waits on its own: two ends that wait for each other to read would stand
/// still for good.
async fn pump(
    from: &mut FlowReceiver,
    to: &mut FlowSender,
    activity: &Activity,
    room: &Room,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut datagram = BytesMut::new();
    while from.receive(&mut datagram).await? {
        activity.touch();
        let taken = room.take(if datagram.len() > KEPT {
            datagram.len()
        } else {
            0
        });
        if taken.is_some() && datagram.len() <= datagram::MAX_PAYLOAD {
            to.send(&datagram).await?;
            moved.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        }
        datagram.clear();
        if datagram.capacity() > KEPT {
            datagram = BytesMut::new();
        }
    }
    Ok(())
}

/// When a flow last carried something.
#[derive(Debug)]
pub struct Activity {
    began: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
}

impl Activity {
    /// Now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// Something is carried.
    pub fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// How long nothing was carried.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last)
    }

    /// Completes when nothing was carried for `limit`.
    pub async fn idle(&self, limit: Duration) {
        while let Some(left) = limit
            .checked_sub(self.quiet())
            .filter(|left| !left.is_zero())
        {
            tokio::time::sleep(left).await;
        }
    }
}

impl Default for Activity {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.sender.0 {
            Sender::Socket(_) => "Flow(socket)",
            Sender::Behind { .. } => "Flow(behind a proxy)",
            Sender::Capsules { .. } => "Flow(capsules)",
        })
    }
}

#[cfg(test)]
mod tests;
