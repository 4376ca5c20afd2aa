//! Requests that arrive at a Service in the origin's stead, HTTP/1 and HTTP/2: checked, made fit
//! for the next hop, and sent on in the version in which they came.

use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::header::{TRANSFER_ENCODING, UPGRADE};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::body::Gate;
use super::copy::{CopyBudget, copy};
use super::forward::{Forwarded, Forwarder, handshake, received};
use super::headers::{clean_request, has_token};
use super::pool::Sender;
use super::replay::{Replay, Unanswered};
use super::request::{BodyWatch, RequestBody};
use super::{Body, Failure};
use crate::addr::Target;
use crate::dial::{Dial, HttpIo};
use crate::io::BoxIo;
use crate::task::Executor;

/// Bytes of a stream that may be on the way from an HTTP/2 origin: 100 Mbit/s over 20 ms.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of all streams of one connection that may be: what some streams of which nobody reads take up
/// of it must leave enough for the others.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of the headers of one HTTP/2 message.
const MAX_HEADERS: u32 = super::MAX_ANSWER_HEAD as u32;
/// Bytes that one HTTP/2 stream holds before it waits for its origin.
const SEND_BUFFER: usize = super::MAX_BUFFER;

/// The authority of a request of HTTP/2 that names none, which hyper does not send without one.
const NO_HOST: &str = "localhost";

/// A request on its way to an origin.
#[derive(Debug)]
pub struct Passing {
    request: Request<RequestBody>,
    upgrade: bool,
    gate: Option<Arc<Gate>>,
}

/// A request that has no answer.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub failure: Failure,
    /// The request, where it may be sent to somebody else: nobody served it, or it may be done
    /// twice.
    pub again: Option<Box<Passing>>,
}

impl Passing {
    /// A request as the server read it.
    ///
    /// # Errors
    /// When two readers could take it for different requests, or it is none to pass on.
    pub fn new(request: Request<Incoming>) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        // It belongs to the caller's connection, and a copy would keep that waiting.
        parts.extensions.remove::<OnUpgrade>();
        if parts.method == Method::CONNECT {
            return Err(Failure {
                status: StatusCode::METHOD_NOT_ALLOWED,
                word: "method",
                text: "CONNECT is for proxies, and this is none".to_owned(),
            });
        }
        let path = parts.uri.path();
        if !(path.starts_with('/') || path == "*" && parts.method == Method::OPTIONS) {
            return Err(Failure::bad_request(format!("{path:?} is no path")));
        }
        let upgrade = if parts.version == Version::HTTP_2 {
            second(&mut parts)?;
            false
        } else {
            first(&mut parts)?
        };
        let expects =
            parts.version == Version::HTTP_11 && has_token(&parts.headers, &EXPECT, "100-continue");
        let (body, gate) = RequestBody::new(body, expects);
        let mut request = Request::from_parts(parts, body);
        if let Some(gate) = gate.clone() {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        Ok(Self {
            request,
            upgrade,
            gate,
        })
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        self.request.method()
    }

    /// The target; of HTTP/1 the path alone.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        self.request.uri()
    }

    /// The headers that the origin gets.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// The headers that the origin gets.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.request.headers_mut()
    }

    /// To see when its body is through.
    #[must_use]
    pub fn watch_body(&self) -> BodyWatch {
        self.request.body().watch()
    }

    /// Whether it asks for an upgrade.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.upgrade
    }

    /// A copy of it. Its body follows as the original is read, and breaks off where it is too long
    /// or whoever gets it too slow. An upgrade and what waits for `100 Continue` have none.
    #[must_use]
    pub fn copy(&self, budget: &CopyBudget) -> Option<Self> {
        if self.upgrade || self.gate.is_some() {
            return None;
        }
        let mut request = Request::new(RequestBody::default());
        *request.method_mut() = self.method().clone();
        *request.uri_mut() = self.uri().clone();
        *request.version_mut() = self.request.version();
        *request.headers_mut() = self.headers().clone();
        if !self.request.body().is_empty() {
            let (to, copied) = copy(budget);
            let hint = self.request.body().size_hint();
            self.request.body().copy_to(to);
            *request.body_mut() = RequestBody::copied(hint, copied);
        }
        Some(Self {
            request,
            upgrade: false,
            gate: None,
        })
    }
}

/// Checks a request of HTTP/1 and takes out what belongs to the hop. Returns whether it asks for
/// an upgrade.
fn first(parts: &mut Parts) -> Result<bool, Failure> {
    let headers = &mut parts.headers;
    // Only "chunked" alone is what hyper takes off and puts on again.
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Failure {
                status: StatusCode::NOT_IMPLEMENTED,
                word: "transfer-encoding",
                text: "no transfer encoding but chunked is passed on".to_owned(),
            });
        }
        if headers.contains_key(CONTENT_LENGTH) {
            return Err(Failure::bad_request(
                "the request has a length and is chunked as well",
            ));
        }
    }
    let mut hosts = headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() || host.is_none() && parts.version == Version::HTTP_11 {
        return Err(Failure::bad_request("the request has no host, or several"));
    }
    // RFC 9112, 3.2.2: the target's authority goes before the header.
    let host = match (parts.uri.authority(), host) {
        (Some(authority), _) => Some(header(authority.as_str())?),
        (None, host) => host.cloned(),
    };
    if has_token(headers, &UPGRADE, "h2c") {
        // Nobody could look into what follows, and HTTP/2 has done away with it (RFC 9113, 3.1).
        headers.remove(UPGRADE);
        headers.remove(HeaderName::from_static("http2-settings"));
    }
    // One of HTTP/1.0 that names no host stays one: any name for it would be made up.
    parts.version = match host {
        Some(_) => Version::HTTP_11,
        None => Version::HTTP_10,
    };
    let upgrade = clean_request(headers, host);
    let path = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Ok(upgrade)
}

