//! kdev's side of the tunnels: one to each replica of the relay at once, more where bulk moves,
//! made anew when they are lost. A lost tunnel costs nothing but its own streams.

pub(crate) mod attempt;
mod keep;
mod load;
mod probe;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod transport;
mod tunnels;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use self::probe::{Probe, probe};
pub use self::status::{PoolStatus, ReplicaStatus, TunnelState, TunnelStatus};
pub use self::stream::PoolStream;
pub use self::transport::{Carried, Replicas, Transport, Trouble};

use self::load::Meter;
use self::tunnels::Shared;
use super::{Budget, Protocol, SessionId, Stream};
use crate::addr::Target;
use crate::dial::{Answer, DialError, DialRelay};
use crate::task::Tasks;

/// Bytes that all tunnels of a session may hold for apps that read slowly: four tunnels at their
/// widest.
const BUDGET: u32 = 128 << 20;
/// Bytes of one stream that may be on the way: 1.2 Gbit/s over 20 ms, 300 Mbit/s over 80 ms.
const STREAM_WINDOW: u32 = 4 << 20;
/// Apps that have stopped reading and fill a tunnel.
const FILLED_BY: u32 = 8;
/// How long a dial waits for a tunnel, and for the relay's answer: longer than an API server's
/// restart, shorter than most programs wait for a connection.
pub const DIAL_LIMIT: Duration = Duration::from_secs(20);

/// How long the first answer to which replicas there are is waited for: several times what it
/// takes an API server.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(5);

/// Tunnels to all replicas of a relay. Cloning is shallow.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

fn budget() -> Budget {
    Budget::new(BUDGET).with_streams(STREAM_WINDOW, FILLED_BY)
}

impl Pool {
    /// Keeps a tunnel over `transport` to each of `replicas`, from now on until it is closed.
    /// Call it inside a runtime.
    pub fn start<T: Transport>(transport: T, replicas: watch::Receiver<Replicas>) -> Self {
        let tasks = Tasks::new();
        let shared = Arc::new(Shared::new(replicas, budget(), tasks));
        let (transport, keepers) = (Arc::new(transport), shared.keepers.clone());
        keepers.spawn(keep::follow(shared.clone(), transport.clone()));
        keepers.spawn(keep::spares(shared.clone(), transport));
        keepers.spawn(keep::sweep(shared.clone()));
        keepers.spawn(keep::look(shared.clone()));
        Self { shared }
    }

    /// Which kdev this is to the relay, for its whole life.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.shared.identity.session()
    }

    /// What `kdev status` shows.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.shared.status()
    }

    /// Waits for a first tunnel, for at most `limit`.
    ///
    /// # Errors
    /// Why there is none: at once where somebody has to do something about it.
    pub async fn ready(&self, limit: Duration) -> Result<(), DialError> {
        self.find(Instant::now() + limit, limit).await.map(drop)
    }

    /// Says goodbye on each tunnel once its streams have ended, for at most `limit`; streams that
    /// are open then fail.
    pub async fn close(&self, limit: Duration) {
        self.shared.keepers.kill();
        self.shared.clear();
        self.shared.tasks.shutdown(limit).await;
    }

    /// The fittest tunnel, waited for until `deadline`, which is `limit` after the asking.
    async fn find(
        &self,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Arc<tunnels::Tunnel>, DialError> {
        let shared = &self.shared;
        let mut changes = shared.follow();
        loop {
            if let Some(tunnel) = shared.choose() {
                return Ok(tunnel);
            }
            if let Some(error) = shared.hopeless() {
                return Err(error);
            }
            // Nothing but an attempt to use one tells that it drains.
            shared.drop_drained();
            let waited = timeout_at(deadline, changes.changed()).await;
            if !matches!(waited, Ok(Ok(()))) {
                let last = shared.trouble();
                let last = last.map_or_else(String::new, |error| format!(" ({error})"));
                return Err(DialError::Cluster {
                    reason: format!("no tunnel to the relay within {} s{last}", limit.as_secs()),
                    fix: String::new(),
                });
            }
        }
    }

    async fn dial(
        &self,
        target: &Target,
        protocol: Protocol,
        answer: Answer,
    ) -> Result<PoolStream, DialError> {
        let deadline = Instant::now() + DIAL_LIMIT;
        loop {
            let tunnel = self.find(deadline, DIAL_LIMIT).await?;
            let opened = async {
                let mut stream = tunnel
                    .opener
                    .open(target, protocol)
                    .await
                    .map_err(Failed::early)?;
                if answer == Answer::Awaited {
                    let opened = stream.opened().await;
                    opened.map_err(|error| Failed::opening(error, &stream))?;
                }
                Ok(stream)
            };
            match timeout_at(deadline, opened).await {
                Ok(Ok(stream)) => {
                    let meter = Meter::new(tunnel.load.clone());
                    let traffic = self.shared.traffic.clone();
                    return Ok(PoolStream::new(stream, meter, traffic));
                }
                // Nothing of the app's was sent, so the next tunnel may try.
                Ok(Err(Failed { error, lost: true })) => {
                    self.shared.remove(&tunnel);
                    tracing::debug!(%target, %error, "dialling again on another tunnel");
                }
                Ok(Err(Failed { error, .. })) => return Err(error),
                Err(_) => {
                    return Err(DialError::TimedOut {
                        target: target.to_string(),
                        after: DIAL_LIMIT,
                    });
                }
            }
        }
    }
}

/// Why a stream was not opened.
struct Failed {
    error: DialError,
    /// It went down with its tunnel.
    lost: bool,
}

impl Failed {
    fn early(error: DialError) -> Self {
        // The other way to fail is a name that nobody could have.
        let lost = !matches!(error, DialError::NotFound { .. });
        Self { error, lost }
    }

    fn opening(error: DialError, stream: &Stream) -> Self {
        let lost = stream.is_lost();
        Self { error, lost }
    }
}

impl DialRelay for Pool {
    type Io = PoolStream;

    fn usable(&self) -> bool {
        self.shared.is_usable()
    }

    fn hopeless(&self) -> Option<DialError> {
        match self.shared.is_usable() {
            true => None,
            false => self.shared.hopeless(),
        }
    }

    async fn settled(&self) {
        let mut replicas = self.shared.replicas.clone();
        let known = replicas.wait_for(|r| !r.names.is_empty() || r.none.is_some());
        // Who looks for them may be gone, and then nothing more will be known.
        let _ = tokio::time::timeout(DISCOVERY_LIMIT, known).await;
    }

    async fn dial_relay(&self, target: &Target, answer: Answer) -> Result<PoolStream, DialError> {
        self.dial(target, Protocol::Tcp, answer).await
    }

    async fn dial_relay_udp(&self, target: &Target) -> Result<PoolStream, DialError> {
        self.dial(target, Protocol::Udp, Answer::AtOnce).await
    }
}
