//! What a proxy counts.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::addr::Target;
use crate::dial::{Count, Dial, DialError, DialUdp, Flow, HttpIo, Mark};
use crate::io::{Io, pass_writes};

/// Counters of one proxy, each exact on its own; together they are no snapshot of one moment.
#[derive(Debug, Default)]
pub struct Stats {
    live: AtomicU64,
    total: AtomicU64,
    refused: AtomicU64,
    dial_failures: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    datagrams_dropped: AtomicU64,
}

/// The counters at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Connections of apps that are open.
    pub live: u64,
    /// Connections that were accepted so far.
    pub total: u64,
    /// Connections that were closed at once because of who opened them.
    pub refused: u64,
    /// Dials that failed.
    pub dial_failures: u64,
    /// Bytes that apps sent to the proxy, handshakes included.
    pub sent: u64,
    /// Bytes that apps got from the proxy.
    pub received: u64,
    /// Datagrams that were not passed on: of somebody else, malformed, fragments, too many.
    pub datagrams_dropped: u64,
}

impl Snapshot {
    /// Connections that came so far, whatever became of them.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.total + self.refused
    }
}

impl Stats {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            live: get(&self.live),
            total: get(&self.total),
            refused: get(&self.refused),
            dial_failures: get(&self.dial_failures),
            sent: get(&self.sent),
            received: get(&self.received),
            datagrams_dropped: get(&self.datagrams_dropped),
        }
    }

    /// Counts a connection as live until the result is dropped.
    pub(super) fn connection(self: &Arc<Self>) -> Live {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
        Live(self.clone())
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// A live connection.
#[derive(Debug)]
pub(super) struct Live(Arc<Stats>);

impl Count for Stats {
    fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn dropped(&self) {
        self.datagrams_dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An app's stream whose bytes are counted as they go, so that long streams show too.
#[derive(Debug)]
pub(super) struct Counted<T> {
    inner: T,
    stats: Arc<Stats>,
}

impl<T> Counted<T> {
    pub(super) fn new(inner: T, stats: Arc<Stats>) -> Self {
        Self { inner, stats }
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &result {
            self.stats.received.fetch_add(*n as u64, Ordering::Relaxed);
        }
        result
    }
}

impl<T: Io> Io for Counted<T> {
    fn reset(&mut self) {
        self.inner.reset();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        let n = buf.filled().len() - before;
        self.stats.sent.fetch_add(n as u64, Ordering::Relaxed);
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    pass_writes!(inner, wrote);
}

/// A dial whose failures are counted.
#[derive(Clone, Debug)]
pub(super) struct CountedDial<D> {
    inner: D,
    stats: Arc<Stats>,
}

impl<D> CountedDial<D> {
    pub(super) fn new(inner: D, stats: Arc<Stats>) -> Self {
        Self { inner, stats }
    }

    fn count<T>(&self, result: &Result<T, DialError>) {
        if result.is_err() {
            self.stats.dial_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A stream that was handed out already turned out to be refused.
    pub(super) fn failed_late(&self) {
        self.stats.dial_failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl<D: Dial> Dial for CountedDial<D> {
    type Io = D::Io;

    async fn dial(&self, target: &Target) -> Result<D::Io, DialError> {
        let result = self.inner.dial(target).await;
        self.count(&result);
        result
    }

    async fn dial_http(&self, target: &Target) -> Result<HttpIo<D::Io>, DialError> {
        let result = self.inner.dial_http(target).await;
        self.count(&result);
        result
    }

    fn mark(&self, target: &Target) -> Option<Mark> {
        self.inner.mark(target)
    }
}

impl<D: DialUdp> DialUdp for CountedDial<D> {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        let result = self.inner.dial_udp(target).await;
        self.count(&result);
        result
    }
}
