//! A way into a cluster: the client, what is in the cluster, and the streams to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::connections::Connections;
use super::feed::Feed;
use super::intercept::Shown;
use super::registry::{self, Lends, Listening, Registration};
use super::signals::Ending;
use crate::addr::ClusterDomain;
use crate::config::Config;
use crate::dial::{Answered, Laptop, Router, Routes, Via};
use crate::dns;
use crate::k8s::catalog::Picked;
use crate::k8s::portforward::{KnownForm, PortForward};
use crate::k8s::{Catalog, Client, ClientError, discovery, relay};
use crate::proxy::{Refusals, Stats};
use crate::task::Tasks;
use crate::tunnel::pool::Pool;
use crate::upstream::{Proxies, Upstream};

mod forms;
mod report;

/// How long streams may go on after the session was asked to end.
const GRACE: Duration = Duration::from_secs(2);
/// How long saying goodbye to the cluster may take.
const GOODBYE: Duration = Duration::from_millis(200);
/// The same where somebody waits for the end: time to write it, and none for an answer.
const FAREWELL: Duration = Duration::from_millis(5);

/// How long a command that may use nothing else waits for its first tunnel.
const FIRST_TUNNEL: Duration = Duration::from_secs(15);

/// What sends each dial to the cluster or to the laptop's network.
pub type Dialer = DialerOf<Catalog>;
/// What carries dials, wherever `R` finds that they lead.
pub type DialerOf<R> = Router<R, PortForward, Upstream, Pool>;

/// A way into a cluster.
pub struct Session {
    /// Requests to the API server.
    pub client: Client,
    /// What is in the cluster.
    pub catalog: Catalog,
    /// Streams to pods.
    pub pods: PortForward,
    /// Tunnels to the relay; none where the user wants none.
    pub relay: Option<Pool>,
    /// What goes through the proxies of this session.
    pub stats: Arc<Stats>,
    /// What is told of its connections.
    connections: Arc<Connections>,
    /// The proxies on the way to what is not the cluster's.
    pub proxies: Proxies,
    /// The connections of apps, which are let finish when the session ends.
    pub tasks: Tasks,
    domain: ClusterDomain,
    routes: Routes,
    answered: Answered,
    via: Via,
    /// What serves those connections, and goes last.
    background: Tasks,
    began: SystemTime,
    /// Its intercepts, for `kdev status`.
    pub(super) shown: Shown,
}

