//! Streams and datagrams by way of kdev, or past it where it leaves them to the container's network.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::debug;

use crate::addr::{Host, Target};
use crate::capture::container::own;
use crate::dial::{DialError, DialUdp, Flow, Room};
use crate::io::splice;
use crate::tunnel::{Opener, Protocol, Stream, join};

/// How long a connection past kdev may take: what Linux gives one by default.
const CONNECT_LIMIT: Duration = Duration::from_secs(130);
/// Bytes of the datagrams that fit no frame of Ethernet, of all flows together.
const LARGE: usize = 4 << 20;

/// Opens them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Upward {
    opener: Opener,
    large: Room,
}

/// A stream that is open.
pub(super) enum Opened {
    /// By way of kdev.
    Tunnel(Box<Stream>),
    /// Past it.
    Past(TcpStream),
}

impl Opened {
    /// Joins it with the connection of a program until both have ended.
    pub(super) async fn join(self, program: TcpStream) {
        // How it ends is known to both ends.
        match self {
            Self::Tunnel(stream) => drop(join(*stream, program).await),
            Self::Past(stream) => drop(splice(program, stream).await),
        }
    }
}

impl Upward {
    pub(super) fn new(opener: Opener) -> Self {
        Self {
            opener,
            large: Room::new(LARGE),
        }
    }

    /// A stream to `target`, which the other end has taken.
    pub(super) async fn stream(&self, target: &Target) -> Result<Opened, DialError> {
        match self.ask(target, Protocol::Tcp).await? {
            Some(stream) => Ok(Opened::Tunnel(Box::new(stream))),
            None => past(target).await.map(Opened::Past),
        }
    }

    /// A stream of kdev's; `None` where it leaves it to this side.
    async fn ask(&self, target: &Target, protocol: Protocol) -> Result<Option<Stream>, DialError> {
        let mut stream = self.opener.open(target, protocol).await?;
        match stream.opened().await {
            Ok(()) => Ok(Some(stream)),
            Err(_) if stream.is_declined() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl DialUdp for Upward {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        match self.ask(target, Protocol::Udp).await? {
            Some(stream) => Ok(Flow::capsules(stream, self.large.clone())),
            None => past_udp(target).await.map(Flow::socket),
        }
    }
}

async fn past(target: &Target) -> Result<TcpStream, DialError> {
    let address = address(target)?;
    let connecting = async {
        let socket = own(address.is_ipv6(), false)?;
        let stream = TcpSocket::from_std_stream(socket.into());
        let stream = stream.connect(address).await?;
        // Fails only on a socket that is gone already; the first read says so.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    };
    match timeout(CONNECT_LIMIT, connecting).await {
        Ok(connected) => connected.map_err(|error| failed(target, &error)),
        Err(_) => Err(DialError::TimedOut {
            target: target.to_string(),
            after: CONNECT_LIMIT,
        }),
    }
}

async fn past_udp(target: &Target) -> Result<UdpSocket, DialError> {
    let address = address(target)?;
    let opened = async {
        let socket = own(address.is_ipv6(), true)?;
        let socket = UdpSocket::from_std(socket.into())?;
        socket.connect(address).await?;
        Ok(socket)
    };
    opened.await.map_err(|error| failed(target, &error))
}

fn address(target: &Target) -> Result<SocketAddr, DialError> {
    match target.host {
        Host::Ip(ip) => Ok(SocketAddr::new(ip, target.port)),
        Host::Name(_) => Err(DialError::NotFound {
            what: target.to_string(),
            fix: String::new(),
        }),
    }
}

fn failed(target: &Target, error: &std::io::Error) -> DialError {
    debug!(%target, %error, "past kdev");
    DialError::Unreachable {
        target: target.to_string(),
        reason: error.to_string(),
        fix: String::new(),
    }
}
