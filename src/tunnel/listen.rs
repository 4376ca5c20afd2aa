//! The side of a tunnel that takes streams.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, ext, server};
use http::{Method, Request, Response};
use tokio::sync::watch;

use super::backlog::Backlog;
use super::budget::Share;
use super::cause::{DECLINED, refusal};
use super::health::{Health, Vitals};
use super::life::{Ended, Watched};
use super::link::{
    CLAIM_HEADER, Caller, MAX_HEADERS, MAX_STREAMS, PEER_HEADER, Protocol, RESET_STREAMS,
    SEND_BUFFER, SMALL_FRAMES, SPEAKS_HEADER, Speaks, broken,
};
use super::pulse::{Beat, Pulse};
use super::stream::{CHUNK, Stream, why};
use super::tally::{Counted, Tally};
use crate::addr::Target;
use crate::dial::DialError;
use crate::io::Io;

/// The side that takes streams.
pub struct Listener<T: Io> {
    connection: server::Connection<Watched<T>, Bytes>,
    pulse: Pulse,
    backlog: Arc<Backlog>,
    tally: Arc<Tally>,
    vitals: Arc<Vitals>,
    ended: Option<Ended>,
}

/// Becomes the side that takes streams.
///
/// # Errors
/// When the stream fails.
pub async fn serve<T: Io>(io: T, mut share: Share) -> io::Result<Listener<T>> {
    let window = share.window();
    let (backlog, tally) = (Arc::new(Backlog::new(share.backlog())), share.tally());
    let (io, life) = Watched::new(io, backlog.clone());
    let mut connection: server::Connection<_, Bytes> = server::Builder::new()
        .initial_window_size(share.stream_window())
        .initial_connection_window_size(window)
        .max_frame_size(CHUNK as u32)
        .max_concurrent_streams(MAX_STREAMS)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADERS)
        .data_frame_budget(SMALL_FRAMES)
        .enable_connect_protocol()
        .handshake(io)
        .await
        .map_err(broken)?;
    let (pings, vitals) = (connection.ping_pong(), Arc::new(Vitals::new()));
    let pulse = Pulse::new(pings, life, share, backlog.clone(), vitals.clone());
    Ok(Listener {
        connection,
        pulse,
        backlog,
        tally,
        vitals,
        ended: None,
    })
}

impl<T: Io> Listener<T> {
    /// The next stream that the other side opens; `None` when the tunnel has ended. Bytes move
    /// only while somebody waits here. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Incoming> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        loop {
            match self.pulse.poll(cx) {
                Poll::Ready(Beat::Dead) => return self.end(Ended::Silent),
                Poll::Ready(Beat::Window(window)) => self.connection.set_target_window_size(window),
                Poll::Pending => {}
            }
            let accepted = self.connection.poll_accept(cx);
            self.pulse.heard();
            let (request, respond) = match accepted {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return self.end(Ended::Closed),
                Poll::Ready(Some(Err(error))) => return self.end(Ended::Broken(why(&error))),
                Poll::Ready(Some(Ok(incoming))) => incoming,
            };
            if let Some(incoming) = Incoming::read(request, respond, &self.backlog, &self.tally) {
                return Poll::Ready(Some(incoming));
            }
        }
    }

    fn end(&mut self, ended: Ended) -> Poll<Option<Incoming>> {
        self.pulse.release();
        self.ended = Some(ended);
        Poll::Ready(None)
    }

    /// Tells the other side to open no more; [`Listener::next`] ends when the last stream has.
    pub fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Why it ended, once [`Listener::next`] gave `None`.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.ended.clone().unwrap_or(Ended::Closed)
    }

    /// Follows how it is doing.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Health> {
        self.vitals.follow()
    }

    /// How many of its streams live.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.tally.streams()
    }
}

/// A stream that the other side wants opened.
#[derive(Debug)]
pub struct Incoming {
    /// Where it shall go.
    pub target: Target,
    /// What it carries.
    pub protocol: Protocol,
    /// What the relay knows of it.
    pub caller: Caller,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    backlog: Arc<Backlog>,
    counted: Counted,
}

impl Incoming {
    /// Reads a request; one that makes no sense is refused here.
    fn read(
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        backlog: &Arc<Backlog>,
        tally: &Arc<Tally>,
    ) -> Option<Self> {
        let name = request.extensions().get::<ext::Protocol>();
        let protocol = Protocol::named(name.map(ext::Protocol::as_str));
        let header = |name| request.headers().get(name)?.to_str().ok();
        let caller = Caller {
            peer: header(PEER_HEADER).and_then(|text| text.parse().ok()),
            claim: header(CLAIM_HEADER).map(str::to_owned),
            speaks: Speaks::named(header(SPEAKS_HEADER)),
        };
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let target = authority.and_then(|a| a.parse::<Target>().ok());
        let (true, Some(protocol), Some(target)) =
            (request.method() == Method::CONNECT, protocol, target)
        else {
            let error = DialError::Forbidden {
                target: String::new(),
                reason: "a tunnel carries CONNECT requests to HOST:PORT only".to_owned(),
            };
            // The tunnel is gone when this fails.
            let _ = respond.send_response(refusal(&error), true);
            return None;
        };
        Some(Self {
            target,
            protocol,
            caller,
            body: request.into_body(),
            respond,
            backlog: backlog.clone(),
            counted: Counted::new(tally),
        })
    }

    /// Says yes.
    ///
    /// # Errors
    /// When the other side has given up meanwhile.
    pub fn accept(mut self) -> io::Result<Stream> {
        let send = self.respond.send_response(Response::new(()), false);
        let send = send.map_err(broken)?;
        Ok(Stream::open(send, self.body, self.backlog, self.counted))
    }

    /// Says no, and why.
    pub fn refuse(mut self, error: &DialError) {
        // The other side is gone when this fails.
        let _ = self.respond.send_response(refusal(error), true);
    }

    /// Leaves it to the other side, which may go there itself: [`Stream::is_declined`].
    pub fn decline(mut self) {
        let mut response = Response::new(());
        *response.status_mut() = DECLINED;
        // The other side is gone when this fails.
        let _ = self.respond.send_response(response, true);
    }

    /// Completes when the other side gives up waiting for an answer.
    pub async fn abandoned(&mut self) {
        let _ = std::future::poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }
}
