//! The listener that a container can reach.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::ContainerError;

/// Connections that may wait to be accepted. A container that starts many workers at once opens a
/// burst; more than this is a flood.
const BACKLOG: i32 = 1024;

/// Where the proxy listens for the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address, which is one that other machines do not reach, or that [`super::Peers`]
    /// narrows down to this machine.
    pub ip: IpAddr,
    /// Whether the address may not exist yet: podman and nerdctl make a network's bridge with its
    /// first container.
    pub(super) may_come_later: bool,
}

impl Listen {
    pub(super) fn at(ip: IpAddr) -> Self {
        Self {
            ip,
            may_come_later: false,
        }
    }

    /// Binds the address, on `port` or any free one (0).
    pub fn bind(&self, port: u16) -> Result<TcpListener, ContainerError> {
        self.socket(port).map_err(|reason| ContainerError::Listen {
            address: self.ip,
            reason,
        })
    }

    fn socket(&self, port: u16) -> io::Result<TcpListener> {
        let addr = SocketAddr::new(self.ip, port);
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        if self.may_come_later {
            free_bind(&socket, self.ip)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    }
}

#[cfg(target_os = "linux")]
fn free_bind(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    match ip {
        IpAddr::V4(_) => socket.set_freebind_v4(true),
        IpAddr::V6(_) => socket.set_freebind_v6(true),
    }
}

#[cfg(not(target_os = "linux"))]
fn free_bind(_: &Socket, _: IpAddr) -> io::Result<()> {
    Ok(())
}

/// This machine's address towards the rest of the world: what the default route starts from.
pub(super) fn own_address() -> io::Result<IpAddr> {
    // Connecting a datagram socket chooses the route and sends nothing; the address is one that
    // nobody has (RFC 5737).
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:9")?;
    let ip = socket.local_addr()?.ip();
    if ip.is_loopback() || ip.is_unspecified() {
        return Err(io::Error::other("only loopback addresses"));
    }
    Ok(ip)
}
