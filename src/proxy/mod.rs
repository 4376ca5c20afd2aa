//! The proxy that apps talk to: SOCKS5 (with UDP), SOCKS4, SOCKS4a, HTTP CONNECT and HTTP
//! absolute-form on one port, told apart by the first byte.
//!
//! It decides who may use the listener ([`Access`]), reads where a connection wants to go, dials
//! through the [`Dial`] it was given, and joins the two streams or hands the request to the
//! [forwarding engine](crate::http). What a name means, and what may be reached, is the dial's
//! part. Plain requests (origin-form) are refused: this is not a web server, and a web page must
//! not be able to make it act as one.

mod access;
#[cfg(target_os = "linux")]
mod captured;
mod conn;
mod datagrams;
#[cfg(target_os = "linux")]
mod held;
mod http;
mod inside;
mod pages;
mod reply;
mod socks4;
mod socks5;
mod stats;
#[cfg(test)]
mod tests;
mod tunnelled;
mod udp;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::{Instrument, debug_span, field};

pub use access::{Access, AllowedPeers, Password};
#[cfg(target_os = "linux")]
pub use captured::{Captured, Names};
pub use datagrams::serve_datagrams;
#[cfg(target_os = "linux")]
pub use held::{Held, IsNameserver, IsOurs};
pub use stats::{Snapshot, Stats};
pub use tunnelled::Tunnelled;

use crate::dial::{Dial, DialUdp};
use crate::io::accept_each;
use crate::task::Tasks;

/// Connections that one listener serves at a time; the next wait in the system's queue. More
/// than load tests of one laptop open, less than what exhausts its memory or ports, and as many
/// as one tunnel carries.
pub const MAX_CONNECTIONS: usize = 16_384;

/// How long an app may take for its handshake: the first byte, the SOCKS messages, the head of
/// the first HTTP request. All of it is sent without a human in between.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an HTTP connection may wait for its next request, head included. Clients keep idle
/// connections to a proxy for up to a minute or two, and a close that crosses a request costs
/// them an error.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How a proxy behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may use the listener.
    pub access: Access,
    /// What `GET /proxy.pac` answers; 404 without it.
    pub pac: Option<Pac>,
    /// Connections served at a time.
    pub max_connections: usize,
    /// Where the proxy counts; share it with whoever shows it.
    pub stats: Arc<Stats>,
    /// Hears why requests were refused.
    pub refusals: Refusals,
}

impl Config {
    /// The usual limits, and no PAC file.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self {
            access,
            pac: None,
            max_connections: MAX_CONNECTIONS,
            stats: Arc::default(),
            refusals: Refusals::default(),
        }
    }
}

/// Hears, in a sentence each, why the proxy itself refused a request. Failed dials are told by whoever
/// dials.
#[derive(Clone, Default)]
pub struct Refusals(Option<Arc<Hear>>);

type Hear = dyn Fn(&str) + Send + Sync;

impl Refusals {
    /// Told to `hear`, which should not wait.
    pub fn new(hear: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    fn tell(&self, text: &str) {
        if let Some(hear) = &self.0 {
            hear(text);
        }
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Refusals").field(&self.0.is_some()).finish()
    }
}

/// Makes the text of a PAC file when it is asked for.
#[derive(Clone)]
pub struct Pac(Arc<dyn Fn() -> String + Send + Sync>);

impl Pac {
    /// A PAC file that `text` writes.
    pub fn new(text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(text))
    }

    fn text(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for Pac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pac")
    }
}

/// Serves apps on `listener` until `tasks` drain. Connections live in `tasks`: requests under way
/// are finished, streams go on until their ends close them or the tasks are killed.
pub async fn serve<D: Dial + DialUdp>(
    listener: TcpListener,
    dial: D,
    config: Config,
    tasks: Tasks,
) {
    let most = config.max_connections;
    let session = Arc::new(conn::Session::new(dial, config, tasks.clone()));
    accept_each(listener, most, tasks, |stream, peer| {
        let session = session.clone();
        let span = debug_span!("conn", %peer, target = field::Empty);
        async move { session.accepted(stream, peer).await }.instrument(span)
    })
    .await;
}
