//! HTTP/2 over a stream whose handshake is done: the side that opens streams, and what both have
//! to agree on.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::client::SendRequest;
use h2::{client, ext};
use http::{Method, Request, Uri};
use tokio::sync::watch;

use super::backlog::Backlog;
use super::budget::Share;
use super::health::{Health, Vitals};
use super::held::Held;
use super::life::{Ended, Watched};
use super::pulse::{Beat, Pulse};
use super::stream::{CHUNK, Stream, lost, why};
use super::tally::{Counted, Tally};
use crate::addr::Target;
use crate::dial::DialError;
use crate::io::Io;

/// Most streams of one tunnel at a time.
pub(super) const MAX_STREAMS: u32 = 16_384;
/// Most bytes that one stream may queue; the tunnel's backlog is the tighter bound.
pub(super) const SEND_BUFFER: usize = 256 << 10;
/// Most bytes of one message's headers: a target and a cause.
pub(super) const MAX_HEADERS: u32 = 16 << 10;
/// What h2 lets small frames take up before it ends a connection as abused. A stream of one-byte
/// writes is legitimate here, and both ends know each other.
pub(super) const SMALL_FRAMES: usize = 256 << 20;
/// How many streams that were reset are remembered, so that what was on the way to them is dropped
/// quietly, and how many may be reset before this side looked at them: more end the tunnel. An app
/// that gives up many dials at once does no harm.
pub(super) const RESET_STREAMS: usize = 1024;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes of a TCP connection.
    Tcp,
    /// Datagrams of a UDP flow, in capsules (RFC 9298).
    Udp,
    /// Lines of the control protocol between a relay and the kdev that it serves.
    Control,
}

impl Protocol {
    /// What an extended CONNECT names it; a plain one is TCP.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Tcp => None,
            // RFC 9298, 3.4
            Self::Udp => Some("connect-udp"),
            Self::Control => Some("kdev-control"),
        }
    }

    pub(super) fn named(name: Option<&str>) -> Option<Self> {
        let all = [Self::Tcp, Self::Udp, Self::Control];
        all.into_iter().find(|protocol| protocol.name() == name)
    }
}

/// Who opened the connection that a stream carries, as text: an address and a port.
pub(super) const PEER_HEADER: &str = "kdev-peer";
/// Which claim a stream is for.
pub(super) const CLAIM_HEADER: &str = "kdev-claim";
/// What is spoken on it.
pub(super) const SPEAKS_HEADER: &str = "kdev-speaks";

/// What the relay knows of a stream that it opens to kdev.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Who opened the connection that the stream carries; none where it carries requests of many.
    pub peer: Option<SocketAddr>,
    /// The claim that it is for.
    pub claim: Option<String>,
    /// What is spoken on it.
    pub speaks: Speaks,
}

/// What is spoken on a stream to kdev.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    /// Whatever the caller speaks; it may turn out to be HTTP.
    #[default]
    Any,
    /// HTTP/1.1.
    H1,
    /// HTTP/2 from its first byte on.
    H2,
}

impl Speaks {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::H1 => Some("h1"),
            Self::H2 => Some("h2"),
        }
    }

    pub(super) fn named(name: Option<&str>) -> Self {
        let all = [Self::H1, Self::H2];
        let found = all.into_iter().find(|speaks| speaks.name() == name);
        found.unwrap_or_default()
    }
}

/// Opens streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Opener {
    send: SendRequest<Bytes>,
    backlog: Arc<Backlog>,
    tally: Arc<Tally>,
    held: Arc<Held>,
    vitals: Arc<Vitals>,
}

impl Opener {
    /// Opens a stream to `target`, and returns before the other side has answered: see
    /// [`Stream::opened`]. What is written meanwhile travels with the opening.
    ///
    /// # Errors
    /// When the tunnel is gone or is being closed.
    pub async fn open(&self, target: &Target, protocol: Protocol) -> Result<Stream, DialError> {
        self.open_for(target, protocol, &Caller::default()).await
    }

