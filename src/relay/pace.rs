//! A caller who begins a request has to get on with it.
//!
//! hyper's own limit also runs while a connection waits for its next request. That would close
//! connections that callers mean to use again, and a request that is on its way then is lost.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::io::{Io, Prefixed, pass_writes};

/// How long the head of a request may take from its first byte on.
pub(super) const HEAD_LIMIT: Duration = Duration::from_secs(15);

/// What the stream under HTTP has to know of the requests on it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace(Arc<Requests>);

#[derive(Debug, Default)]
struct Requests {
    /// How many heads were complete.
    begun: AtomicU64,
    /// How many requests are being served.
    served: AtomicUsize,
}

/// A request that is being served, until it is dropped.
#[derive(Debug)]
pub(super) struct Busy(Pace);

impl Pace {
    /// A head is complete.
    pub(super) fn busy(&self) -> Busy {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.served.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.served.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose reads fail when a head takes too long.
#[derive(Debug)]
pub(super) struct Paced<T> {
    inner: T,
    /// None where there is no limit.
    pace: Option<Pace>,
    /// Set from the first byte of a head on, with the number of those before.
    limit: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<T> Paced<T> {
    /// A stream whose first head has begun already. Without a `pace` it has no limit.
    pub(super) fn new(inner: T, pace: Option<Pace>) -> Self {
        let limit = pace.is_some().then(|| (0, Self::limit()));
        Self { inner, pace, limit }
    }

    /// The stream itself.
    pub(super) fn inner(&self) -> &T {
        &self.inner
    }

    /// Whether neither a request is served nor has anything of one come.
    pub(super) fn is_quiet(&self) -> bool {
        let served = |pace: &Pace| pace.0.served.load(Ordering::Relaxed);
        self.limit.is_none() && self.pace.as_ref().is_some_and(|pace| served(pace) == 0)
    }

    fn limit() -> Pin<Box<Sleep>> {
        Box::pin(tokio::time::sleep(HEAD_LIMIT))
    }
}

impl<T> Paced<Prefixed<T>> {
    /// Gives back the beginning of a head that was read already.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.inner.put_back(bytes);
        let Some(Pace(requests)) = &self.pace else {
            return;
        };
        self.limit = Some((requests.begun.load(Ordering::Relaxed), Self::limit()));
    }
}

impl<T: Io> Io for Paced<T> {
    fn reset(&mut self) {
        self.inner.reset();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf)?;
        let Some(Pace(requests)) = &this.pace else {
            return read.map(Ok);
        };
        let begun = requests.begun.load(Ordering::Relaxed);
        let serving = requests.served.load(Ordering::Relaxed) > 0;
        if serving || this.limit.as_ref().is_some_and(|(head, _)| *head != begun) {
            this.limit = None;
        }
        if !serving && buf.filled().len() > before && this.limit.is_none() {
            this.limit = Some((begun, Self::limit()));
        }
        let over = match &mut this.limit {
            Some((_, limit)) => limit.as_mut().poll(cx).is_ready(),
            None => false,
        };
        if over {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read.map(Ok)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    pass_writes!(inner);
}
