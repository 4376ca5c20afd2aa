//! Requests and upgrades to one API server, as one user, with credentials that stay fresh.
//!
//! A [`Client`] is a cheap handle. Behind it stands the current *generation*: one set of
//! credentials with its HTTP clients. The next generation is made in the background before the
//! credentials end, and at once, for all that wait together, when the API server answers 401.

mod error;
mod generation;
mod stack;
#[cfg(test)]
mod tests;
mod upgrade;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::ClientError;
pub use stack::CONNECT_TIMEOUT;
pub use upgrade::{UPGRADE_TIMEOUT, Upgrade, UpgradeError};

pub(crate) use error::{Status, innermost};

use self::generation::{Freshness, Generation};
use super::kubeconfig::{Environment, KubeOptions};
use crate::task::Tasks;

/// How long the API server may take to begin its answer: its own limit for requests is 60 s, but
/// what kdev asks takes milliseconds.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Credentials are not renewed more often than this: a plugin that hands out what the API server
/// refuses must not run for every request.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// Largest answer that is read whole: a page of 500 pods is about 10 MB.
const MAX_ANSWER: usize = 256 << 20;

type Renewal = Shared<BoxFuture<'static, Result<Arc<Generation>, ClientError>>>;

/// A cluster, as one user.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: KubeOptions,
    environment: Environment,
    about: About,
    current: ArcSwap<Generation>,
    renewing: Mutex<Renewing>,
    /// Whether a plugin may use the terminal.
    may_ask: AtomicBool,
    tasks: Tasks,
}

/// What a client is connected to.
#[derive(Clone, Debug)]
pub struct About {
    /// The context's name.
    pub context: String,
    /// The cluster's name.
    pub cluster: String,
    /// The user's name.
    pub user: String,
    /// The namespace for names without one.
    pub namespace: String,
    /// The API server's address.
    pub server: String,
    /// The proxy on the way to it.
    pub proxy: Option<String>,
}

#[derive(Default)]
struct Renewing {
    running: Option<Renewal>,
    /// When the last one ended, and why it failed.
    last: Option<(Instant, Option<ClientError>)>,
}

/// Which of a generation's clients a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Upgrade,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.inner.about).finish()
    }
}

impl Client {
    /// Reads the kubeconfig and gets credentials, asking the user where a plugin has to. Sends
    /// nothing to the API server yet. `tasks` owns what runs in the background.
    ///
    /// # Errors
    /// When the kubeconfig or the credentials cannot be used.
    pub async fn connect(options: KubeOptions, tasks: &Tasks) -> Result<Self, ClientError> {
        Self::connect_in(options, Environment::of_process(), tasks).await
    }

