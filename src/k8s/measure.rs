//! How fast the way to the API server is.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::header::{ACCEPT, ACCEPT_ENCODING};
use kube::client::Body;

use super::client::{Client, ClientError};

/// The smallest document.
const SMALL: &str = "/version";
/// The largest document that nearly everybody who is logged in may read: 2 to 10 MB.
const LARGE: &str = "/openapi/v2";

/// What came, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download {
    /// Bytes of the document, which travelled uncompressed.
    pub bytes: u64,
    /// From the answer's head to its last byte.
    pub took: Duration,
}

impl Download {
    /// Bytes per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64().max(1e-6)
    }
}

/// The median of `count` small requests, one after the other on a connection that is there
/// already. A refusal takes as long as any other answer.
///
/// # Errors
/// When one of them gets no answer.
pub async fn round_trip(client: &Client, count: usize) -> Result<Duration, ClientError> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let request = Request::get(SMALL).body(Body::empty());
        let request = request.map_err(|e| client.not_understood(&e))?;
        let began = Instant::now();
        let response = client.impatient().send(request).await?;
        // To its end, or the next one would need a connection of its own.
        let _ = client.body(response).await;
        all.push(began.elapsed());
    }
    all.sort_unstable();
    Ok(all.get(all.len() / 2).copied().unwrap_or_default())
}

/// Downloads a large document for at most `limit` and throws it away.
///
/// # Errors
/// When the API server does not hand it out; 403 where it does not to this user.
pub async fn download(client: &Client, limit: Duration) -> Result<Download, ClientError> {
    let request = Request::get(LARGE)
        .header(ACCEPT, "application/json")
        // Compressed, it would measure the API server's processor.
        .header(ACCEPT_ENCODING, "identity")
        .body(Body::empty())
        .map_err(|e| client.not_understood(&e))?;
    let response = client.send(request).await?;
    if !response.status().is_success() {
        let code = response.status().as_u16();
        client.body(response).await?;
        return Err(ClientError::Status {
            code,
            reason: String::new(),
            message: format!("no {LARGE}"),
        });
    }
    let mut body = response.into_body();
    let began = Instant::now();
    let mut bytes = 0;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, bytes::Bytes::len) as u64;
        }
    };
    // What came until then counts as well.
    let _ = tokio::time::timeout(limit, all).await;
    Ok(Download {
        bytes,
        took: began.elapsed(),
    })
}
