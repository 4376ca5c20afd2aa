//! HTTP to the proxy: CONNECT, absolute-form, and the proxy's own pages.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tracing::{Span, debug, field};

use super::access::{Access, Trust};
use super::conn::{App, Dialled, Session, linger};
use super::{HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, pages};
use crate::addr::Target;
use crate::dial::Dial;
use crate::http::{
    Body, Failure, Forwarded, Forwarder, MAX_BUFFER, MAX_HEAD, MAX_HEADERS, Passing, Reasoned,
    Upstream, Words, reclaim,
};
use crate::io::{BoxIo, Io, Prefixed};

/// Lines of a head that hyper reads where nothing else is said: programs send a proxy fewer.
const USUAL_HEADERS: usize = 100;

/// What becomes of the connection after an answer that ends HTTP on it.
struct Switch<I> {
    app: OnUpgrade,
    to: To<I>,
}

enum To<I> {
    /// CONNECT.
    Dialled(Dialled<I>),
    /// An upgrade that the origin agreed to.
    Upgraded(Upstream),
}

/// What the requests of one connection share.
struct Requests<'a, D: Dial> {
    session: &'a Session<D>,
    trust: Trust,
    /// Where all of them go, inside a stream.
    inside: Option<Target>,
    begun: Notify,
    switch: Mutex<Option<Switch<D::Io>>>,
}

/// Serves HTTP on an app's connection, and the stream that it may turn into.
pub(super) async fn serve<T: Io, D: Dial>(session: &Session<D>, app: App<T>, trust: Trust) {
    match switched(session, app, trust, None).await {
        Some((app, To::Dialled(dialled))) => session.join(app, dialled).await,
        Some((app, To::Upgraded(upstream))) => upgraded(session, app, upstream).await,
        None => {}
    }
}

/// Serves HTTP inside an app's stream to `target`, and what it may turn into.
pub(super) async fn serve_inside<D: Dial>(session: &Session<D>, app: BoxIo, target: Target) {
    // No other switch is made there.
    if let Some((app, To::Upgraded(upstream))) =
        switched(session, app, Trust::Full, Some(target)).await
    {
        upgraded(session, app, upstream).await;
    }
}

async fn upgraded<S: Io, D: Dial>(session: &Session<D>, app: S, upstream: Upstream) {
    match upstream.stream().await {
        Some(upstream) => session.splice(app, upstream).await,
        None => debug!("the origin left before its upgraded stream began"),
    }
}

/// Serves HTTP until that ends, and gives what the connection turns into, if anything.
async fn switched<S: Io, D: Dial>(
    session: &Session<D>,
    app: S,
    trust: Trust,
    inside: Option<Target>,
) -> Option<(Prefixed<S>, To<D::Io>)> {
    let requests = Requests {
        session,
        trust,
        inside,
        begun: Notify::new(),
        switch: Mutex::new(None),
    };
    if !speak(session, app, &requests).await {
        return None;
    }
    let switch = requests
        .switch
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Switch { app, to } = switch?;
    let Some(app) = app.await.ok().and_then(reclaim::<Reasoned<S>>) else {
        debug!("the app left before its stream began");
        return None;
    };
    let (read, app) = app.into_parts();
    Some((Prefixed::new(read, app.into_inner()), to))
}

/// What a connection that speaks HTTP waits for.
enum Event {
    Ended(hyper::Result<()>),
    /// The first request has begun to be answered, or took too long.
    Begun(bool),
    Drain,
}