    /// As [`Client::connect`], in a given environment.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_in(
        options: KubeOptions,
        environment: Environment,
        tasks: &Tasks,
    ) -> Result<Self, ClientError> {
        let loaded = generation::load(&options, &environment).await?;
        let about = About {
            context: loaded.context.clone(),
            cluster: loaded.cluster.clone(),
            user: loaded.user.clone(),
            namespace: loaded.namespace.clone(),
            server: loaded.server.to_string(),
            proxy: loaded.proxy.as_ref().map(|p| p.uri().to_string()),
        };
        let first = generation::build(loaded, 0, true).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                environment,
                about,
                current: ArcSwap::from_pointee(first),
                renewing: Mutex::default(),
                may_ask: AtomicBool::new(true),
                tasks: tasks.clone(),
            }),
        })
    }

    /// What this client is connected to.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.inner.about
    }

    /// The API server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.inner.about.server
    }

    /// The namespace for names without one.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.inner.about.namespace
    }

    /// From now on the terminal is somebody else's: credential plugins ask nothing any more.
    pub fn release_terminal(&self) {
        self.inner.may_ask.store(false, Ordering::Relaxed);
    }

    /// kube's client with the credentials of this moment. Ask for it again rather than keep it.
    ///
    /// # Errors
    /// When there are no good credentials.
    pub async fn kube(&self) -> Result<kube::Client, ClientError> {
        Ok(self.generation().await?.stack.requests.clone())
    }

    /// Sends a request with a URI relative to the API server. A 401 is answered once with fresh
    /// credentials, where the body can be sent again; any status is returned as it came.
    ///
    /// # Errors
    /// When there is no answer within [`RESPONSE_TIMEOUT`].
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ClientError> {
        match tokio::time::timeout(RESPONSE_TIMEOUT, self.exchange(request, Kind::Request)).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Unreachable {
                server: self.server().to_owned(),
                reason: format!("no answer within {} s", RESPONSE_TIMEOUT.as_secs()),
            }),
        }
    }

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
            server: self.server().to_owned(),
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

    fn unauthorized(&self, message: String) -> ClientError {
        ClientError::Unauthorized {
            context: self.inner.about.context.clone(),
            user: self.inner.about.user.clone(),
            message,
        }
    }

    async fn exchange(
        &self,
        request: Request<Body>,
        kind: Kind,
    ) -> Result<Response<Body>, ClientError> {
        let (parts, body) = request.into_parts();
        let again = body
            .try_clone()
            .map(|body| Request::from_parts(parts.clone(), body));
        let generation = self.generation().await?;
        let request = Request::from_parts(parts, body);
        let response = self.send_as(&generation, request, kind).await?;
        match again {
            Some(again) if response.status() == StatusCode::UNAUTHORIZED => {
                match self.renew(&generation) {
                    Some(renewal) => {
                        let renewed = renewal.await?;
                        self.send_as(&renewed, again, kind).await
                    }
                    None => Ok(response),
                }
            }
            _ => Ok(response),
        }
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
        client
            .send(request)
            .await
            .map_err(|e| error::classify(&e, &about.context, &about.server))
    }

    /// Credentials that are good now.
    async fn generation(&self) -> Result<Arc<Generation>, ClientError> {
        let current = self.inner.current.load_full();
        match current.freshness() {
            Freshness::Fresh => Ok(current),
            Freshness::Ageing => {
                // Runs as a task of its own; this request takes what there is.
                drop(self.renew(&current));
                Ok(current)
            }
            Freshness::Spent => match self.renew(&current) {
                Some(renewal) => renewal.await,
                None => Ok(current),
            },
        }
    }

    /// Starts to replace the generation `seen`, or joins who does that already, or finds it done.
    /// None where that was tried just now, with no better outcome.
    fn renew(&self, seen: &Generation) -> Option<Renewal> {
        let mut renewing = self.renewing();
        let current = self.inner.current.load_full();
        if current.id != seen.id {
            return Some(futures_util::future::ready(Ok(current)).boxed().shared());
        }
        if let Some(running) = &renewing.running {
            return Some(running.clone());
        }
        if let Some((when, outcome)) = &renewing.last
            && when.elapsed() < RENEW_INTERVAL
        {
            let error = outcome.clone()?;
            return Some(futures_util::future::ready(Err(error)).boxed().shared());
        }
        let client = self.clone();
        let next = seen.id + 1;
        let renewal = async move { client.next_generation(next).await }
            .boxed()
            .shared();
        renewing.running = Some(renewal.clone());
        drop(renewing);
        // Who asked may go away; a login that has begun is finished all the same.
        self.inner.tasks.spawn(renewal.clone().map(drop));
        Some(renewal)
    }

    async fn next_generation(&self, id: u64) -> Result<Arc<Generation>, ClientError> {
        let inner = &self.inner;
        let may_ask = inner.may_ask.load(Ordering::Relaxed);
        let result = async {
            // Read again: another program may have logged in meanwhile.
            let loaded = generation::load(&inner.options, &inner.environment).await?;
            generation::build(loaded, id, may_ask).await
        }
        .await;
        let result = result.map(Arc::new);
        match &result {
            Ok(generation) => {
                tracing::debug!(generation = id, "credentials renewed");
                inner.current.store(Arc::clone(generation));
            }
            Err(error) => tracing::warn!(%error, "the credentials could not be renewed"),
        }
        let mut renewing = self.renewing();
        renewing.running = None;
        renewing.last = Some((Instant::now(), result.as_ref().err().cloned()));
        result
    }

    fn renewing(&self) -> std::sync::MutexGuard<'_, Renewing> {
        // Nothing panics while holding it; a poisoned one is as good as a sound one.
        self.inner
            .renewing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
