//! One exchange with an origin: a connection from the pool or a fresh one, and what may be sent
//! again when that connection turns out to be dead.

use std::pin::pin;

use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{EXPECT, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tracing::debug;

use super::body::Gate;
use super::headers::{clean_request, clean_response, has_token};
use super::pool::{Lease, Pool, Sender};
use super::replay::{Replay, Unanswered, may_be_sent_twice};
use super::request::RequestBody;
use super::shared::Shared;
use super::sips::Sips;
use super::turnover::Turnover;
use super::{Body, Failure, MAX_ANSWER_HEAD, MAX_HEADERS, Upstream, mark, via};
use crate::addr::{Host, Target};
use crate::dial::{Dial, HttpIo};
use crate::io::BoxIo;
use crate::task::Tasks;

/// Port of an `http` URI that names none (RFC 9110, 4.2.1).
const HTTP_PORT: u16 = 80;

/// Sends requests to the origins that they name. Cloning is shallow: clones share the pool.
#[derive(Clone, Debug)]
pub struct Forwarder<D> {
    pub(super) dial: D,
    pub(super) pool: Pool,
    /// Connections of HTTP/2.
    pub(super) shared: Shared,
    pub(super) tasks: Tasks,
}

/// What came of a request.
#[derive(Debug)]
pub struct Forwarded {
    /// For the app. Its body may still be on the way.
    pub response: Response<Body>,
    /// Set when the response is a 101: the origin's side, to be joined with the app's.
    pub upstream: Option<Upstream>,
}

impl<D: Dial> Forwarder<D> {
    /// An engine that opens its connections with `dial`. They live in `tasks`.
    pub fn new(dial: D, tasks: Tasks) -> Self {
        Self::with(dial, tasks, None)
    }

    /// As [`Forwarder::new`], with connections that are replaced so soon that requests spread over
    /// whatever is behind the destinations.
    pub fn spreading(dial: D, tasks: Tasks, turnover: Turnover) -> Self {
        Self::with(dial, tasks, Some(turnover))
    }

    fn with(dial: D, tasks: Tasks, turnover: Option<Turnover>) -> Self {
        Self {
            dial,
            pool: Pool::new(tasks.clone(), turnover),
            shared: Shared::new(turnover),
            tasks,
        }
    }

    /// Where an absolute-form request wants to go.
    pub fn target(uri: &Uri) -> Result<Target, Failure> {
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some("https" | "wss") => {
                return Err(Failure {
                    status: StatusCode::NOT_IMPLEMENTED,
                    word: "https",
                    text: format!(
                        "this proxy does not speak TLS for the app; send CONNECT {} and speak TLS \
                         through it, as HTTPS_PROXY=http://… makes clients do",
                        uri.authority().map_or("HOST:443", |a| a.as_str())
                    ),
                });
            }
            _ => {
                return Err(Failure::bad_request(format!(
                    "{uri} is not an http:// address"
                )));
            }
        }
        let host: Host = uri
            .host()
            .unwrap_or_default()
            .parse()
            .map_err(|e| Failure::bad_request(format!("{e}")))?;
        match uri.port_u16() {
            Some(0) => Err(Failure::bad_request(format!("{uri} has port 0"))),
            port => Ok(Target::new(host, port.unwrap_or(HTTP_PORT))),
        }
    }

    /// Exchanges one absolute-form request with the origin at `target`. Returns as soon as the
    /// response's head is there; both bodies go on as they come. Dropping the future abandons
    /// the exchange and its connection.
    pub async fn forward(
        &self,
        target: &Target,
        request: Request<Incoming>,
    ) -> Result<Forwarded, Failure> {
        let (mut parts, body) = request.into_parts();
        // It belongs to the app's connection, and a copy would keep that waiting.
        parts.extensions.remove::<OnUpgrade>();
        let upgrade = clean_request(&mut parts.headers, Some(host_header(&parts.uri)?));
        parts.uri = origin_form(&parts.uri);
        let expects =
            parts.version == Version::HTTP_11 && has_token(&parts.headers, &EXPECT, "100-continue");
        parts.version = Version::HTTP_11;
        via::count_hops(&mut parts)?;
        let (body, gate) = RequestBody::new(body, expects);
        let mut request = Request::from_parts(parts, body);
        if let Some(gate) = gate.clone() {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        let (response, lease) = self.exchange(target, request, upgrade).await?;
        received(target, response, lease, gate, upgrade)
    }

    /// Sends the request, again where that is safe, and waits for the head of the response.
    pub(super) async fn exchange(
        &self,
        target: &Target,
        mut request: Request<RequestBody>,
        upgrade: bool,
    ) -> Result<(Response<Incoming>, Lease), Unanswered> {
        let (mut logged_in, mut repeated) = (false, false);
        let mut pooled = if upgrade {
            None
        } else {
            let mark = self.dial.mark(target);
            self.pool
                .take(target, mark.as_ref(), may_be_sent_twice(&request))
        };
        loop {
            let reused = pooled.is_some();
            let replay = Replay::of(&request);
            let sent = match pooled.take() {
                Some(mut sender) => {
                    mark::put(&mut request, sender.mark.as_ref());
                    via::form(&mut request, sender.via.as_ref()).map_err(Unanswered::for_good)?;
                    let sent = sender.send.try_send_request(request).await;
                    sent.map(|response| (response, sender))
                }
                None => self.send_on_fresh(target, request).await?,
            };
            let error = match sent {
                Ok((response, sender)) => {
                    let Some(refusal) = via::login_refused(&response, sender.via.as_ref()) else {
                        return Ok((response, Lease::new(sender, &self.pool, target)));
                    };
                    // A login that had been good may have ended: once more, with the next one.
                    match replay.request().filter(|_| !logged_in) {
                        Some(again) => request = again,
                        None => return Err(Unanswered::for_good(refusal)),
                    }
                    logged_in = true;
                    continue;
                }
                Err(error) => error,
            };
            request = replay.again(target, error, reused, repeated)?;
            repeated = true;
        }
    }

    /// Opens a connection and sends the request on it. The connection is driven from here until
    /// the head of the response is there, which saves the first byte a change of tasks.
    async fn send_on_fresh(
        &self,
        target: &Target,
        mut request: Request<RequestBody>,
    ) -> Result<
        Result<
            (Response<Incoming>, Sender),
            hyper::client::conn::TrySendError<Request<RequestBody>>,
        >,
        Unanswered,
    > {
        let HttpIo { io, via, mark } = match self.dial.dial_http(target).await {
            Ok(dialled) => dialled,
            Err(error) => {
                return Err(Unanswered {
                    failure: error.into(),
                    again: Some(request),
                });
            }
        };
        mark::put(&mut request, mark.as_ref());
        via::form(&mut request, via.as_ref()).map_err(Unanswered::for_good)?;
        let (mut sender, connection) = match handshake(Box::new(io)).await {
            Ok(both) => both,
            Err(error) => return Err(Unanswered::unsent(target, &error, request)),
        };
        let mut connection = Box::pin(connection.with_upgrades());
        let mut open = true;
        let sent = {
            let mut sending = pin!(sender.try_send_request(request));
            loop {
                tokio::select! {
                    biased;
                    sent = &mut sending => break sent,
                    // Its error reaches the request that waits on it.
                    _ = &mut connection, if open => open = false,
                }
            }
        };
        if open && sent.is_ok() {
            self.tasks.spawn(async move {
                if let Err(error) = connection.await {
                    debug!(%error, "connection to an origin ended");
                }
            });
        }
        let sender = Sender {
            send: sender,
            via,
            mark,
            served: 0,
            born: Instant::now(),
        };
        Ok(sent.map(|response| (response, sender)))
    }
}

/// Speaks HTTP/1 on a stream, of whichever kind: what hyper does for each kind is 200 KB of code.
pub(super) async fn handshake(
    io: BoxIo,
) -> hyper::Result<(
    http1::SendRequest<RequestBody>,
    http1::Connection<TokioIo<BoxIo>, RequestBody>,
)> {
    let io: BoxIo = Box::new(Sips::of(io));
    http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_ANSWER_HEAD)
        .max_buf_size(MAX_ANSWER_HEAD)
        .handshake(TokioIo::new(io))
        .await
}

