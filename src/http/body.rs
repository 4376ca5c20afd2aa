//! Bodies of responses on their way through, and what holds a request's body back.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::pool::Lease;

/// The body of a response to the app.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Text(Bytes),
    Forwarded {
        body: Incoming,
        /// The connection it comes from, until the body has ended; none where others use that as
        /// well.
        lease: Option<Box<Lease>>,
        _gate: Option<ShutOnDrop>,
    },
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Text(Bytes::new()))
    }

    /// A body that is at hand.
    #[must_use]
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self(Kind::Text(text.into()))
    }

    /// The origin's body. `lease` goes back to its pool when the body has ended, and is dropped
    /// with its connection when the app does not want the rest.
    pub(super) fn forwarded(body: Incoming, lease: Option<Lease>, gate: Option<Arc<Gate>>) -> Self {
        let gate = gate.map(ShutOnDrop);
        let mut lease = lease.map(Box::new);
        if body.is_end_stream() {
            give_back(&mut lease);
        }
        Self(Kind::Forwarded {
            body,
            lease,
            _gate: gate,
        })
    }
}

fn give_back(lease: &mut Option<Box<Lease>>) {
    if let Some(lease) = lease.take() {
        lease.give_back();
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Kind::Text(text) if text.is_empty() => Poll::Ready(None),
            Kind::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Kind::Forwarded { body, lease, .. } => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                match &frame {
                    Some(Err(_)) => *lease = None,
                    Some(Ok(frame)) if frame.is_data() && !body.is_end_stream() => {}
                    // The last data of a known length, the trailers, or the end itself: hyper
                    // asks no further after the first two.
                    _ => give_back(lease),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Text(text) => text.is_empty(),
            Kind::Forwarded { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Text(text) => SizeHint::with_exact(text.len() as u64),
            Kind::Forwarded { body, .. } => body.size_hint(),
        }
    }
}

/// Holds a request body back until the origin says `100 Continue`.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: AtomicU8,
    waker: AtomicWaker,
}

/// The origin has said nothing yet.
const WAITING: u8 = 0;
/// The origin wants the body, or has been silent for too long.
const OPEN: u8 = 1;
/// The origin answered without asking for the body; the answer is still on its way.
const ANSWERED: u8 = 2;
/// The answer is through: nobody will ever want the body.
const SHUT: u8 = 3;

impl Gate {
    /// The origin wants the body.
    pub(super) fn open(&self) {
        self.leave(WAITING, OPEN);
    }

    /// The origin answered. Returns whether it had asked for the body before.
    pub(super) fn answered(&self) -> bool {
        self.leave(WAITING, ANSWERED);
        self.state.load(Ordering::Acquire) == OPEN
    }

    fn shut(&self) {
        self.leave(WAITING, SHUT);
        self.leave(ANSWERED, SHUT);
    }

    fn leave(&self, from: u8, to: u8) {
        let changed = self
            .state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        if changed.is_ok() {
            self.waker.wake();
        }
    }

    pub(super) fn poll_open(
        &self,
        cx: &mut Context<'_>,
        patience: Pin<&mut Sleep>,
    ) -> Poll<Result<(), &'static str>> {
        if self.state.load(Ordering::Acquire) == OPEN {
            return Poll::Ready(Ok(()));
        }
        self.waker.register(cx.waker());
        if self.state.load(Ordering::Acquire) == WAITING {
            ready!(patience.poll(cx));
            self.open();
        }
        match self.state.load(Ordering::Acquire) {
            OPEN => Poll::Ready(Ok(())),
            SHUT => Poll::Ready(Err("the origin answered without asking for the body")),
            _ => Poll::Pending,
        }
    }
}

/// Ends the wait of a body that was never asked for, when the response to it is through.
#[derive(Debug)]
struct ShutOnDrop(Arc<Gate>);

impl Drop for ShutOnDrop {
    fn drop(&mut self) {
        self.0.shut();
    }
}
