//! The app of a claim, behind a reverse tunnel of its session.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::ports::Entry;
use super::sessions::Session;
use crate::addr::Target;
use crate::dial::{Dial, DialError};
use crate::http::Forwarder;
use crate::io::{Io, pass_writes};
use crate::task::Tasks;
use crate::tunnel::{Caller, Protocol, Speaks, Stream};

/// Opens streams to the app of a claim.
#[derive(Clone, Debug)]
pub(super) struct Laptop {
    session: Arc<Session>,
    claim: String,
    owner: String,
    speaks: Speaks,
    /// Whether it matters that the app is there before anything is sent.
    certain: bool,
}

/// What requests of a claim travel on. Streams are kept open for the next request, as connections
/// of any client are, and end with the claim.
#[derive(Debug)]
pub(super) struct Lines {
    first: Forwarder<Laptop>,
    second: Forwarder<Laptop>,
}

impl Lines {
    pub(super) fn new(entry: &Entry, tasks: &Tasks) -> Self {
        let to = |speaks| Forwarder::new(Laptop::of(entry, speaks), tasks.clone());
        Self {
            first: to(Speaks::H1),
            second: to(Speaks::H2),
        }
    }

    /// Those of HTTP/2, or of HTTP/1.
    pub(super) fn of(&self, second: bool) -> &Forwarder<Laptop> {
        if second { &self.second } else { &self.first }
    }
}

impl Laptop {
    pub(super) fn of(entry: &Entry, speaks: Speaks) -> Self {
        Self {
            session: entry.session.clone(),
            claim: entry.claim.id.clone(),
            owner: entry.claim.owner.clone(),
            speaks,
            // HTTP/2 does not say why its stream broke, and a body that was sent to nobody is not
            // at hand for the original pods.
            certain: speaks == Speaks::H2 || entry.claim.fallback,
        }
    }

    /// Opens a stream, for the connection of `peer` where it carries one.
    ///
    /// # Errors
    /// When the session has no tunnel, for so long that nobody waits any more.
    pub(super) async fn open(
        &self,
        target: &Target,
        peer: Option<SocketAddr>,
    ) -> Result<Stream, DialError> {
        let caller = Caller {
            peer,
            claim: Some(self.claim.clone()),
            speaks: self.speaks,
        };
        let silent = || DialError::Unreachable {
            target: target.to_string(),
            reason: format!("the kdev of {} is silent", self.owner),
            fix: String::new(),
        };
        loop {
            let opener = self.session.opener().await.ok_or_else(silent)?;
            // A tunnel that ends at this moment is not asked again: it takes no streams.
            if let Ok(stream) = opener.open_for(target, Protocol::Tcp, &caller).await {
                return Ok(stream);
            }
        }
    }
}

impl Dial for Laptop {
    type Io = Sent;

    async fn dial(&self, target: &Target) -> Result<Sent, DialError> {
        let mut stream = self.open(target, None).await?;
        if self.certain {
            stream.opened().await?;
        }
        Ok(Sent { inner: stream })
    }
}

/// Bytes of a stream that are read at a time: hyper's buffer grows no further than to twice as much,
/// so that a caller who does not read holds no more.
const PIECE: usize = (16 << 10) - 1;

/// A stream that carries requests before it is known that the app has taken it, and is read in pieces.
///
/// One that was refused has carried nothing, and its request may be sent again. One that went down
/// with its tunnel may have carried it: a laptop that wakes goes on with what it had.
#[derive(Debug)]
pub(super) struct Sent {
    inner: Stream,
}

impl Io for Sent {
    fn reset(&mut self) {
        self.inner.reset();
    }
}

impl AsyncRead for Sent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner: stream } = &mut *self;
        let mut some = (&mut *stream).take(PIECE as u64);
        let read = Pin::new(&mut some).poll_read(cx, buf);
        match read {
            Poll::Ready(Err(error)) if stream.is_in_doubt() => {
                // As that of a connection that broke.
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::ConnectionReset,
                    error.to_string(),
                )))
            }
            read => read,
        }
    }
}

impl AsyncWrite for Sent {
    pass_writes!(inner);
}
