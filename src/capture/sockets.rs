//! Sockets that take, and send from, addresses that are not their own.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::nft::OWN_MARK;

/// Connections that wait to be accepted; the kernel has a limit of its own, which is the same.
const BACKLOG: i32 = 4096;

fn socket(domain: Domain, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, None::<Protocol>)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

pub(super) fn bound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = socket(Domain::for_address(address), kind)?;
    socket.set_reuse_address(kind == Type::STREAM)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    transparent(&socket, address.is_ipv6())?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets a socket take, and send from, addresses that are not its own.
fn transparent(socket: &Socket, v6: bool) -> io::Result<()> {
    match v6 {
        true => socket.set_ip_transparent_v6(true),
        false => socket.set_ip_transparent_v4(true),
    }
}

pub(super) fn listener(address: SocketAddr) -> io::Result<Socket> {
    let socket = bound(address, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A socket that is told where each datagram wanted to go.
pub(super) fn datagrams(address: SocketAddr) -> io::Result<Socket> {
    use nix::sys::socket::{setsockopt, sockopt};
    let socket = bound(address, Type::DGRAM)?;
    match address.is_ipv6() {
        true => setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true)?,
        false => setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true)?,
    }
    Ok(socket)
}

pub(super) fn port(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?.as_socket();
    let address = address.ok_or_else(|| io::Error::other("the socket has no address"))?;
    Ok(address.port())
}

/// A socket for kdev's own traffic in the namespace, to which no rule applies.
pub(super) fn inside(v6: bool, datagram: bool) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let kind = if datagram { Type::DGRAM } else { Type::STREAM };
    let socket = socket(domain, kind)?;
    // It sends from the addresses of others, and nothing of it is to be caught again.
    transparent(&socket, v6)?;
    socket.set_mark(OWN_MARK)?;
    if datagram {
        socket.set_reuse_address(true)?;
    }
    Ok(socket)
}
