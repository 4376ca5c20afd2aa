//! Questions to the kernel about sockets (sock_diag(7)), in the layout of `linux/inet_diag.h`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};

/// Bytes of a `struct nlmsghdr`, and of a `struct inet_diag_req_v2` behind it.
pub(super) const HEADER: usize = 16;
pub(super) const REQUEST: usize = HEADER + 56;
/// Where a request has the ends that it is about, and the cookie of the one socket.
pub(super) const ASKED_PORTS: usize = HEADER + 8;
pub(super) const ASKED_ADDRESSES: usize = HEADER + 12;
pub(super) const COOKIE: usize = HEADER + 48;
/// Where an answer, a `struct inet_diag_msg`, has its fields.
pub(super) const STATE: usize = HEADER + 1;
pub(super) const PORTS: usize = HEADER + 4;
pub(super) const ADDRESS: usize = HEADER + 8;
pub(super) const UID: usize = HEADER + 64;
pub(super) const INODE: usize = HEADER + 68;
/// Bytes of an answer without attributes.
pub(super) const ANSWER: usize = HEADER + 72;

/// The only message type of `sock_diag` (`linux/sock_diag.h`).
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// A socket to ask by, about the network namespace that the caller is in. It never waits: the kernel
/// answers within the sending.
///
/// # Errors
/// As the system says.
pub fn questions() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::DGRAM;
    let asked = Some(netlink::SOCK_DIAG);
    Ok(socket_with(AddressFamily::NETLINK, kind, flags, asked)?)
}

/// A request about sockets in the `states` of a mask (`net/tcp_states.h`).
pub(super) fn request(flags: u16, family: u8, protocol: u8, states: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &(REQUEST as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &(NLM_F_REQUEST | flags).to_ne_bytes());
    put(HEADER, &[family, protocol]);
    put(HEADER + 4, &states.to_ne_bytes());
    bytes
}
