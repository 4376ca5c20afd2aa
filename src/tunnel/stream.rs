//! One stream of a tunnel as a byte stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::backlog::Backlog;
use super::cause::{DECLINED, cause_of};
use super::held::{Entry, Held};
use super::tally::Counted;
use crate::addr::Target;
use crate::dial::DialError;
use crate::io::Io;

/// Most bytes of one chunk: a full HTTP/2 frame of ours.
pub(super) const CHUNK: usize = 64 << 10;

/// One stream of a tunnel. Dropping it before both directions have ended resets it.
#[derive(Debug)]
pub struct Stream {
    send: SendStream<Bytes>,
    receive: Receive,
    ended: bool,
    backlog: Arc<Backlog>,
    counted: Counted,
}

#[derive(Debug)]
enum Receive {
    /// The other side has not answered yet.
    Opening {
        answer: ResponseFuture,
        to: Target,
        held: Arc<Held>,
    },
    /// Bytes come; `chunk` is what was not read of the last ones.
    Open {
        body: RecvStream,
        chunk: Bytes,
        /// On the side that opened it.
        _entry: Option<Entry>,
    },
    /// It was refused, or `declined`: the other side leaves it to this one.
    Refused { error: DialError, declined: bool },
    /// It went down with its tunnel before it was answered; `in_doubt` is whether the other side
    /// may have had it.
    Lost { error: DialError, in_doubt: bool },
}

impl Stream {
    pub(super) fn opening(
        send: SendStream<Bytes>,
        answer: ResponseFuture,
        to: Target,
        backlog: Arc<Backlog>,
        held: Arc<Held>,
        counted: Counted,
    ) -> Self {
        let receive = Receive::Opening { answer, to, held };
        Self::new(send, receive, backlog, counted)
    }

    pub(super) fn open(
        send: SendStream<Bytes>,
        body: RecvStream,
        backlog: Arc<Backlog>,
        counted: Counted,
    ) -> Self {
        let receive = Receive::Open {
            body,
            chunk: Bytes::new(),
            _entry: None,
        };
        Self::new(send, receive, backlog, counted)
    }

    fn new(
        send: SendStream<Bytes>,
        receive: Receive,
        backlog: Arc<Backlog>,
        counted: Counted,
    ) -> Self {
        Self {
            send,
            receive,
            ended: false,
            backlog,
            counted,
        }
    }

    /// Waits until the other side has answered the opening.
    ///
    /// # Errors
    /// Why it did not open the stream. Reads of a refused stream fail with the same.
    pub async fn opened(&mut self) -> Result<(), DialError> {
        std::future::poll_fn(|cx| self.poll_opened(cx).map_ok(|_| ())).await
    }

    /// Whether it went down with its tunnel before the other side had answered its opening.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.receive, Receive::Lost { .. })
    }

    /// Whether the other side said that the destination is none of its own, and that who asked may go
    /// there himself.
    #[must_use]
    pub fn is_declined(&self) -> bool {
        matches!(self.receive, Receive::Refused { declined: true, .. })
    }

    /// Whether nobody knows what the other side did with a stream that [is lost](Self::is_lost): it
    /// may have had what was sent.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.receive, Receive::Lost { in_doubt: true, .. })
    }

    fn poll_opened(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(&mut RecvStream, &mut Bytes), DialError>> {
        if let Receive::Opening { answer, to, held } = &mut self.receive {
            let answer = ready!(Pin::new(answer).poll(cx));
            self.receive = match answer {
                Ok(response) if response.status().is_success() => {
                    let mut body = response.into_body();
                    let entry = held.note(body.flow_control().clone());
                    Receive::Open {
                        body,
                        chunk: Bytes::new(),
                        _entry: Some(entry),
                    }
                }
                Ok(response) => Receive::Refused {
                    error: cause_of(to, &response),
                    declined: response.status() == DECLINED,
                },
                Err(error) if is_unserved(&error) => Receive::Lost {
                    in_doubt: error.is_io(),
                    error: lost(to, &error),
                },
                Err(error) => Receive::Refused {
                    error: given_up(to, &error),
                    declined: false,
                },
            };
        }
        Poll::Ready(match &mut self.receive {
            Receive::Open { body, chunk, .. } => Ok((body, chunk)),
            Receive::Refused { error, .. } | Receive::Lost { error, .. } => Err(error.clone()),
            Receive::Opening { .. } => unreachable!("it was answered above"),
        })
    }
}

