//! Readiness and metrics: two pages over HTTP/1.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::metrics::Metrics;
use super::strangers::Strangers;
use crate::io::accept;
use crate::task::Tasks;

/// How long a request's head may take.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long one connection may be used.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a request's head: scrapers and probes send a few hundred.
const HEAD: usize = 8 << 10;
/// Connections at a time: some probes and scrapers. One more cuts off the oldest, or else whoever
/// holds them all would make the pod count as not ready.
const MOST: usize = 64;

/// Serves `/readyz`, `/healthz` and `/metrics` until the relay ends.
pub(super) async fn serve(listener: TcpListener, metrics: Metrics, tasks: Tasks) {
    let strangers = Strangers::new(MOST);
    loop {
        let (socket, _) = accept(&listener).await;
        let (metrics, cut) = (metrics.clone(), strangers.enter());
        tasks.spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let response = page(request.uri().path(), &metrics);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .max_buf_size(HEAD)
                .serve_connection(TokioIo::new(socket), answer);
            tokio::select! {
                () = cut => {}
                // A prober that leaves is no failure.
                _ = tokio::time::timeout(CONNECTION_LIMIT, connection) => {}
            }
        });
    }
}

fn page(path: &str, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, kind, text) = match path {
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4", metrics.page()),
        // That this answers is all there is to say: every listener is bound before this one.
        "/readyz" | "/healthz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "not found\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}