/// Prepares the origin's response for the app.
pub(super) fn received(
    target: &Target,
    mut response: Response<Incoming>,
    mut lease: Lease,
    gate: Option<std::sync::Arc<Gate>>,
    upgrade: bool,
) -> Result<Forwarded, Failure> {
    if gate.as_deref().is_some_and(|gate| !gate.answered()) {
        // The app may or may not send the body now; hyper closes its side for the same reason.
        lease.keep_out();
    }
    let status = response.status();
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    if switching && !upgrade {
        return Err(Failure {
            status: StatusCode::BAD_GATEWAY,
            word: "no-response",
            text: format!("{target} switched protocols although nobody asked"),
        });
    }
    let upstream = switching.then(|| Upstream(hyper::upgrade::on(&mut response)));
    if switching {
        lease.keep_out();
    }
    // What the app is answered with depends on what it speaks, not on what the origin speaks.
    *response.version_mut() = Version::HTTP_11;
    clean_response(
        response.headers_mut(),
        switching || status == StatusCode::UPGRADE_REQUIRED,
    );
    Ok(Forwarded {
        response: response.map(|body| Body::forwarded(body, Some(lease), gate)),
        upstream,
    })
}

/// The authority as the app wrote it, without what must not be sent: user and password.
fn host_header(uri: &Uri) -> Result<HeaderValue, Failure> {
    let authority = uri.authority().map_or("", |a| a.as_str());
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    HeaderValue::from_str(host).map_err(|_| Failure::bad_request(format!("{host:?} is no host")))
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}