    /// As [`Opener::open`], for a caller.
    ///
    /// # Errors
    /// When the tunnel is gone or is being closed.
    pub async fn open_for(
        &self,
        target: &Target,
        protocol: Protocol,
        caller: &Caller,
    ) -> Result<Stream, DialError> {
        let mut send = self
            .send
            .clone()
            .ready()
            .await
            .map_err(|e| lost(target, &e))?;
        let uri = Uri::builder().authority(target.to_string());
        let mut request = Request::builder().method(Method::CONNECT);
        request = match protocol.name() {
            None => request.uri(uri.build().map_err(|_| unnamed(target))?),
            Some(name) => {
                let uri = uri.scheme("https").path_and_query("/").build();
                request
                    .uri(uri.map_err(|_| unnamed(target))?)
                    .extension(ext::Protocol::from_static(name))
            }
        };
        if let Some(peer) = caller.peer {
            request = request.header(PEER_HEADER, peer.to_string());
        }
        if let Some(claim) = &caller.claim {
            request = request.header(CLAIM_HEADER, claim);
        }
        if let Some(speaks) = caller.speaks.name() {
            request = request.header(SPEAKS_HEADER, speaks);
        }
        let request = request.body(()).map_err(|_| unnamed(target))?;
        let opened = send.send_request(request, false);
        let (answer, body) = opened.map_err(|e| lost(target, &e))?;
        let counted = Counted::new(&self.tally);
        let backlog = self.backlog.clone();
        Ok(Stream::opening(
            body,
            answer,
            target.clone(),
            backlog,
            self.held.clone(),
            counted,
        ))
    }

    /// How many of its streams live.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.tally.streams()
    }

    /// Bytes that came and that nobody has read yet, in all its streams. Takes a look at each.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.bytes()
    }

    /// Whether it would take another stream: neither has it ended nor does the other side let it
    /// run out.
    #[must_use]
    pub fn takes_streams(&self) -> bool {
        // A handle that has opened nothing waits for nothing but an end.
        let ready = self.send.clone().ready().now_or_never();
        !matches!(ready, Some(Err(_)))
    }

    /// How it is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        self.vitals.health()
    }

    /// Follows how it is doing, without keeping the tunnel open.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Health> {
        self.vitals.follow()
    }

    /// The newest round trip of a ping.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.vitals.round_trip()
    }
}

fn unnamed(target: &Target) -> DialError {
    DialError::NotFound {
        what: format!("host {target}"),
        fix: String::new(),
    }
}

/// What moves the bytes of a tunnel whose streams this side opens.
pub struct Driver<T> {
    connection: client::Connection<Watched<T>, Bytes>,
    pulse: Pulse,
}

/// Becomes the side that opens streams.
///
/// # Errors
/// When the stream fails.
pub async fn open<T: Io>(io: T, mut share: Share) -> io::Result<(Opener, Driver<T>)> {
    let window = share.window();
    let (backlog, tally) = (Arc::new(Backlog::new(share.backlog())), share.tally());
    let (io, life) = Watched::new(io, backlog.clone());
    let (send, mut connection) = client::Builder::new()
        .initial_window_size(share.stream_window())
        .initial_connection_window_size(window)
        .max_frame_size(CHUNK as u32)
        .max_concurrent_streams(0)
        .initial_max_send_streams(MAX_STREAMS as usize)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADERS)
        .data_frame_budget(SMALL_FRAMES)
        .enable_push(false)
        .handshake(io)
        .await
        .map_err(broken)?;
    let vitals = Arc::new(Vitals::new());
    let pings = connection.ping_pong();
    let pulse = Pulse::new(pings, life, share, backlog.clone(), vitals.clone());
    let opener = Opener {
        send,
        backlog,
        tally,
        held: Arc::default(),
        vitals,
    };
    Ok((opener, Driver { connection, pulse }))
}

impl<T: Io> Driver<T> {
    /// Moves bytes until the tunnel ends. It ends in order when all [`Opener`]s and streams are
    /// gone, or when the other side asks for it and the last stream has ended.
    pub async fn run(self) -> Ended {
        let Self {
            mut connection,
            mut pulse,
        } = self;
        let ended = std::future::poll_fn(|cx| {
            match pulse.poll(cx) {
                Poll::Ready(Beat::Dead) => return Poll::Ready(Ended::Silent),
                Poll::Ready(Beat::Window(window)) => connection.set_target_window_size(window),
                Poll::Pending => {}
            }
            let polled = Pin::new(&mut connection).poll(cx);
            pulse.heard();
            polled.map(|result| match result {
                Ok(()) => Ended::Closed,
                Err(error) => Ended::Broken(why(&error)),
            })
        })
        .await;
        pulse.release();
        ended
    }
}

pub(super) fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
