//! One request and its answer, however often it has to be sent for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Request, Response, StatusCode};
use kube::client::Body;

use super::generation::Generation;
use super::patience::{Asked, Patience, UPGRADE_PATIENCE};
use super::starting::is_denial;
use super::{Client, ClientError, RESPONSE_TIMEOUT, UPGRADE_TIMEOUT, error};

/// First pause before a server that has just started is asked again, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Which of a generation's clients a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Upgrade,
}

impl Kind {
    /// How long the API server may take to begin its answer, connecting included.
    fn limit(self) -> Duration {
        match self {
            Self::Request => RESPONSE_TIMEOUT,
            Self::Upgrade => UPGRADE_TIMEOUT,
        }
    }

    /// How long it waits at most where the API server asks for patience.
    fn patience(self) -> Duration {
        match self {
            Self::Request => Duration::MAX,
            Self::Upgrade => UPGRADE_PATIENCE,
        }
    }
}

impl Client {
    /// The limits are the API server's: what waits for a login waits as long as that may take.
    pub(super) async fn exchange(
        &self,
        mut request: Request<Body>,
        kind: Kind,
    ) -> Result<Response<Body>, ClientError> {
        let mut renewed = None;
        let mut pause = FIRST_PAUSE;
        let mut patience = Patience::new(kind.patience().min(self.patience));
        let method = request.method().clone();
        let response = loop {
            let generation = match &renewed {
                Some(renewed) => Arc::clone(renewed),
                None => self.generation().await?,
            };
            let again = copy(&request);
            let sent = Instant::now();
            let response = self.send_as(&generation, request, kind).await?;
            let Some(again) = again else {
                break response;
            };
            if response.status() == StatusCode::UNAUTHORIZED && renewed.is_none() {
                let Some(renewal) = self.renew(&generation) else {
                    break response;
                };
                let fresh = renewal.await;
                renewed = Some(fresh.inspect_err(|error| self.inner.refused.by_server(error))?);
            } else if is_denial(&response) && self.inner.starting.explains(sent) {
                tracing::debug!(uri = %again.uri(), "denied by a server that may have just started");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else if let Some(asked) = Asked::of(&response, &method)
                && !self.patience.is_zero()
            {
                tracing::debug!(uri = %again.uri(), ?asked, "the API server asks to wait");
                drop(response);
                if !self.inner.held.wait(&mut patience, asked).await {
                    return Err(self.out_of(&patience, asked));
                }
            } else {
                break response;
            }
            request = again;
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            let error = self.unauthorized("Unauthorized".to_owned());
            self.inner.refused.by_server(&error);
        } else {
            self.inner.refused.accepted();
        }
        Ok(response)
    }

    async fn send_as(
        &self,
        generation: &Generation,
        request: Request<Body>,
        kind: Kind,
    ) -> Result<Response<Body>, ClientError> {
        let client = match kind {
            Kind::Request => &generation.stack.requests,
            Kind::Upgrade => &generation.stack.upgrades,
        };
        let about = &self.inner.about;
        let limit = kind.limit();
        let namespaced = request.uri().path().contains("/namespaces/");
        let answer = match tokio::time::timeout(limit, client.send(request)).await {
            Ok(sent) => sent.map_err(|e| error::classify(&e, &about.context, &about.way())),
            Err(_) => Err(ClientError::Unreachable {
                server: about.way(),
                reason: format!("no answer within {} s", limit.as_secs()),
            }),
        };
        match &answer {
            Ok(response) => self.inner.starting.answered(namespaced, response.status()),
            Err(ClientError::Unreachable { .. }) => self.inner.starting.away(),
            Err(_) => {}
        }
        answer
    }
}

/// The same request once more, where its body can be had twice.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let body = request.body().try_clone()?;
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.version_mut() = request.version();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}
