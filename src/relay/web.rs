//! A caller's connection that speaks HTTP: each request goes where the claims say.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tracing::debug;

use super::KEEP_ACCEPTING;
use super::inbound::{Inbound, SERVED};
use super::linger::Lingering;
use super::metered::Purse as _;
use super::pace::{Busy, Pace, Paced};
use super::ports::{Entry, Port};
use super::seat::{self, Seat, Served};
use super::served::Answered;
use crate::addr::Target;
use crate::http::{
    Body, BodyWatch, Failure, MAX_BUFFER, MAX_HEAD, MAX_HEADERS, Passing, Reasoned, Upstream,
    reclaim,
};
use crate::io::{BoxIo, Prefixed};
use crate::task::Executor;

/// How long a connection may wait for its next request. Longer than servers and load balancers let
/// theirs wait, so that it is these that close, who know best when.
const IDLE: Duration = Duration::from_secs(600);
/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 128;
/// Bytes of a request's body that one HTTP/2 stream may have on the way.
const STREAM_WINDOW: u32 = 64 << 10;
/// Bytes of all of a connection's.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of an answer that one HTTP/2 stream has waiting.
const STREAM_BACKLOG: usize = 16 << 10;
/// What a connection of HTTP/2 is charged with beyond one of HTTP/1: tables and buffers of frames.
const SECOND: usize = 32 << 10;
/// What a request on it is charged with: bytes of an answer that wait here and on the way from whoever
/// gives it, where the stream's reader, not the connection's, has stopped. Nobody sees which it is.
const SECOND_SERVED: usize = 96 << 10;
/// Requests that are reset before they were looked at: more end the connection (CVE-2023-44487).
const RESETS: usize = 20;
/// What whoever gets 503 is told to wait, in seconds.
const RETRY: HeaderValue = HeaderValue::from_static("1");

/// The caller's socket, under HTTP.
type Caller = Reasoned<Paced<Prefixed<seat::Caller>>>;

/// A caller's connection.
pub(super) struct Web {
    pub(super) inbound: Inbound,
    pub(super) port: Arc<Port>,
    pub(super) target: Target,
    pub(super) peer: SocketAddr,
    /// Whether it speaks HTTP/2.
    pub(super) second: bool,
    seat: Arc<Seat>,
    pace: Pace,
    /// The last request's body, of HTTP/1.
    body: Mutex<BodyWatch>,
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
    /// Where it is given one piece at a time, each once the one before is written: hyper would keep
    /// more of it for a caller who does not read.
    paced_by: Option<Arc<Seat>>,
    _busy: Busy,
    aside: Aside,
}

/// What goes along with an answer until it is through.
#[derive(Default)]
pub(super) struct Aside {
    /// What the request is charged with.
    pub(super) charged: Option<Served>,
    /// Tells the owner of its claim where it breaks off.
    pub(super) answered: Option<Answered>,
}

/// Why requests of HTTP/1 are read no further.
enum Paused {
    /// There is none under way; the caller may send another one.
    Resting,
    /// The connection has ended, or speaks something else from here on.
    Ended(hyper::Result<()>),
}

impl Web {
    pub(super) fn new(
        inbound: Inbound,
        port: Arc<Port>,
        peer: SocketAddr,
        second: bool,
        spare: Option<Spare>,
        seat: Arc<Seat>,
    ) -> Self {
        Self {
            target: inbound.origin.target(port.number),
            inbound,
            port,
            peer,
            second,
            seat,
            pace: Pace::default(),
            body: Mutex::default(),
            spare: Mutex::new(spare),
            switch: Mutex::default(),
        }
    }

    /// Serves requests until the connection ends.
    pub(super) async fn serve(self, caller: Prefixed<seat::Caller>) {
        let this = Arc::new(self);
        let pace = (!this.second).then(|| this.pace.clone());
        let caller = Reasoned::new(Paced::new(caller, pace), too_large);
        match this.second {
            false => this.first(caller).await,
            true => Box::pin(this.second(caller)).await,
        }
    }

    async fn first(self: Arc<Self>, caller: Caller) {
        let caller = Lingering::new(caller);
        // Responses say that the connection closes from then on; one that has no more requests is
        // closed when whoever has some is away.
        let mut ending = pin!(async {
            self.inbound.tasks.draining().await;
            tokio::time::sleep(KEEP_ACCEPTING).await;
        });
        let mut serving = true;
        let ended = loop {
            // In a box that goes: a connection that rests costs next to nothing.
            let requests = Box::pin(self.requests(&caller, ending.as_mut(), &mut serving));
            if let Paused::Ended(ended) = requests.await {
                break ended;
            }
            let readable = std::future::poll_fn(|cx| {
                let readable =
                    |caller: &mut Caller| caller.inner().inner().inner().poll_readable(cx);
                caller.with(readable)
            });
            tokio::select! {
                biased;
                _ = readable => {}
                () = self.seat.asked() => return,
                () = ending.as_mut(), if serving => return,
                () = tokio::time::sleep(IDLE) => return,
            }
        };
        let switch = self.switch.lock();
        let switch = switch.unwrap_or_else(PoisonError::into_inner).take();
        match (ended, switch) {
            (Err(error), _) => {
                debug!(%error, "a caller's connection broke");
                // Whoever still sends a head that was refused shall read why.
                if error.is_parse() {
                    Box::pin(caller.linger()).await;
                }
            }
            (Ok(()), Some((caller, to))) => Box::pin(self.join(caller, to)).await,
            (Ok(()), None) => Box::pin(caller.linger()).await,
        }
    }

