//! Requests that become byte streams.

use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::header::HeaderMap;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::client::Body;

use super::Client;
use super::error::{ClientError, Status};
use super::exchange::Kind;

/// How long the answer to an upgrade may take, connecting included, and its body if it is a
/// refusal; a login that is waited for does not count. The API server connects to
/// the kubelet, and that to the container runtime, before it answers.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(15);
/// Most that is read of a refusal's body.
const MAX_REFUSAL: usize = 64 * 1024;

/// An upgraded connection.
#[derive(Debug)]
pub struct Upgrade {
    /// Always 101.
    pub status: StatusCode,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The stream. No timer sits on it.
    pub io: TokioIo<Upgraded>,
}

/// Why there is no upgraded connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The API server or the kubelet refused it in Kubernetes' own words.
    #[error("the API server answered {code} {reason}: {message}")]
    Status {
        /// The HTTP status.
        code: u16,
        /// The machine-readable reason, for example `Forbidden`; may be empty.
        reason: String,
        /// The server's words.
        message: String,
    },
    /// A refusal that is no Kubernetes Status: a container runtime that does not know the
    /// protocol (403), or something in between.
    #[error("the upgrade was answered {code}{}", text_suffix(.text))]
    Bare {
        /// The HTTP status.
        code: u16,
        /// The first line of the answer's body; may be empty.
        text: String,
    },
    /// The API server asked to wait, for longer than kdev does.
    #[error("{0}")]
    Busy(String),
    /// The way to the API server is broken.
    #[error("{0}")]
    Network(String),
    /// The credentials are not accepted or cannot be had.
    #[error("{0}")]
    Credentials(String),
}

fn text_suffix(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

impl From<ClientError> for UpgradeError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Status {
                code,
                reason,
                message,
            } => Self::Status {
                code,
                reason,
                message,
            },
            ClientError::Busy { .. } => Self::Busy(error.to_string()),
            ClientError::Unreachable { .. }
            | ClientError::Proxy { .. }
            | ClientError::Certificate { .. }
            | ClientError::Answer { .. } => Self::Network(error.to_string()),
            ClientError::Kubeconfig(_)
            | ClientError::Plugin(_)
            | ClientError::Login(_)
            | ClientError::Credentials { .. }
            | ClientError::Unauthorized { .. } => Self::Credentials(error.to_string()),
        }
    }
}

impl Client {
    /// Sends a request that asks for an upgrade, on a connection of its own. The URI is relative
    /// to the API server (`/api/v1/…`); credentials, proxy and impersonation are added. A 401 is
    /// answered once with fresh credentials; a server that asks for patience gets some seconds.
    ///
    /// Dropping the future closes the connection.
    ///
    /// # Errors
    /// When there are no good credentials, or the answer is not 101 within [`UPGRADE_TIMEOUT`].
    pub async fn upgrade(&self, request: Request<()>) -> Result<Upgrade, UpgradeError> {
        let request = request.map(|()| Body::empty());
        let response = self.exchange(request, Kind::Upgrade).await?;
        let rest = async {
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.refusal(response).await);
            }
            let (parts, body) = response.into_parts();
            let status = parts.status;
            let headers = parts.headers.clone();
            match hyper::upgrade::on(Response::from_parts(parts, body)).await {
                Ok(upgraded) => Ok(Upgrade {
                    status,
                    headers,
                    io: TokioIo::new(upgraded),
                }),
                Err(e) => Err(UpgradeError::Network(format!(
                    "the connection to the API server {} ended during the upgrade: {e}",
                    self.server()
                ))),
            }
        };
        match tokio::time::timeout(UPGRADE_TIMEOUT, rest).await {
            Ok(result) => result,
            Err(_) => Err(UpgradeError::Network(format!(
                "the API server {} did not finish its answer to an upgrade within {} s",
                self.server(),
                UPGRADE_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn refusal(&self, response: Response<Body>) -> UpgradeError {
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_REFUSAL);
        let bytes = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let bytes = bytes.unwrap_or_default();
        match Status::parse(&bytes) {
            Some(status) if code == 401 => self.unauthorized(status.message).into(),
            Some(status) => UpgradeError::Status {
                code,
                reason: status.reason,
                message: status.message,
            },
            None if code == 401 => self.unauthorized("Unauthorized".to_owned()).into(),
            None => UpgradeError::Bare {
                code,
                text: String::from_utf8_lossy(&bytes)
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
            },
        }
    }
}
