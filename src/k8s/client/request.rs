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

/// What requests and answers are, unless something else is said.
const JSON: &str = "application/json";

/// The head of a request.
struct Call<'a> {
    method: Method,
    path: &'a str,
    accept: &'static str,
    form: &'static str,
}

impl Client {
    /// Gets `path` (with its query) and decodes the JSON answer.
    ///
    /// # Errors
    /// When the answer is not a success, or not a `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get_as(path, JSON).await
    }

    /// Gets `path` as it is: a log.
    ///
    /// # Errors
    /// When the answer is not a success.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let call = Call {
            method: Method::GET,
            path,
            accept: "*/*",
            form: JSON,
        };
        let body = self.call(call, Body::empty()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// As [`Client::get`] for a list, of whose items only the metadata comes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn metadata<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let form = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        self.get_as(path, form).await
    }

    async fn get_as<T: DeserializeOwned>(
        &self,
        path: &str,
        accept: &'static str,
    ) -> Result<T, ClientError> {
        let call = Call {
            method: Method::GET,
            path,
            accept,
            form: JSON,
        };
        let body = self.call(call, Body::empty()).await?;
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
        self.change(Method::POST, path, JSON, body).await
    }

    /// Applies `object` at `path` on the server's side: the fields of earlier applies by the same
    /// `fieldManager` (in the path's query) that it has no more go away, those of others stay.
    ///
    /// # Errors
    /// When the answer is not a success, 409 among it where another manager has set a field
    /// to something else, or not a `T`.
    pub async fn apply<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.apply_told(path, object)
            .await
            .map(|(object, _)| object)
    }

    /// As [`Client::apply`]; also tells whether the object is new.
    ///
    /// # Errors
    /// As [`Client::apply`].
    pub async fn apply_told<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
    ) -> Result<(T, bool), ClientError> {
        // JSON is YAML, and no server before 1.34 takes an apply patch by any other name.
        let form = "application/apply-patch+yaml";
        let json = serde_json::to_vec(object).map_err(|e| self.not_understood(&e))?;
        let call = Call {
            method: Method::PATCH,
            path,
            accept: JSON,
            form,
        };
        let (status, body) = self.call_told(call, Body::from(json)).await?;
        Ok((self.decode(&body)?, status == StatusCode::CREATED))
    }

    /// Changes what is at `path` by a merge patch (RFC 7386), as the `fieldManager` in its query.
    ///
    /// # Errors
    /// When the answer is not a success, 409 among it where the patch has a `resourceVersion` that
    /// is not the newest, or not a `T`.
    pub async fn merge<T: DeserializeOwned>(
        &self,
        path: &str,
        patch: &impl Serialize,
    ) -> Result<T, ClientError> {
        let form = "application/merge-patch+json";
        self.change(Method::PATCH, path, form, patch).await
    }

    /// Deletes what is at `path`, with `options` (a `DeleteOptions`). Gives the answer's object:
    /// what is being deleted, or a `Status`.
    ///
    /// # Errors
    /// When the answer is not a success.
    pub async fn delete(
        &self,
        path: &str,
        options: &impl Serialize,
    ) -> Result<serde_json::Value, ClientError> {
        self.change(Method::DELETE, path, JSON, options).await
    }

    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        form: &'static str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let json = serde_json::to_vec(body).map_err(|e| self.not_understood(&e))?;
        let call = Call {
            method,
            path,
            accept: JSON,
            form,
        };
        let body = self.call(call, Body::from(json)).await?;
        self.decode(&body)
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|e| self.not_understood(&e))
    }

    async fn call(&self, call: Call<'_>, body: Body) -> Result<Vec<u8>, ClientError> {
        self.call_told(call, body).await.map(|(_, body)| body)
    }

    async fn call_told(
        &self,
        call: Call<'_>,
        body: Body,
    ) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(hyper::header::ACCEPT, call.accept)
            .header(hyper::header::CONTENT_TYPE, call.form)
            .body(body)
            .map_err(|e| self.not_understood(&e))?;
        let response = self.send(request).await?;
        let status = response.status();
        Ok((status, self.body(response).await?))
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