    /// Serves requests until none is under way, or the connection ends.
    async fn requests(
        self: &Arc<Self>,
        caller: &Lingering<Caller>,
        mut ending: Pin<&mut impl Future<Output = ()>>,
        serving: &mut bool,
    ) -> Paused {
        let service = service_fn(|request| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .preserve_header_case(true)
            .auto_date_header(false)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(caller.clone()), service)
            .with_upgrades();
        let paused = std::future::poll_fn(|cx| {
            if *serving && ending.as_mut().poll(cx).is_ready() {
                *serving = false;
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Paused::Ended(ended));
            }
            // hyper has written all that it has, or cannot; and it has asked for the next request.
            match *serving && self.rests(caller) {
                true => Poll::Ready(Paused::Resting),
                false => Poll::Pending,
            }
        });
        match paused.await {
            Paused::Resting => {
                // A next request that came along with the last one, in part.
                let read = connection.into_parts().map(|parts| parts.read_buf);
                if let Some(read) = read.filter(|read| !read.is_empty()) {
                    caller.with(|caller| caller.inner_mut().put_back(read));
                }
                Paused::Resting
            }
            ended @ Paused::Ended(_) => ended,
        }
    }

    /// Whether no request is under way, nor anything of one.
    fn rests(&self, caller: &Lingering<Caller>) -> bool {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |caller: &mut Caller| {
            let paced = caller.inner();
            caller.is_written() && paced.is_quiet() && !paced.inner().inner().is_stuck()
        };
        body.is_through() && caller.with(quiet)
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
        // It is served on, as a whole.
        let Some(_served) = self.seat.request(to_kdev, SERVED) else {
            return self.inbound.metrics.crowded();
        };
        if let Some(upstream) = upstream.stream().await {
            self.inbound.joined(caller, upstream, to_kdev).await;
        }
    }

    async fn second(self: Arc<Self>, caller: Caller) {
        let _held = self.seat.pin(SECOND);
        self.seat.says_goodbye();
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
                .max_send_buf_size(STREAM_BACKLOG)
                .max_pending_accept_reset_streams(RESETS)
                .serve_connection(TokioIo::new(caller), service)
        );
        // Requests that are on their way when GOAWAY is sent are still served.
        let mut moving = pin!(async {
            tokio::select! {
                () = self.inbound.tasks.draining() => {}
                () = self.port.retiring() => {}
                () = self.seat.asked() => {}
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
        let mut aside = Aside::default();
        let answered = match Passing::new(request) {
            Ok(passing) => {
                if !self.second {
                    let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
                    *body = passing.watch_body();
                }
                Box::pin(self.route(passing, caller, &mut aside)).await
            }
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
        response.map(|body| Reply {
            body,
            paced_by: (!self.second).then(|| self.seat.clone()),
            _busy: busy,
            aside,
        })
    }

    /// Room for a request, to a kdev (`matched`) or to the pods.
    ///
    /// # Errors
    /// When there is none, not even when others are closed.
    pub(super) fn room(&self, matched: bool) -> Result<Served, Failure> {
        let bytes = if self.second { SECOND_SERVED } else { SERVED };
        self.seat.request(matched, bytes).ok_or_else(|| {
            self.inbound.metrics.crowded();
            Failure {
                status: StatusCode::SERVICE_UNAVAILABLE,
                word: "full",
                text: "the relay has no memory left for another request; try again later"
                    .to_owned(),
            }
        })
    }
}

/// What a caller is told whose head is refused; of one that is none hyper's status says enough.
fn too_large(status: StatusCode) -> Option<Failure> {
    let is = status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let reader = "an intercepted Service's relay";
    is.then(|| Failure::head_too_large(status, MAX_HEADERS, reader))
}

fn close(response: &mut Response<Body>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}

impl Aside {
    /// The next part of the answer.
    fn note(&mut self, frame: &Option<Result<Frame<Bytes>, hyper::Error>>) {
        match (frame, &mut self.answered) {
            (Some(Ok(frame)), Some(answered)) => {
                answered.sent(frame.data_ref().map_or(0, Bytes::len));
            }
            (Some(Err(error)), answered) => {
                if let Some(answered) = answered.take() {
                    answered.broke_off(error);
                }
            }
            _ => {}
        }
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        if let Some(seat) = &this.paced_by {
            ready!(seat.poll_written(cx));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let (Some(seat), Some(Ok(_))) = (&this.paced_by, &frame) {
            seat.given();
        }
        this.aside.note(&frame);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
