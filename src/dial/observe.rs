//! Tells somebody what becomes of each stream: why it was not opened, or where it went and what it
//! carried.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::DialError;
use crate::addr::{Namespaced, Target};
use crate::io::{BoxIo, Io, Transferred, pass_writes};

/// Hears of the streams of a [`super::Router`].
pub trait Observe: Send + Sync + 'static {
    /// A stream to `target` was not opened, or turned out to be refused after all.
    fn failed(&self, target: &Target, error: &DialError);

    /// A stream is open.
    fn opened(&self, stream: &Arc<Live>);

    /// A stream that was open is not any more. Where it `failed`, that was told before.
    fn ended(&self, stream: &Arc<Live>, failed: bool);
}

/// A stream that was opened, and what it has carried so far.
#[derive(Debug)]
pub struct Live {
    /// What was asked for.
    pub target: Target,
    /// Where it goes.
    pub path: Path,
    began: Instant,
    forth: AtomicU64,
    back: AtomicU64,
}

impl Live {
    /// One that was asked for at `began`, and has carried nothing yet.
    #[must_use]
    pub fn new(target: Target, path: Path, began: Instant) -> Self {
        Self {
            target,
            path,
            began,
            forth: AtomicU64::new(0),
            back: AtomicU64::new(0),
        }
    }

    /// How long it has lasted, its opening included.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.began.elapsed()
    }

    /// What it has carried: `forth` to the destination.
    #[must_use]
    pub fn moved(&self) -> Transferred {
        Transferred {
            forth: self.forth.load(Relaxed),
            back: self.back.load(Relaxed),
        }
    }
}

/// The way that a stream went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// A port-forward to this pod; `None` where the dialler does not say which.
    Pod(Option<Namespaced>),
    /// The relay, which dialled this.
    Relay(Target),
    /// The laptop's own network, or the proxy that it has.
    Laptop(Target),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(Some(pod)) => write!(f, "pod {} (direct)", pod.name),
            Self::Pod(None) => f.write_str("a pod (direct)"),
            Self::Relay(target) => write!(f, "{target} (relay)"),
            Self::Laptop(target) => write!(f, "{target} (this laptop)"),
        }
    }
}

/// Who hears of the streams, if anybody does.
#[derive(Clone, Default)]
pub(super) struct Observer(Option<Arc<dyn Observe>>);

impl Observer {
    pub(super) fn new(observe: Arc<dyn Observe>) -> Self {
        Self(Some(observe))
    }

    pub(super) fn failed(&self, target: &Target, error: &DialError) {
        if let Some(observe) = &self.0 {
            observe.failed(target, error);
        }
    }

    /// The stream, of whose end is told. `began` is when it was asked for.
    pub(super) fn watch(&self, target: &Target, path: Path, began: Instant, io: BoxIo) -> BoxIo {
        match &self.0 {
            None => io,
            Some(observe) => {
                let live = Arc::new(Live::new(target.clone(), path, began));
                observe.opened(&live);
                Box::new(Watched {
                    io,
                    observe: observe.clone(),
                    live,
                    failed: false,
                })
            }
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.is_some()).finish()
    }
}

/// A stream whose failure and end are told.
struct Watched {
    io: BoxIo,
    observe: Arc<dyn Observe>,
    live: Arc<Live>,
    failed: bool,
}

impl Watched {
    /// Tells of a failure, once. A stream that has carried an answer was not refused, whatever the
    /// engine calls it; only the loss of the cluster is worth a word then.
    fn failure(&mut self, error: &io::Error) {
        if self.failed {
            return;
        }
        if let Some(cause) = DialError::from_io(error)
            && (self.live.back.load(Relaxed) == 0 || matches!(cause, DialError::Cluster { .. }))
        {
            self.failed = true;
            self.observe.failed(&self.live.target, cause);
        }
    }

    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(n)) => {
                self.live.forth.fetch_add(*n as u64, Relaxed);
            }
            Poll::Ready(Err(error)) => self.failure(error),
            Poll::Pending => {}
        }
        result
    }
}

impl Io for Watched {
    fn reset(&mut self) {
        self.io.reset();
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        match &result {
            Poll::Ready(Ok(())) => {
                let came = buf.filled().len() - before;
                self.live.back.fetch_add(came as u64, Relaxed);
            }
            Poll::Ready(Err(error)) => self.failure(error),
            Poll::Pending => {}
        }
        result
    }
}

impl AsyncWrite for Watched {
    pass_writes!(io, wrote);
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.observe.ended(&self.live, self.failed);
    }
}
