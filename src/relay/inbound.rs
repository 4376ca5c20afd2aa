//! Callers of intercepted Services: what arrives on port L goes to the session that attached L, or
//! else to the original pods, which stand behind the Service `kdev-<block>`, port L.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::claims::Claims;
use super::metrics::Metrics;
use super::names::Names;
use super::settings::BLOCK;
use super::sockets::{CALLER, Place, Sockets, listener};
use crate::addr::{Host, Target};
use crate::dial::DialError;
use crate::io::{Io as _, splice};
use crate::task::Tasks;
use crate::tunnel::{Protocol, join};

/// Pause after a failed accept: running out of file descriptors lasts until connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest time for one original pod to answer, before the next try: a pod that was just deleted
/// answers nothing.
const ORIGIN_LIMIT: Duration = Duration::from_secs(1);
/// How often the original pods are tried.
const ORIGIN_TRIES: usize = 3;
/// Connections of callers that live at a time on all ports.
const MOST_CALLERS: i64 = 8192;

/// Serves the fixed range.
#[derive(Clone)]
pub(super) struct Inbound {
    names: Names,
    claims: Claims,
    metrics: Metrics,
    sockets: Sockets,
    /// The last address of each Service, for when the DNS does not answer.
    known: Arc<Mutex<HashMap<u16, Vec<IpAddr>>>>,
    /// The first port of the range, from which blocks count.
    first: u16,
}

impl Inbound {
    /// Nothing is listened on before [`Inbound::listen`].
    #[must_use]
    pub(super) fn new(
        names: Names,
        claims: Claims,
        metrics: Metrics,
        sockets: Sockets,
        first: u16,
    ) -> Self {
        Self {
            names,
            claims,
            metrics,
            sockets,
            known: Arc::default(),
            first,
        }
    }

    /// Listens on `count` ports from the first one of the range, as tasks of `listening`, and
    /// serves what arrives, as tasks of `tasks`.
    ///
    /// # Errors
    /// When a port is taken.
    pub(super) fn listen(
        &self,
        ip: IpAddr,
        count: u16,
        listening: &Tasks,
        tasks: &Tasks,
    ) -> io::Result<()> {
        let mut listeners = Vec::with_capacity(count.into());
        for port in self.first..self.first + count {
            listeners.push((port, listener(SocketAddr::new(ip, port), CALLER)?));
        }
        for (port, listener) in listeners {
            listening.spawn(self.clone().accept(listener, port, tasks.clone()));
        }
        Ok(())
    }

    async fn accept(self, listener: TcpListener, port: u16, tasks: Tasks) {
        loop {
            let (socket, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, port, "a caller could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if self.metrics.streams() >= MOST_CALLERS {
                debug!(%peer, port, "too many connections; this one is closed");
                continue;
            }
            // Fails only on a socket that is gone already.
            let _ = socket.set_nodelay(true);
            let this = self.clone();
            tasks.spawn(async move { this.serve(socket, peer, port).await });
        }
    }

    async fn serve(&self, mut caller: TcpStream, peer: SocketAddr, port: u16) {
        let _live = self.metrics.stream();
        let target = self.origin(port);
        let Some(state) = self.claims.port(port).cloned() else {
            return;
        };
        let _open = state.accept();
        let routes = state.routes();
        let global = routes.rules.everything();
        let opener = match global {
            Some(entry) => entry.session.opener().await,
            None => None,
        };
        if let (Some(opener), Some(entry)) = (opener, global) {
            entry.hit();
            let opened = opener.open_for(&target, Protocol::Tcp, Some(peer)).await;
            // kdev's answer comes with its first bytes; a tunnel that is gone is noticed here.
            if let Ok(stream) = opened {
                self.metrics.inbound(true);
                let (moved, _) = join(stream, caller).await;
                self.metrics.carried(moved);
                return;
            }
        }
        self.metrics.inbound(false);
        match self.dial(&target, port).await {
            Ok((pod, _place)) => {
                let (moved, _) = splice(caller, pod).await;
                self.metrics.carried(moved);
            }
            Err(error) => {
                self.metrics.failed();
                debug!(%error, port, "the original pods cannot be reached");
                caller.reset();
            }
        }
    }

    /// The Service whose pods are the original ones of what arrives on `port`.
    fn origin(&self, port: u16) -> Target {
        let block = port - (port - self.first) % BLOCK;
        Target::new(Host::Name(format!("kdev-{block}")), port)
    }

    async fn dial(&self, target: &Target, port: u16) -> Result<(TcpStream, Place), DialError> {
        let mut last = DialError::NotFound {
            what: format!("Service {}", target.host),
            fix: String::new(),
        };
        for _ in 0..ORIGIN_TRIES {
            for ip in self.addresses(target).await? {
                let pod = self.sockets.connect((ip, port).into());
                match timeout(ORIGIN_LIMIT, pod).await {
                    Ok(Ok(connected)) => return Ok(connected),
                    Ok(Err(error)) => {
                        last = DialError::Unreachable {
                            target: target.to_string(),
                            reason: error.to_string(),
                            fix: String::new(),
                        };
                    }
                    Err(_) => {
                        last = DialError::TimedOut {
                            target: target.to_string(),
                            after: ORIGIN_LIMIT,
                        };
                    }
                }
            }
        }
        Err(last)
    }

    /// The Service's addresses, the last known ones where the DNS does not answer. A name that
    /// the DNS says does not exist is not remembered: its address may be another Service's.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, DialError> {
        let name = target.host.to_string();
        let found = self.names.lookup(&name, target).await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(ips) => {
                known.insert(target.port, ips.clone());
                Ok(ips)
            }
            Err(error @ DialError::NotFound { .. }) => {
                known.remove(&target.port);
                Err(error)
            }
            Err(error) => known.get(&target.port).cloned().ok_or(error),
        }
    }
}
