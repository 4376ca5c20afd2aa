//! Requests that are answered by a JSON object, or by a `Status` that says why not.

use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{ClientError, Status, innermost};
use super::{Client, RESPONSE_TIMEOUT};

/// Largest answer that is read whole: a page of 500 pods is about 10 MB.
const MAX_ANSWER: usize = 256 << 20;

impl Client {
    /// Gets `path` (with its query) and decodes the JSON answer.
    ///
    /// # Errors
    /// When the answer is not a success, or not a `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.call(Method::GET, path, Body::empty()).await?;
        self.decode(&body)
    }

    /// Posts `body` as JSON to `path` and decodes the JSON answer.
    ///
    /// # Errors
    /// When the answer is not a success, or not a `T`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let json = serde_json::to_vec(body).map_err(|e| self.not_understood(&e))?;
        let body = self.call(Method::POST, path, Body::from(json)).await?;
        self.decode(&body)
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|e| self.not_understood(&e))
    }

    async fn call(&self, method: Method, path: &str, body: Body) -> Result<Vec<u8>, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::ACCEPT, "application/json")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|e| self.not_understood(&e))?;
        let response = self.send(request).await?;
        self.body(response).await
    }

    /// The body of a success, or the failure that `response` is.
    pub(crate) async fn body(&self, response: Response<Body>) -> Result<Vec<u8>, ClientError> {
        let status = response.status();
        let read = tokio::time::timeout(RESPONSE_TIMEOUT, self.read_all(response.into_body()));
        let body = read.await.map_err(|_| ClientError::Unreachable {
            server: self.about().way(),
            reason: "its answer stopped in the middle".to_owned(),
        })??;
        if status.is_success() {
            return Ok(body);
        }
        let said = Status::parse(&body).unwrap_or_else(|| Status {
            message: String::from_utf8_lossy(&body)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            ..Status::default()
        });
        if status == StatusCode::UNAUTHORIZED {
            return Err(self.unauthorized(said.message));
        }
        Err(ClientError::Status {
            code: status.as_u16(),
            reason: said.reason,
            message: said.message,
        })
    }

    /// The whole of `body` in one piece. Collecting frames first would hold it twice, and a page
    /// of pods is large.
    async fn read_all(&self, mut body: Body) -> Result<Vec<u8>, ClientError> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or_default();
        let mut bytes = Vec::with_capacity(announced.min(MAX_ANSWER));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.not_understood(&e))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > MAX_ANSWER {
                    return Err(ClientError::Answer {
                        server: self.server().to_owned(),
                        reason: format!("it is longer than {MAX_ANSWER} bytes"),
                    });
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes)
    }

    pub(crate) fn not_understood(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        ClientError::Answer {
            server: self.server().to_owned(),
            reason: innermost(error),
        }
    }

    pub(super) fn unauthorized(&self, message: String) -> ClientError {
        ClientError::Unauthorized {
            context: self.inner.about.context.clone(),
            user: self.inner.about.user.clone(),
            message,
        }
    }
}
