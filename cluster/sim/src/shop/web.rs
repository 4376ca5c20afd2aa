//! The shop's HTTP servers.

use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::stream::SimStream;

type Page = Response<Full<Bytes>>;

/// The storefront: says which pod it is.
pub(super) async fn greet(io: SimStream, name: String) {
    serve(io, |request| {
        let page = page("text/plain; charset=utf-8", format!("hello from {name}\n"));
        let found = request.uri().path() == "/";
        async move { if found { page } else { missing() } }
    })
    .await;
}

/// The orders API.
pub(super) async fn orders(io: SimStream) {
    serve(io, |request| {
        let path = request.uri().path().to_owned();
        async move {
            let orders = book();
            match path
                .strip_prefix("/orders")
                .map(|rest| rest.trim_start_matches('/'))
            {
                None if path == "/" => document(&json!({"service": "orders", "try": "/orders"})),
                Some("") => document(&Value::from(orders)),
                Some(id) => orders
                    .iter()
                    .find(|order| order["id"].as_u64() == id.parse().ok())
                    .map_or_else(missing, document),
                None => missing(),
            }
        }
    })
    .await;
}

/// A health check.
pub(super) async fn health(io: SimStream) {
    serve(io, |_| async { document(&json!({"status": "ok"})) }).await;
}

fn book() -> Vec<Value> {
    vec![
        json!({"id": 1, "item": "teapot", "amount": 2}),
        json!({"id": 2, "item": "kettle", "amount": 1}),
        json!({"id": 3, "item": "cups", "amount": 6}),
    ]
}

async fn serve<F, Fut>(io: SimStream, answer: F)
where
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future<Output = Page>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    // A client that breaks off or speaks nonsense has been answered as far as it goes.
    let _ = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(io), service)
        .await;
}

fn document(value: &Value) -> Page {
    page("application/json", format!("{value}\n"))
}

fn page(kind: &'static str, body: String) -> Page {
    let mut page = Response::new(Full::new(Bytes::from(body)));
    page.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page
}

fn missing() -> Page {
    let mut page = page("text/plain; charset=utf-8", "not found\n".to_owned());
    *page.status_mut() = StatusCode::NOT_FOUND;
    page
}
