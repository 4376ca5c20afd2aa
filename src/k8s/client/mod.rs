//! Requests and upgrades to one API server, as one user, with credentials that stay fresh.
//!
//! A [`Client`] is a cheap handle. Behind it stands the current *generation*: one set of
//! credentials with its HTTP clients. The next generation is made in the background before the
//! credentials end, and at once, for all that wait together, when the API server answers 401.

mod error;
mod exchange;
mod generation;
mod patience;
mod refused;
mod request;
mod stack;
mod starting;
mod upgrade;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use hyper::{Request, Response};
use kube::client::Body;

pub use error::ClientError;
pub use patience::{PATIENCE, UNSAID};
pub use stack::CONNECT_TIMEOUT;
pub use upgrade::{UPGRADE_TIMEOUT, Upgrade, UpgradeError};

pub(crate) use error::Status;
pub(crate) use patience::retry_after;

use self::exchange::Kind;
use self::generation::{Freshness, Generation};
use self::patience::Held;
use self::refused::Refused;
use self::starting::Starting;
use super::kubeconfig::{Environment, KubeOptions};
use super::oidc;
use crate::task::Tasks;

/// How long the API server may take to begin its answer: its own limit for requests is 60 s, but
/// what kdev asks takes milliseconds.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Credentials are not renewed more often than this: a plugin that hands out what the API server
/// refuses must not run for every request.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);

type Renewal = Shared<BoxFuture<'static, Result<Arc<Generation>, ClientError>>>;

/// A cluster, as one user.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// How long a request waits in all where the API server asks for patience.
    patience: Duration,
}

struct Inner {
    options: KubeOptions,
    environment: Environment,
    about: About,
    current: ArcSwap<Generation>,
    renewing: Mutex<Renewing>,
    refused: Refused,
    starting: Starting,
    held: Held,
    /// The tokens of a login by OpenID Connect.
    logins: oidc::Session,
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

impl About {
    /// The API server's address with what stands before it, for a message about the way there.
    #[must_use]
    pub fn way(&self) -> String {
        way(&self.server, self.proxy.as_deref())
    }
}

fn way(server: &str, proxy: Option<&str>) -> String {
    match proxy {
        Some(proxy) => format!("{server} through the proxy {proxy}"),
        None => server.to_owned(),
    }
}

#[derive(Default)]
struct Renewing {
    running: Option<Renewal>,
    /// When the last one ended, and why it failed.
    last: Option<(Instant, Option<ClientError>)>,
    /// The reason that the user was told.
    said: Option<String>,
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
        Self::connect_asking(options, environment, tasks, true).await
    }

    /// As [`Client::connect_in`], without a terminal for credential plugins to ask on.
    ///
    /// # Errors
    /// As [`Client::connect`], and where a plugin has to ask.
    pub async fn connect_silently(
        options: KubeOptions,
        environment: Environment,
        tasks: &Tasks,
    ) -> Result<Self, ClientError> {
        Self::connect_asking(options, environment, tasks, false).await
    }

    async fn connect_asking(
        options: KubeOptions,
        environment: Environment,
        tasks: &Tasks,
        may_ask: bool,
    ) -> Result<Self, ClientError> {
        let loaded = generation::load(&options, &environment).await?;
        let about = About {
            context: loaded.context.clone(),
            cluster: loaded.cluster.clone(),
            user: loaded.user.clone(),
            namespace: loaded.namespace.clone(),
            server: loaded.server.to_string(),
            proxy: loaded.proxy(),
        };
        let logins = oidc::Session::default();
        let first = generation::build(loaded, 0, may_ask, &environment, &logins).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                environment,
                about,
                current: ArcSwap::from_pointee(first),
                renewing: Mutex::default(),
                refused: Refused::new(),
                starting: Starting::default(),
                held: Held::default(),
                logins,
                may_ask: AtomicBool::new(may_ask),
                tasks: tasks.clone(),
            }),
            patience: PATIENCE,
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

    /// Completes when the credentials are of no use any more and nothing gives better ones: the
    /// API server refuses even fresh ones, or what renews them keeps failing.
    pub async fn lost(&self) -> ClientError {
        self.inner.refused.lost().await
    }

    /// kube's client with the credentials of this moment. Ask for it again rather than keep it.
    ///
    /// # Errors
    /// When there are no good credentials.
    pub async fn kube(&self) -> Result<kube::Client, ClientError> {
        Ok(self.generation().await?.stack.requests.clone())
    }

    /// Sends a request with a URI relative to the API server. A 401 is answered once with fresh
    /// credentials, where the body can be sent again, and so is a 403 of a server that has just
    /// started, for as long as it may not have read its roles. A server that asks for patience by
    /// `Retry-After` gets it, up to [`PATIENCE`] unless [`Client::patient_for`] says otherwise. Any
    /// other status is returned as it came.
    ///
    /// # Errors
    /// When there are no good credentials, no answer within [`RESPONSE_TIMEOUT`], or no patience
    /// left.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ClientError> {
        self.exchange(request, Kind::Request).await
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
                Some(renewal) => renewal
                    .await
                    .inspect_err(|error| self.inner.refused.by_renewal(error)),
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
            generation::build(loaded, id, may_ask, &inner.environment, &inner.logins).await
        }
        .await;
        let result = result.map(Arc::new);
        match &result {
            Ok(generation) => {
                tracing::debug!(generation = id, "credentials renewed");
                inner.current.store(Arc::clone(generation));
            }
            // The session ends with these words.
            Err(error) if error.is_final() && !self.has_time() => {}
            Err(error) => self.say_once(error),
        }
        let mut renewing = self.renewing();
        renewing.running = None;
        if result.is_ok() {
            renewing.said = None;
        }
        renewing.last = Some((Instant::now(), result.as_ref().err().cloned()));
        result
    }

    /// Whether the credentials still serve, so that only their renewal has failed.
    fn has_time(&self) -> bool {
        self.inner.current.load().freshness() == Freshness::Ageing
    }

    /// Each reason is said once until the next success: what fails is tried for every request.
    fn say_once(&self, error: &ClientError) {
        let text = error.to_string();
        let mut renewing = self.renewing();
        if renewing.said.as_ref() == Some(&text) {
            tracing::debug!(%error, "the credentials could still not be renewed");
        } else {
            tracing::warn!("the credentials could not be renewed: {text}");
            renewing.said = Some(text);
        }
    }

    fn renewing(&self) -> std::sync::MutexGuard<'_, Renewing> {
        // Nothing panics while holding it; a poisoned one is as good as a sound one.
        self.inner
            .renewing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
