//! A caller's connection that speaks HTTP: each request goes where the claims say.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tracing::debug;

use super::KEEP_ACCEPTING;
use super::inbound::Inbound;
use super::linger::Lingering;
use super::pace::{Busy, Pace, Paced};
use super::ports::{Entry, Port};
use super::refusal::Reasoned;
use crate::addr::Target;
use crate::http::{Body, MAX_BUFFER, MAX_HEAD, MAX_HEADERS, Passing, Upstream, reclaim};
use crate::io::{BoxIo, Prefixed};
use crate::task::Executor;

/// How long a connection may wait for its next request. Longer than servers and load balancers let
/// theirs wait, so that it is these that close, who know best when.
const IDLE: Duration = Duration::from_secs(600);
/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 256;
/// Bytes of a request's body that one HTTP/2 stream may have on the way.
const STREAM_WINDOW: u32 = 128 << 10;
/// Bytes of all of a connection's.
const CONNECTION_WINDOW: u32 = 512 << 10;
/// Requests that are reset before they were looked at: more end the connection (CVE-2023-44487).
const RESETS: usize = 20;
/// What whoever gets 503 is told to wait, in seconds.
const RETRY: HeaderValue = HeaderValue::from_static("1");

/// The caller's socket, under HTTP.
type Caller = Reasoned<Paced<Prefixed<TcpStream>>>;

/// A caller's connection.
pub(super) struct Web {
    pub(super) inbound: Inbound,
    pub(super) port: Arc<Port>,
    pub(super) target: Target,
    pub(super) peer: SocketAddr,
    /// Whether it speaks HTTP/2.
    pub(super) second: bool,
    pace: Pace,
    pub(super) spare: Mutex<Option<Spare>>,
    pub(super) switch: Mutex<Option<(OnUpgrade, Switched)>>,
}

/// A connection that was opened to see who speaks first: to a claim's app, or to a pod. The first
/// request uses it or nobody does: one that waits keeps servers busy that serve one at a time.
pub(super) type Spare = (Option<Arc<Entry>>, Prefixed<BoxIo>);

/// Where a connection goes on that has ceased to speak HTTP.
pub(super) enum Switched {
    Laptop(Upstream),
    Pod(Upstream),
}

/// A response's body.
struct Reply {
    body: Body,
    _busy: Busy,
}

impl Web {
    pub(super) fn new(
        inbound: Inbound,
        port: Arc<Port>,
        peer: SocketAddr,
        second: bool,
        spare: Option<Spare>,
    ) -> Self {
        Self {
            target: inbound.origin.target(port.number),
            inbound,
            port,
            peer,
            second,
            pace: Pace::default(),
            spare: Mutex::new(spare),
            switch: Mutex::default(),
        }
    }

    /// Serves requests until the connection ends.
    pub(super) async fn serve(self, caller: Prefixed<TcpStream>) {
        let this = Arc::new(self);
        let pace = (!this.second).then(|| this.pace.clone());
        let caller = Reasoned::new(Paced::new(caller, pace));
        match this.second {
            false => this.first(caller).await,
            true => this.second(caller).await,
        }
    }

    async fn first(self: Arc<Self>, caller: Caller) {
        let service = service_fn(|request| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        let caller = Lingering::new(caller);
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .preserve_header_case(true)
                .auto_date_header(false)
                .max_header_size(MAX_HEAD)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_BUFFER)
                .serve_connection(TokioIo::new(caller.clone()), service)
                .with_upgrades()
        );
        // Responses say that the connection closes from then on; one that has no more requests is
        // closed when whoever has some is away.
        let mut ending = pin!(async {
            self.inbound.tasks.draining().await;
            tokio::time::sleep(KEEP_ACCEPTING).await;
        });
        let mut serving = true;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut connection => break ended,
                () = &mut ending, if serving => {
                    serving = false;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        let switch = self.switch.lock();
        let switch = switch.unwrap_or_else(PoisonError::into_inner).take();
        match (ended, switch) {
            (Err(error), _) => {
                debug!(%error, "a caller's connection broke");
                // Whoever still sends a head that was refused shall read why.
                if error.is_parse() {
                    caller.linger().await;
                }
            }
            (Ok(()), Some((caller, to))) => self.join(caller, to).await,
            (Ok(()), None) => caller.linger().await,
        }
    }

    async fn join(&self, caller: OnUpgrade, to: Switched) {
        let Some(caller) = caller.await.ok().and_then(reclaim::<Lingering<Caller>>) else {
            return debug!("the caller left before its stream began");
        };
        // No more heads come, and so no limit for them.
        let _busy = self.pace.busy();
        let (upstream, to_kdev) = match to {
            Switched::Laptop(upstream) => (upstream, true),
            Switched::Pod(upstream) => (upstream, false),
        };
        if let Some(upstream) = upstream.stream().await {
            self.inbound.joined(caller, upstream, to_kdev).await;
        }
    }

    async fn second(self: Arc<Self>, caller: Caller) {
        let service = service_fn(|request| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        let mut connection = pin!(
            http2::Builder::new(Executor(self.inbound.tasks.clone()))
                .timer(TokioTimer::new())
                .auto_date_header(false)
                .max_concurrent_streams(STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .max_send_buf_size(MAX_BUFFER)
                .max_pending_accept_reset_streams(RESETS)
                .serve_connection(TokioIo::new(caller), service)
        );
        // Requests that are on their way when GOAWAY is sent are still served.
        let mut moving = pin!(async {
            tokio::select! {
                () = self.inbound.tasks.draining() => {}
                () = self.port.retiring() => {}
            }
        });
        let mut serving = true;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut connection => break ended,
                () = &mut moving, if serving => {
                    serving = false;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a caller's connection broke");
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Reply> {
        let busy = self.pace.busy();
        let caller = (!self.second).then(|| hyper::upgrade::on(&mut request));
        let answered = match Passing::new(request) {
            Ok(passing) => self.route(passing, caller).await,
            Err(failure) => {
                let mut response = failure.response();
                if !self.second {
                    // Where it ends is what nobody can be sure of.
                    close(&mut response);
                }
                Ok(response)
            }
        };
        let mut response = answered.unwrap_or_else(|failure| {
            debug!(
                status = failure.status.as_u16(),
                text = failure.text,
                "a request failed"
            );
            let mut response = failure.response();
            if failure.status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(RETRY_AFTER, RETRY);
            }
            response
        });
        let moving = self.port.is_retired() || self.inbound.tasks.is_draining();
        if !self.second && moving && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            close(&mut response);
        }
        response.map(|body| Reply { body, _busy: busy })
    }
}

fn close(response: &mut Response<Body>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
