//! What runs in the cluster: takes kdev's tunnels, dials for them, and passes callers of
//! intercepted Services to kdev or to their original pods.
//!
//! It has no Kubernetes permission at all and keeps no state: what it needs to know comes with
//! the tunnels and from the cluster's DNS.

mod claims;
mod fallback;
mod hops;
mod http;
mod inbound;
mod kept;
mod laptop;
mod linger;
mod memory;
mod metered;
mod metrics;
mod mirror;
mod names;
mod origin;
mod outbound;
mod pace;
mod part;
mod policy;
mod ports;
mod route;
mod seat;
mod served;
mod sessions;
mod settings;
mod share;
mod sniff;
mod sockets;
mod strangers;
#[cfg(test)]
mod tests;
mod tunnels;
mod upgrade;
mod web;

use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::info;

use self::claims::Claims;
use self::inbound::Inbound;
pub use self::kept::Kept;
pub use self::memory::LIMIT as MEMORY_LIMIT;
use self::memory::{Memory, Plan};
pub use self::metrics::Metrics;
pub use self::names::Names;
use self::origin::Origin;
use self::outbound::Outbound;
pub use self::policy::{Policy, Rule};
pub use self::settings::{BLOCK, FIRST_PORT, HTTP_PORT, PORTS, Settings};
use self::sockets::{PAGE, Sockets, TUNNEL, listener};
use self::tunnels::{ForwardSessions, Tunnels};
use crate::task::Tasks;
use crate::tunnel::Budget;

/// How long callers are still taken after the pod was told to end: until the whole cluster knows.
const KEEP_ACCEPTING: Duration = Duration::from_secs(10);
/// How long open connections may go on after that.
const DRAIN: Duration = Duration::from_secs(15);
/// How long a relay that is told to end may take.
pub const LONGEST_END: Duration = KEEP_ACCEPTING.saturating_add(DRAIN);

/// A running relay.
pub struct Relay {
    tasks: Tasks,
    /// What accepts, which never ends by itself.
    listening: Tasks,
    tunnel: TcpListener,
    pod_tunnel: Option<TcpListener>,
    tunnels: Tunnels,
}

impl Relay {
    /// Listens on everything.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(settings: &Settings, names: Names) -> io::Result<Self> {
        Self::start_with(settings, names, Kept::default())
    }

    /// The same with listeners that were kept for it.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start_with(settings: &Settings, names: Names, mut kept: Kept) -> io::Result<Self> {
        let (tasks, metrics) = (Tasks::new(), Metrics::default());
        let listening = tasks.child();
        let (ip, first, count) = settings.inbound;
        let plan = Plan::of(settings.memory);
        let memory = Memory::new(plan, metrics.clone());
        let claims = Claims::new(first..first + count);
        let sockets = Sockets::new();
        let origin = Origin::new(
            names.clone(),
            sockets.clone(),
            first,
            claims.clone(),
            memory.clone(),
        );
        let inbound = Inbound::new(
            origin,
            claims.clone(),
            memory.clone(),
            metrics.clone(),
            tasks.clone(),
        );
        inbound.listen(ip, first..first + count, &mut kept, &listening)?;
        if let Some(address) = settings.http {
            listening.spawn(http::serve(
                listener(address, PAGE)?,
                metrics.clone(),
                tasks.clone(),
            ));
        }
        let tunnels = Tunnels {
            outbound: Outbound::new(
                settings.policy.clone(),
                names,
                metrics.clone(),
                sockets,
                memory.clone(),
            ),
            sessions: ForwardSessions::new(memory),
            claims,
            metrics,
            budget: Budget::growing(u32::try_from(plan.tunnels).unwrap_or(u32::MAX)),
            secrets: settings.secrets.clone(),
            tasks: tasks.clone(),
        };
        let relay = Self {
            tunnel: listener(settings.tunnel, TUNNEL)?,
            pod_tunnel: settings
                .pod_tunnel
                .map(|address| listener(address, TUNNEL))
                .transpose()?,
            tunnels,
            tasks,
            listening,
        };
        info!(tunnels = %settings.tunnel, from = first, ports = count, "listening");
        Ok(relay)
    }

    /// Where tunnels arrive.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<std::net::SocketAddr> {
        self.tunnel.local_addr()
    }

    /// Serves until `end`, then goes on for a while for callers that still come, tells all kdevs,
    /// and lets open connections finish.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let Self {
            tasks,
            listening,
            tunnel,
            pod_tunnel,
            tunnels,
        } = self;
        listening.spawn(tunnels.clone().listen(tunnel, true));
        if let Some(listener) = pod_tunnel {
            listening.spawn(tunnels.listen(listener, false));
        }
        end.await;
        info!(
            "asked to end; callers are still taken for {} s",
            KEEP_ACCEPTING.as_secs()
        );
        // kdev opens its streams elsewhere from here on; callers come until the last node knows.
        tasks.drain();
        tokio::time::sleep(KEEP_ACCEPTING).await;
        listening.kill();
        tasks.shutdown(DRAIN).await;
    }
}