impl Session {
    /// Connects, and fails early where the cluster cannot be reached or does not know the user.
    ///
    /// # Errors
    /// When the kubeconfig, the credentials or the way to the API server are broken.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        Self::open_behind(config, None).await
    }

    /// As [`Session::open`], for a proxy that listens at `own`: a proxy variable that leads there
    /// is not followed.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn open_behind(config: &Config, own: Option<SocketAddr>) -> anyhow::Result<Self> {
        registry::check_folder()?;
        let background = Tasks::new();
        let environment = config.environment();
        let proxies = environment.proxies.clone();
        if let Some(own) = own {
            proxies.is_own(own);
        }
        let client = Client::connect_in(config.kube.clone(), environment, &background).await?;
        let domain = config.cluster_domain.clone();
        let catalog = Catalog::start(client.clone(), domain.clone(), &background);
        // Tells a broken way or login from a missing permission, before a command is started.
        discovery::version(&client).await.map_err(advise)?;
        let known =
            forms::recall(&cluster(&client)).map_or_else(KnownForm::default, KnownForm::remembered);
        let pods = PortForward::new(client.clone(), known);
        let start = || relay::start(&client, &catalog, &pods, config.carrier, &background);
        let relay = (config.via != Via::Direct).then(start);
        if let (Some(relay), Via::Relay) = (&relay, config.via) {
            relay.ready(FIRST_TUNNEL).await?;
        }
        Ok(Self {
            client,
            catalog,
            pods,
            relay,
            stats: Arc::default(),
            connections: Arc::default(),
            proxies,
            tasks: Tasks::new(),
            domain,
            routes: config.routes.clone(),
            answered: Answered::default(),
            via: config.via,
            background,
            began: SystemTime::now(),
            shown: Shown::default(),
        })
    }

    /// Dials for the laptop's own programs (`loopback`) or for containers, which must not reach
    /// the laptop's loopback unless the user says so.
    #[must_use]
    pub fn dialer(&self, loopback: bool) -> Dialer {
        self.router(loopback, self.proxies.clone())
    }

    /// Dials for the laptop's own programs whose connections were caught on their way: what is not
    /// the cluster's goes as it would have gone, past the proxies that those programs do not know.
    #[must_use]
    pub fn dialer_past_proxies(&self) -> Dialer {
        self.router(true, Proxies::default())
    }

    fn router(&self, loopback: bool, proxies: Proxies) -> Dialer {
        let laptop = Upstream::new(Laptop { loopback }, proxies);
        Router::new(self.catalog.clone(), self.pods.clone(), laptop)
            .with_relay(self.relay.clone(), self.via)
            .with_routes(self.routes.clone())
            .with_answered(self.answered.clone())
            .with_observer(self.connections.clone())
    }

    /// Dials for the laptop's own programs that lead to `picked` pods, whatever their target is
    /// called: no rule for names applies.
    #[must_use]
    pub fn dialer_to(&self, picked: Picked) -> DialerOf<Picked> {
        let laptop = Upstream::new(Laptop { loopback: true }, self.proxies.clone());
        Router::new(picked, self.pods.clone(), laptop)
            .with_relay(self.relay.clone(), self.via)
            .with_observer(self.connections.clone())
    }

    /// The way to the cluster's DNS, for the names that the user leaves to it.
    #[must_use]
    pub fn inside(&self) -> dns::Inside<Pool> {
        let relay = self.relay.clone();
        dns::Inside::new(self.routes.clone(), relay, self.answered.clone())
    }

    /// The user's rules of which destinations are the cluster's.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What the commands that use it are told.
    pub(super) fn feed(&self) -> Arc<Feed> {
        self.connections.feed()
    }

    /// Where its proxies tell of requests that they refuse.
    pub(super) fn refusals(&self) -> Refusals {
        let connections = self.connections.clone();
        Refusals::new(move |text| connections.refused(text))
    }

    /// What serves the session's own needs, and goes last.
    pub(super) fn background(&self) -> &Tasks {
        &self.background
    }

    /// The cluster's DNS domain.
    #[must_use]
    pub fn domain(&self) -> &ClusterDomain {
        &self.domain
    }

    /// Shows the session to `kdev status`. Without a place to do so it goes on unseen.
    #[must_use]
    pub fn register(
        &self,
        command: &str,
        listening: Vec<Listening>,
        lends: Option<Lends>,
    ) -> Option<Registration> {
        let report = report::Reporter::new(self, command, listening, lends);
        let report = move || report.report();
        match registry::register(report, self.connections.feed(), &self.background) {
            Ok(registration) => Some(registration),
            Err(error) => {
                tracing::debug!(%error, "this session is not shown by `kdev status`");
                None
            }
        }
    }

    /// Serves until a signal asks for the end, ends in order, and gives the signal's number. Another
    /// one, a moment later, skips what is left of the grace.
    ///
    /// # Errors
    /// When the system refuses signal handlers, or the credentials are refused for good.
    pub async fn until_signal(self) -> anyhow::Result<u8> {
        let mut ending = Ending::listen()?;
        let client = self.client.clone();
        let ended = tokio::select! {
            number = ending.asked() => Ok(number),
            error = client.lost() => {
                Err(anyhow::Error::new(error).context("the login of this session is lost"))
            }
        };
        tokio::select! {
            () = self.close(GRACE) => {}
            () = ending.again(Instant::now()) => {}
        }
        ended
    }

    /// Ends the session: nothing new is accepted, connections may finish within `grace`, then the
    /// cluster is told goodbye.
    pub async fn close(self, grace: Duration) {
        self.end(grace, GOODBYE).await;
    }

    /// Ends the session at once, for whoever waits for kdev to be gone: nobody has a stream any more.
    pub async fn leave(self) {
        self.end(Duration::ZERO, FAREWELL).await;
    }

    async fn end(self, grace: Duration, goodbye: Duration) {
        if let Some((form, _)) = self.pods.status().form {
            forms::remember(&cluster(&self.client), form);
        }
        self.tasks.shutdown(grace).await;
        if let Some(relay) = &self.relay {
            relay.close(goodbye).await;
        }
        self.pods.close(goodbye).await;
        // Watches and refreshes have nothing to finish.
        self.background.shutdown(Duration::ZERO).await;
    }
}

/// What a remembered wire form belongs to.
fn cluster(client: &Client) -> String {
    format!("{} {}", client.server(), client.about().user)
}

/// Adds what a user can do about a way that is broken.
fn advise(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Unreachable { .. } => anyhow::anyhow!(
            "{error}; check the network, the VPN and the proxy: `kdev doctor` looks closer"
        ),
        other => other.into(),
    }
}