/// Whether a stream ended with its tunnel, or the other side never looked at it.
fn is_unserved(error: &h2::Error) -> bool {
    error.is_io() || error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)
}

/// Why a tunnel broke, for people.
pub(super) fn why(error: &h2::Error) -> String {
    let of_stream = error.get_io().map(crate::io::why);
    of_stream.unwrap_or_else(|| error.to_string())
}

/// A stream that was reset, by itself, before it was answered.
fn given_up(target: &Target, error: &h2::Error) -> DialError {
    let reason = match error.is_remote() {
        true => "the other end of the tunnel gave it up before it was open".to_owned(),
        false => format!("its stream broke before it was open: {error}"),
    };
    DialError::Unreachable {
        target: target.to_string(),
        reason,
        fix: String::new(),
    }
}

/// A stream whose tunnel broke before it was answered.
pub(super) fn lost(target: &Target, error: &h2::Error) -> DialError {
    DialError::Unreachable {
        target: target.to_string(),
        reason: format!("the tunnel to the relay broke: {}", why(error)),
        fix: String::new(),
    }
}

fn io_error(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    let kind = match error.reason() {
        Some(Reason::NO_ERROR) => io::ErrorKind::BrokenPipe,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}

impl Io for Stream {
    fn reset(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Where this direction has ended in order, h2 itself ends the other one after what is
        // still queued; a reset here would overtake that.
        if !self.ended {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

impl Stream {
    /// Bytes that came, at least one; `None` at the end. They count as on the way, and hold the
    /// other side back, until [`Stream::release`] is told that they went on.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let (body, kept) = match ready!(self.poll_opened(cx)) {
            Ok(open) => open,
            Err(error) => return Poll::Ready(Err(error.into_io())),
        };
        if !kept.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(kept))));
        }
        loop {
            match ready!(body.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => return Poll::Ready(Ok(Some(data))),
                // The other side ended in order and wants no more.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => break,
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => break,
            }
        }
        Poll::Ready(Ok(None))
    }

    /// So many bytes of a chunk went on.
    pub(super) fn release(&mut self, bytes: usize) -> io::Result<()> {
        match &mut self.receive {
            Receive::Open { body, .. } => {
                self.counted.read(bytes);
                let flow = body.flow_control();
                flow.release_capacity(bytes).map_err(io_error)
            }
            Receive::Opening { .. } | Receive::Refused { .. } | Receive::Lost { .. } => Ok(()),
        }
    }

    /// How many of `wanted` bytes may be sent, at least one.
    pub(super) fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
        ready!(self.backlog.poll_room(cx));
        let wanted = wanted.min(CHUNK);
        self.send.reserve_capacity(wanted);
        // What an earlier call reserved and nobody used is there at once.
        let mut room = self.send.capacity();
        while room == 0 {
            room = match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        Poll::Ready(Ok(room.min(wanted)))
    }

    /// Sends a chunk for which there is room.
    pub(super) fn send(&mut self, chunk: Bytes) -> io::Result<()> {
        let bytes = chunk.len();
        self.send.send_data(chunk, false).map_err(io_error)?;
        self.backlog.queued(bytes);
        Ok(())
    }

    /// Gives room back that a call of [`Stream::poll_room`] reserved, for other streams.
    pub(super) fn forgo(&mut self) {
        self.send.reserve_capacity(0);
    }

    /// Ends this direction; what is queued goes out before.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.send.send_data(Bytes::new(), true).map_err(io_error)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut chunk) = ready!(self.poll_chunk(cx))? else {
            return Poll::Ready(Ok(()));
        };
        let n = chunk.len().min(buf.remaining());
        buf.put_slice(&chunk.split_to(n));
        if let Receive::Open { chunk: kept, .. } = &mut self.receive {
            *kept = chunk;
        }
        Poll::Ready(self.release(n))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(self.poll_room(cx, buf.len()))?;
        self.send(Bytes::copy_from_slice(&buf[..n]))?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The tunnel writes what is queued as soon as its line takes it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}
