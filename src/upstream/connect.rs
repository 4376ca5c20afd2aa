//! CONNECT to an HTTP proxy (RFC 9110, 9.3.6), as often on one connection as its login needs.

use std::pin::Pin;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;

use super::{MAX_HEAD, MAX_REFUSAL};
use crate::addr::Target;
use crate::io::{BoxIo, Io, Prefixed};

/// What moves the bytes of a connection, until it has ended.
type Driver = Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>;

impl Io for TokioIo<Upgraded> {}

/// A connection to an HTTP proxy on which nothing was opened yet.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: Driver,
}

/// What came of a CONNECT.
pub(super) enum Answer {
    /// The destination's stream.
    Open(BoxIo),
    /// 407, with the values of `Proxy-Authenticate`, and the connection where it goes on.
    Login(Vec<String>, Option<Connection>),
    /// Anything else: the status and the reason that came with it.
    Refused(StatusCode, String),
}

impl Connection {
    pub(super) async fn new(stream: BoxIo) -> hyper::Result<Self> {
        let (sender, connection) = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(connection.with_upgrades())),
        })
    }

    /// Asks for a connection to `target`.
    pub(super) async fn ask(
        mut self,
        target: &Target,
        authorization: Option<&str>,
    ) -> Result<Answer, hyper::Error> {
        let request = request(target, authorization);
        let sending = self.sender.send_request(request);
        let response = drive(&mut self.driver, sending).await?;
        let status = response.status();
        if status.is_success() {
            let upgrading = hyper::upgrade::on(response);
            let upgraded = drive(&mut self.driver, upgrading).await?;
            return Ok(match upgraded.downcast::<TokioIo<BoxIo>>() {
                Ok(parts) => Answer::Open(plain(parts.read_buf, parts.io.into_inner())),
                // It is what this connection was made of, so this does not happen; it works too.
                Err(upgraded) => Answer::Open(Box::new(TokioIo::new(upgraded))),
            });
        }
        if status != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            let reason = reason(&response);
            return Ok(Answer::Refused(status, reason));
        }
        let challenges = response.headers().get_all(PROXY_AUTHENTICATE).iter();
        let challenges = challenges
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        Ok(Answer::Login(challenges, self.after(response).await))
    }

    /// The connection, if it carries another request after `response`.
    async fn after(mut self, response: Response<Incoming>) -> Option<Self> {
        let old = response.version() < Version::HTTP_11;
        let says = |name: HeaderName, word: &str| {
            let mut values = response.headers().get_all(name).into_iter();
            values.any(|v| {
                let text = v.to_str().unwrap_or_default().to_ascii_lowercase();
                text.split(',').any(|token| token.trim() == word)
            })
        };
        let proxy_connection = HeaderName::from_static("proxy-connection");
        let closes = says(CONNECTION, "close") || says(proxy_connection, "close");
        if old || closes {
            return None;
        }
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect();
        drive(&mut self.driver, body).await.ok()?;
        drive(&mut self.driver, self.sender.ready()).await.ok()?;
        Some(self)
    }
}

fn request(target: &Target, authorization: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    let authority = target.to_string();
    // A target's text is an authority, and what a helper printed was looked at: neither fails.
    if let Ok(uri) = authority.parse() {
        *request.uri_mut() = uri;
    }
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&authority) {
        headers.insert(HOST, host);
    }
    // Old proxies keep a connection for a login only when they are asked to.
    headers.insert(
        HeaderName::from_static("proxy-connection"),
        HeaderValue::from_static("keep-alive"),
    );
    if let Some(Ok(mut value)) = authorization.map(HeaderValue::from_str) {
        value.set_sensitive(true);
        headers.insert(PROXY_AUTHORIZATION, value);
    }
    request
}

/// What a proxy says about a refusal: squid and others name the cause in a header.
fn reason(response: &Response<Incoming>) -> String {
    let status = response.status();
    let header = response
        .headers()
        .get("x-squid-error")
        .or_else(|| response.headers().get("proxy-status"))
        .and_then(|value| value.to_str().ok());
    match header {
        Some(text) => format!("{status} ({text})"),
        None => status.to_string(),
    }
}

/// Waits for `work`, moving the connection's bytes meanwhile.
async fn drive<T>(driver: &mut Driver, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    while let Some(moving) = driver {
        tokio::select! {
            biased;
            done = &mut work => return done,
            // Its error reaches what waits on it.
            _ = moving => *driver = None,
        }
    }
    work.await
}

/// Without a wrapper where the proxy sent nothing after its answer.
fn plain(early: Bytes, stream: BoxIo) -> BoxIo {
    if early.is_empty() {
        stream
    } else {
        Box::new(Prefixed::new(early, stream))
    }
}
