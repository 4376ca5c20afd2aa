//! Streams of kdev to wherever the relay's pod reaches.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::metrics::Metrics;
use super::names::Names;
use super::policy::Policy;
use crate::addr::{Host, Target};
use crate::dial::DialError;
use crate::tunnel::{Incoming, Protocol, Stream, datagram, join};

/// Longest time for one address to answer; three SYNs.
const CONNECT_LIMIT: Duration = Duration::from_secs(7);
/// Longest time for all addresses of a name, its look-up included.
const DIAL_LIMIT: Duration = Duration::from_secs(15);
/// How long a UDP flow may carry nothing: what NATs should grant at least (RFC 4787, 4.3).
const UDP_IDLE: Duration = Duration::from_secs(120);
/// Bytes read at a time from a stream that carries datagrams.
const UDP_READ: usize = 16 << 10;

/// Dials for kdev.
#[derive(Clone)]
pub(super) struct Outbound {
    /// What may be reached.
    pub(super) policy: Policy,
    /// What names mean.
    pub(super) names: Names,
    /// What is counted.
    pub(super) metrics: Metrics,
}

impl Outbound {
    /// Serves one stream to its end.
    pub(super) async fn serve(&self, mut incoming: Incoming) {
        match incoming.protocol {
            Protocol::Tcp => {
                let target = incoming.target.clone();
                let dialled = tokio::select! {
                    dialled = self.tcp(&target) => dialled,
                    () = incoming.abandoned() => return,
                };
                match dialled {
                    Ok(socket) => {
                        if let Ok(stream) = incoming.accept() {
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
            Protocol::Udp => match self.udp(&incoming.target).await {
                Ok(socket) => {
                    if let Ok(stream) = incoming.accept() {
                        // Either side may end a flow at any time: there is nobody to tell.
                        let _ = flow(stream, &socket).await;
                    }
                }
                Err(error) => {
                    self.metrics.failed();
                    incoming.refuse(&error);
                }
            },
            Protocol::Control => incoming.refuse(&DialError::Forbidden {
                target: String::new(),
                reason: "a forward tunnel has no control stream".to_owned(),
            }),
        }
    }

    async fn tcp(&self, target: &Target) -> Result<TcpStream, DialError> {
        let dialling = async {
            let mut last = None;
            for address in self.addresses(target).await? {
                match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
                    Ok(Ok(socket)) => {
                        // Fails only on a socket that is gone already.
                        let _ = socket.set_nodelay(true);
                        return Ok(socket);
                    }
                    Ok(Err(error)) => last = Some(cause(target, &error)),
                    Err(_) => last = Some(timed_out(target, CONNECT_LIMIT)),
                }
            }
            Err(last.unwrap_or_else(|| timed_out(target, CONNECT_LIMIT)))
        };
        match timeout(DIAL_LIMIT, dialling).await {
            Ok(result) => result,
            Err(_) => Err(timed_out(target, DIAL_LIMIT)),
        }
    }

    async fn udp(&self, target: &Target) -> Result<UdpSocket, DialError> {
        let addresses = timeout(DIAL_LIMIT, self.addresses(target)).await;
        let addresses = addresses.map_err(|_| timed_out(target, DIAL_LIMIT))??;
        let mut last = timed_out(target, DIAL_LIMIT);
        for address in addresses {
            let own: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = async {
                let socket = UdpSocket::bind(own).await?;
                // Connected, so that only this peer's datagrams come back.
                socket.connect(address).await?;
                io::Result::Ok(socket)
            };
            match socket.await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = cause(target, &error),
            }
        }
        Err(last)
    }

    /// The addresses that may be reached; at least one.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, DialError> {
        let ips = match &target.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => self.names.lookup(name, target).await?,
        };
        let (mut addresses, mut refused) = (Vec::new(), String::new());
        for ip in ips {
            let address = SocketAddr::new(ip, target.port);
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

fn timed_out(target: &Target, after: Duration) -> DialError {
    DialError::TimedOut {
        target: target.to_string(),
        after,
    }
}

fn cause(target: &Target, error: &io::Error) -> DialError {
    let target = target.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused {
            target,
            reason: String::new(),
        },
        io::ErrorKind::TimedOut => DialError::TimedOut {
            target,
            after: CONNECT_LIMIT,
        },
        _ => DialError::Unreachable {
            target,
            reason: error.to_string(),
            fix: String::new(),
        },
    }
}

/// Carries datagrams until the stream ends or nothing came for [`UDP_IDLE`].
async fn flow(mut stream: Stream, socket: &UdpSocket) -> io::Result<()> {
    let (mut read, mut wire) = (BytesMut::new(), BytesMut::new());
    let mut datagram = vec![0; datagram::MAX_PAYLOAD];
    loop {
        tokio::select! {
            received = socket.recv(&mut datagram) => {
                match received {
                    Ok(n) => {
                        wire.clear();
                        datagram::encode(&datagram[..n], &mut wire);
                        stream.write_all(&wire).await?;
                    }
                    // The peer's port is closed, perhaps for a moment: UDP has no connections.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error),
                }
            }
            n = async { read.reserve(UDP_READ); stream.read_buf(&mut read).await } => {
                if n? == 0 {
                    return stream.shutdown().await;
                }
                loop {
                    match datagram::decode(&mut read) {
                        // What the socket does not take is lost, as on every way of UDP.
                        Ok(Some(payload)) => drop(socket.send(&payload).await),
                        Ok(None) => break,
                        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                    }
                }
            }
            () = tokio::time::sleep(UDP_IDLE) => return stream.shutdown().await,
        }
    }
}