/// Checks a request of HTTP/2. What belongs to a hop is malformed there, which h2 knows.
fn second(parts: &mut Parts) -> Result<(), Failure> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (host, several) = (hosts.next().cloned(), hosts.next().is_some());
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    // RFC 9113, 8.3.1: both, where both are there, name the same.
    let differs = match (&uri.authority, &host) {
        (Some(authority), Some(host)) => !host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes()),
        _ => false,
    };
    if several || differs {
        return Err(Failure::bad_request("the request names several hosts"));
    }
    if uri.authority.is_none() {
        let named = host
            .as_ref()
            .map_or(NO_HOST.as_bytes(), HeaderValue::as_bytes);
        let authority = Authority::try_from(named);
        let authority = authority.map_err(|_| Failure::bad_request("the host is none"))?;
        uri.authority = Some(authority);
    }
    parts.headers.remove(HOST);
    uri.scheme.get_or_insert(Scheme::HTTP);
    parts.uri = Uri::from_parts(uri).map_err(|e| Failure::bad_request(e.to_string()))?;
    Ok(())
}

fn header(text: &str) -> Result<HeaderValue, Failure> {
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    HeaderValue::from_str(host).map_err(|_| Failure::bad_request(format!("{host:?} is no host")))
}

impl<D: Dial> Forwarder<D> {
    /// Exchanges a request with the origin at `target`. Returns as soon as the response's head is
    /// there; both bodies go on as they come. Dropping the future abandons the exchange.
    ///
    /// # Errors
    /// With the request, where it may be sent to somebody else.
    pub async fn pass(&self, target: &Target, passing: Passing) -> Result<Forwarded, Failed> {
        let Passing {
            request,
            upgrade,
            gate,
        } = passing;
        let again = |unanswered: Unanswered, gate: Option<Arc<Gate>>| Failed {
            failure: unanswered.failure,
            again: unanswered.again.map(|request| {
                Box::new(Passing {
                    request,
                    upgrade,
                    gate,
                })
            }),
        };
        if request.version() == Version::HTTP_2 {
            let response = self.exchange_shared(target, request).await;
            let response = response.map_err(|unanswered| again(unanswered, None))?;
            return Ok(Forwarded {
                response: response.map(|body| Body::forwarded(body, None, None)),
                upstream: None,
            });
        }
        let exchanged = self.exchange(target, request, upgrade).await;
        let (response, lease) = exchanged.map_err(|unanswered| again(unanswered, gate.clone()))?;
        received(target, response, lease, gate, upgrade)
            .map_err(|failure| again(Unanswered::for_good(failure), None))
    }

    /// As `exchange`, of HTTP/2.
    async fn exchange_shared(
        &self,
        target: &Target,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let mut repeated = false;
        loop {
            let replay = Replay::of(&request);
            let (mut sender, reused) = match self.shared.take(target) {
                Some(sender) => (sender, true),
                None => {
                    // Of many who find none, only some open one.
                    let permit = self.shared.dialling().await;
                    match self.shared.take(target) {
                        Some(sender) => (sender, true),
                        None => {
                            let io = match self.dial.dial_http(target).await {
                                Ok(dialled) => dialled.io,
                                Err(error) => {
                                    return Err(Unanswered {
                                        failure: error.into(),
                                        again: Some(request),
                                    });
                                }
                            };
                            let sender = match self.adopt_second(target, Box::new(io), 1).await {
                                Ok(sender) => sender,
                                Err(error) => {
                                    return Err(Unanswered::unsent(target, &error, request));
                                }
                            };
                            drop(permit);
                            (sender, false)
                        }
                    }
                }
            };
            let error = match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            request = replay.again(target, error, reused, repeated)?;
            repeated = true;
        }
    }

    /// Takes a stream to `target` that is open already for requests of HTTP/2.
    ///
    /// # Errors
    /// When the stream breaks.
    async fn adopt_second(
        &self,
        target: &Target,
        io: BoxIo,
        served: u32,
    ) -> hyper::Result<hyper::client::conn::http2::SendRequest<RequestBody>> {
        let (sender, connection) =
            hyper::client::conn::http2::Builder::new(Executor(self.tasks.clone()))
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(MAX_HEADERS)
                .max_send_buf_size(SEND_BUFFER)
                .handshake(TokioIo::new(io))
                .await?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection to an origin ended");
            }
        });
        self.shared.put(target, sender.clone(), served);
        Ok(sender)
    }

    /// Takes a stream to `target` that is open already, for requests of HTTP/2 (`second`) or
    /// HTTP/1 that come.
    pub async fn adopt(&self, target: &Target, dialled: HttpIo<BoxIo>, second: bool) {
        let HttpIo { io, via, mark } = dialled;
        if second {
            // One that breaks is as if it had never been there.
            let _ = self.adopt_second(target, io, 0).await;
            return;
        }
        let Ok((send, connection)) = handshake(io).await else {
            return;
        };
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "connection to an origin ended");
            }
        });
        let sender = Sender {
            send,
            via,
            mark,
            served: 0,
            born: tokio::time::Instant::now(),
        };
        self.pool.put(target.clone(), sender);
    }
}
