//! Joins a stream of a tunnel with a socket, without a buffer of its own: bytes are read from the
//! socket when the stream has room for them, and bytes of the tunnel go to the socket as they are.
//! A stream that waits holds no memory but its window.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio_util::io::poll_read_buf;

use super::stream::{CHUNK, Stream};
use crate::io::{Io, Transferred};

/// From so many bytes on a read is cut from the thread's buffer and not copied: a chunk that is
/// stuck keeps at most four times its size.
const CUT_FROM: usize = CHUNK / 4;

thread_local! {
    /// Where all streams of a thread read into; bytes stay in it only within one poll.
    static ARENA: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Joins `stream` and `io` until both directions have ended. The end of one direction is passed
/// on and leaves the other open; a failure resets both. `forth` counts from the tunnel to `io`.
///
/// There is no idle limit: an established stream lives as long as its ends want.
pub async fn join<T: Io>(stream: Stream, io: T) -> (Transferred, io::Result<()>) {
    let mut both = Join {
        stream,
        io,
        chunk: Bytes::new(),
        forth: Way::Open,
        back: Way::Open,
        moved: Transferred::default(),
    };
    let result = std::future::poll_fn(|cx| both.poll(cx)).await;
    if result.is_err() {
        both.stream.reset();
        both.io.reset();
    }
    (both.moved, result)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Ending,
    Ended,
}

struct Join<T> {
    stream: Stream,
    io: T,
    /// What came from the tunnel and the socket has not taken.
    chunk: Bytes,
    forth: Way,
    back: Way,
    moved: Transferred,
}

impl<T: Io> Join<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let forth = self.poll_forth(cx)?;
        let back = self.poll_back(cx)?;
        if forth.is_ready() && back.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// From the tunnel to the socket.
    fn poll_forth(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.chunk.is_empty() {
                let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.chunk))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                let _ = self.chunk.split_to(n);
                self.moved.forth += n as u64;
                self.stream.release(n)?;
            }
            match self.forth {
                Way::Ended => return Poll::Ready(Ok(())),
                Way::Ending => {
                    match ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
                        // The peer closed both directions while this end was on the way.
                        Err(e) if e.kind() != io::ErrorKind::NotConnected => {
                            return Poll::Ready(Err(e));
                        }
                        _ => self.forth = Way::Ended,
                    }
                }
                Way::Open => match self.stream.poll_chunk(cx) {
                    Poll::Ready(chunk) => match chunk? {
                        Some(chunk) => self.chunk = chunk,
                        None => self.forth = Way::Ending,
                    },
                    Poll::Pending => {
                        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// From the socket to the tunnel.
    fn poll_back(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.back == Way::Open {
            let room = ready!(self.stream.poll_room(cx, CHUNK))?;
            let read = ARENA.with_borrow_mut(|arena| read(&mut self.io, cx, arena, room));
            let Poll::Ready(chunk) = read else {
                // A stream that waits for its socket keeps no room from the others.
                self.stream.forgo();
                return Poll::Pending;
            };
            match chunk? {
                Some(chunk) => {
                    self.moved.back += chunk.len() as u64;
                    self.stream.send(chunk)?;
                }
                None => {
                    self.stream.end()?;
                    self.back = Way::Ended;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads up to `most` bytes; `None` at the end.
fn read<T: Io>(
    io: &mut T,
    cx: &mut Context<'_>,
    arena: &mut BytesMut,
    most: usize,
) -> Poll<io::Result<Option<Bytes>>> {
    arena.reserve(CHUNK);
    let n = ready!(poll_read_buf(Pin::new(io), cx, &mut arena.limit(most)))?;
    Poll::Ready(Ok(match n {
        0 => None,
        n if n < CUT_FROM => {
            let chunk = Bytes::copy_from_slice(arena);
            arena.clear();
            Some(chunk)
        }
        _ => Some(arena.split().freeze()),
    }))
}
