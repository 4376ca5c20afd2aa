//! Streams of kdev to wherever the relay's pod reaches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::memory::Memory;
use super::metered::{Cost, Metered};
use super::metrics::Metrics;
use super::names::Names;
use super::policy::Policy;
use super::sockets::{Place, Sockets, held};
use crate::addr::{Host, Target};
use crate::dial::{self, DialError, Flow, NAMESERVERS, Room, connect};
use crate::tunnel::{Incoming, Protocol, join};

/// Longest time for one address to answer; three SYNs.
const CONNECT_LIMIT: Duration = Duration::from_secs(7);
/// Longest time for all addresses of a name, its look-up included.
const DIAL_LIMIT: Duration = Duration::from_secs(15);
/// How long a UDP flow may carry nothing: what NATs should grant at least (RFC 4787, 4.3).
const UDP_IDLE: Duration = Duration::from_secs(120);
/// UDP flows at a time.
const MOST_FLOWS: usize = 4096;
/// What one is charged with beyond its stream: up to three buffers of 2 KiB.
const FLOW: usize = 8 << 10;
/// Bytes of a connection that are read at a time: one chunk of a tunnel.
const READ: usize = 64 << 10;
/// Bytes of the datagrams that fit no frame of Ethernet, of all flows together: what has no room
/// is lost.
const LARGE: usize = 4 << 20;

/// Dials for kdev.
#[derive(Clone)]
pub(super) struct Outbound {
    /// What may be reached.
    pub(super) policy: Policy,
    /// What names mean.
    pub(super) names: Names,
    /// What is counted.
    pub(super) metrics: Metrics,
    sockets: Sockets,
    memory: Memory,
    flows: Arc<Semaphore>,
    large: Room,
}

impl Outbound {
    pub(super) fn new(
        policy: Policy,
        names: Names,
        metrics: Metrics,
        sockets: Sockets,
        memory: Memory,
    ) -> Self {
        Self {
            policy,
            names,
            metrics,
            sockets,
            memory,
            flows: Arc::new(Semaphore::new(MOST_FLOWS)),
            large: Room::new(LARGE),
        }
    }

    /// Serves one stream to its end.
    pub(super) async fn serve(&self, mut incoming: Incoming) {
        match incoming.protocol {
            Protocol::Tcp => {
                let target = incoming.target.clone();
                // In a box that goes: a stream lives much longer than it takes to dial.
                let dialling = Box::pin(self.tcp(&target));
                let dialled = tokio::select! {
                    dialled = dialling => dialled,
                    () = incoming.abandoned() => return,
                };
                match dialled {
                    Ok((socket, place)) => {
                        if let Ok(stream) = incoming.accept() {
                            let purse = (self.memory.clone(), self.memory.forward().clone());
                            let cost = Cost {
                                unread: held(&place),
                                unsent: held(&place),
                                read: READ,
                            };
                            let socket = Metered::new(socket, purse, cost);
                            let (moved, _) = join(stream, socket).await;
                            self.metrics.carried(moved);
                        }
                    }
                    Err(error) => {
                        self.metrics.failed();
                        incoming.refuse(&error);
                    }
                }
            }
            Protocol::Udp => {
                let Ok(_permit) = self.flows.try_acquire() else {
                    self.metrics.failed();
                    let target = incoming.target.to_string();
                    return incoming.refuse(&DialError::Unreachable {
                        target,
                        reason: format!("the relay carries {MOST_FLOWS} UDP flows already"),
                        fix: String::new(),
                    });
                };
                let flow = self.memory.take(self.memory.forward(), FLOW, None);
                let Some(_flow) = flow else {
                    self.metrics.crowded();
                    let target = incoming.target.to_string();
                    return incoming.refuse(&DialError::Unreachable {
                        target,
                        reason: "the relay has no memory left for another UDP flow".to_owned(),
                        fix: String::new(),
                    });
                };
                match Box::pin(self.udp(&incoming.target)).await {
                    Ok(socket) => {
                        if let Ok(stream) = incoming.accept() {
                            let stream = Flow::capsules(stream, self.large.clone());
                            let socket = Flow::socket(socket);
                            let joined = dial::join(stream, socket, UDP_IDLE, &self.large);
                            let moved = Box::pin(joined).await;
                            self.metrics.carried(moved);
                        }
                    }
                    Err(error) => {
                        self.metrics.failed();
                        incoming.refuse(&error);
                    }
                }
            }
            Protocol::Control => incoming.refuse(&DialError::Forbidden {
                target: String::new(),
                reason: "a forward tunnel has no control stream".to_owned(),
            }),
        }
    }

    async fn tcp(&self, target: &Target) -> Result<(TcpStream, Place), DialError> {
        let dialling = async {
            let addresses = self.addresses(target).await?;
            let dial = |address| self.sockets.connect(address);
            connect::first(target, addresses, CONNECT_LIMIT, dial).await
        };
        bounded(target, dialling).await
    }

    async fn udp(&self, target: &Target) -> Result<UdpSocket, DialError> {
        let dialling = async {
            let addresses = self.addresses(target).await?;
            connect::udp(target, addresses).await
        };
        bounded(target, dialling).await
    }

    /// The addresses that may be reached; at least one.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, DialError> {
        let mut port = target.port;
        let ips = match &target.host {
            Host::Ip(ip) => vec![*ip],
            // Whoever may have names looked up here may do so himself. They may be link-local,
            // where the nodes have a cache.
            Host::Name(name) if name == NAMESERVERS => return Ok(self.names.servers().to_vec()),
            Host::Name(name) => {
                port = self.names.port(port);
                self.names.lookup(name, target).await?
            }
        };
        let (mut addresses, mut refused) = (Vec::new(), String::new());
        for ip in ips {
            let address = SocketAddr::new(ip, port);
            match self.policy.check(address) {
                Ok(()) => addresses.push(address),
                Err(reason) => refused = reason,
            }
        }
        if addresses.is_empty() {
            return Err(DialError::Forbidden {
                target: target.to_string(),
                reason: refused,
            });
        }
        Ok(addresses)
    }
}

async fn bounded<T>(
    target: &Target,
    dialling: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    match timeout(DIAL_LIMIT, dialling).await {
        Ok(result) => result,
        Err(_) => Err(DialError::TimedOut {
            target: target.to_string(),
            after: DIAL_LIMIT,
        }),
    }
}