/// Speaks HTTP until that ends. Returns whether it ended well.
async fn speak<S: Io, D: Dial>(session: &Session<D>, app: S, requests: &Requests<'_, D>) -> bool {
    let service = service_fn(|request| async {
        requests.begun.notify_one();
        Ok::<_, Infallible>(requests.answer(request).await)
    });
    let mut builder = http1::Builder::new();
    let words: Words = if requests.inside.is_some() {
        // What the stream would have carried as it is.
        builder.max_headers(MAX_HEADERS);
        |status| Some(unreadable(status, MAX_HEADERS))
    } else {
        |status| Some(unreadable(status, USUAL_HEADERS))
    };
    let mut connection = builder
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .preserve_header_case(true)
        .auto_date_header(false)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(Reasoned::new(app, words)), service)
        .with_upgrades();
    let mut begun = pin!(tokio::time::timeout(
        HANDSHAKE_TIMEOUT,
        requests.begun.notified()
    ));
    let mut draining = pin!(session.tasks.draining());
    let (mut waiting, mut serving) = (true, true);
    let ended = loop {
        let event = tokio::select! {
            biased;
            ended = &mut connection => Event::Ended(ended),
            begun = &mut begun, if waiting => Event::Begun(begun.is_ok()),
            () = &mut draining, if serving => Event::Drain,
        };
        match event {
            Event::Ended(ended) => break ended,
            Event::Begun(true) => waiting = false,
            Event::Begun(false) => {
                debug!("the first request took too long");
                return false;
            }
            Event::Drain => {
                serving = false;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let app = connection.into_parts().map(|parts| parts.io.into_inner());
    match (ended, app) {
        (Ok(()), Some(app)) => linger(app).await,
        (Ok(()), None) => {}
        (Err(error), app) => {
            debug!(%error, "HTTP broke");
            if let Some(mut app) = app {
                if let Some(failure) = app.refused() {
                    session.refused(failure);
                }
                if error.is_user() || error.is_body_write_aborted() {
                    // A response that was cut short must not look whole.
                    app.reset();
                } else {
                    linger(app).await;
                }
            }
            return false;
        }
    }
    true
}

impl<D: Dial> Requests<'_, D> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Some(target) = &self.inside {
            return self.pass(target, request).await;
        }
        let through = request.method() == Method::CONNECT || request.uri().scheme().is_some();
        if !through {
            let page = pages::answer(&self.session.config, &request, self.trust);
            return page.unwrap_or_else(|failure| self.session.refused(&failure).response());
        }
        if self.trust != Trust::Full && !is_admitted(&self.session.config.access, request.headers())
        {
            return password_required();
        }
        let result = if request.method() == Method::CONNECT {
            self.connect(request).await
        } else {
            self.forward(request).await
        };
        result.unwrap_or_else(|failure| {
            debug!(
                status = failure.status.as_u16(),
                text = failure.text,
                "failed"
            );
            self.session.refused(&failure).response()
        })
    }

    /// Dials before it answers, so that the app hears of a failure.
    async fn connect(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        if !request.body().is_end_stream() {
            return Err(Failure::bad_request("CONNECT has no body"));
        }
        let authority = request.uri().authority().map_or("", |a| a.as_str());
        let target: Target = authority
            .parse()
            .map_err(|e| Failure::bad_request(format!("{e}")))?;
        let upstream = self.session.dial(&target).await?;
        self.switch_to(hyper::upgrade::on(&mut request), To::Dialled(upstream));
        Ok(Response::new(Body::empty()))
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let target = Forwarder::<D>::target(request.uri())?;
        Span::current().record("target", field::display(&target));
        let app = hyper::upgrade::on(&mut request);
        let Forwarded { response, upstream } =
            self.session.forwarder.forward(&target, request).await?;
        if let Some(upstream) = upstream {
            self.switch_to(app, To::Upgraded(upstream));
        }
        Ok(response)
    }

    /// Sends on a request that came inside a stream to `target`.
    async fn pass(&self, target: &Target, mut request: Request<Incoming>) -> Response<Body> {
        let app = hyper::upgrade::on(&mut request);
        let passing = match Passing::new(request) {
            Ok(passing) => passing,
            Err(failure) => {
                let mut response = self.session.refused(&failure).response();
                // Where it ends is what nobody can be sure of.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
                return response;
            }
        };
        match self.session.forwarder.pass(target, passing).await {
            Ok(Forwarded { response, upstream }) => {
                if let Some(upstream) = upstream {
                    self.switch_to(app, To::Upgraded(upstream));
                }
                response
            }
            Err(failed) => self.session.refused(&failed.failure).response(),
        }
    }

    fn switch_to(&self, app: OnUpgrade, to: To<D::Io>) {
        let mut switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
        *switch = Some(Switch { app, to });
    }
}

impl<D: Dial> Session<D> {
    /// Tells of a request that the proxy refused, where it is the request that is at fault: of a failed
    /// dial whoever dials tells.
    fn refused<'a>(&self, failure: &'a Failure) -> &'a Failure {
        let own = matches!(failure.status.as_u16(), 400 | 405 | 414 | 431 | 501);
        if own && !failure.is_of_who_left() {
            let text = format!("refused a request to the proxy: {}", failure.text);
            self.config.refusals.tell(&text);
        }
        failure
    }
}

/// What is said of a head that hyper refuses.
fn unreadable(status: StatusCode, headers: usize) -> Failure {
    const READER: &str = "kdev's proxy";
    match status {
        StatusCode::BAD_REQUEST => Failure::bad_request(format!(
            "the head of this request is malformed, so {READER} cannot tell where it goes"
        )),
        _ => Failure::head_too_large(status, headers, READER),
    }
}

fn is_admitted(access: &Access, headers: &HeaderMap) -> bool {
    let password = || {
        let value = headers.get(PROXY_AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
        let colon = decoded.iter().position(|b| *b == b':')?;
        Some(decoded[colon + 1..].to_vec())
    };
    password().is_some_and(|password| access.admits(&password))
}

fn password_required() -> Response<Body> {
    let failure = Failure {
        status: StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        word: "password",
        text: "this proxy needs the session's password; kdev puts it into HTTP_PROXY and \
               ALL_PROXY of the containers that it starts"
            .to_owned(),
    };
    let mut response = failure.response();
    response.headers_mut().insert(
        PROXY_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"kdev\""),
    );
    response
}
