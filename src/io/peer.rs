//! Whose the other end of a loopback connection is, or the sender of datagrams on loopback.
//!
//! The kernel is asked for that one socket (`sock_diag`), which costs the same however many
//! sockets there are. Where that is not to be had, `/proc/net/tcp` is read, which lists them all.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::sock_diag::{
    self, AF_INET, AF_INET6, ANSWER, ASKED_ADDRESSES, ASKED_PORTS, COOKIE, INODE, PORTS, REQUEST,
    SOCK_DIAG_BY_FAMILY, STATE, TCP, UDP, UID, questions,
};
use super::user::Owner;

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    /// A socket for datagrams, which need not be connected, nor bound to one address.
    Udp,
}

/// Finds the owner of the socket at `peer` that is connected to `local`, or sends there, both on
/// this machine.
pub(super) fn owner(kind: Kind, peer: SocketAddr, local: SocketAddr) -> Owner {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    // "Not found" is also what a kernel without the module says, so the list has the last word.
    match ask_kernel(kind, peer, local) {
        Ok(owner) => owner,
        Err(_) => read_list(kind, peer, local),
    }
}

/// A connection whose process has closed it may linger as this (`net/tcp_states.h`).
const TCP_TIME_WAIT: u8 = 6;

fn ask_kernel(kind: Kind, peer: SocketAddr, local: SocketAddr) -> io::Result<Owner> {
    let netlink = questions()?;
    send(&netlink, &request(kind, peer, local), SendFlags::empty())?;
    // The kernel answers within `send`. Attributes that it may add do not matter here.
    let mut answer = [0; 1024];
    let (length, _) = recv(&netlink, &mut answer[..], RecvFlags::empty())?;
    read_answer(kind, &answer[..length], peer, local).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn request(kind: Kind, peer: SocketAddr, local: SocketAddr) -> [u8; REQUEST] {
    let family = if peer.is_ipv4() { AF_INET } else { AF_INET6 };
    // For datagrams, whose sockets are looked up as for one that comes in, the ends are swapped
    // (udp_dump_one in net/ipv4/udp_diag.c).
    let (protocol, peer, local) = match kind {
        Kind::Tcp => (TCP, peer, local),
        Kind::Udp => (UDP, local, peer),
    };
    let mut bytes = sock_diag::request(0, family, protocol, u32::MAX);
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(ASKED_PORTS, &peer.port().to_be_bytes());
    put(ASKED_PORTS + 2, &local.port().to_be_bytes());
    for (at, ip) in [
        (ASKED_ADDRESSES, peer.ip()),
        (ASKED_ADDRESSES + 16, local.ip()),
    ] {
        match ip {
            IpAddr::V4(ip) => put(at, &ip.octets()),
            IpAddr::V6(ip) => put(at, &ip.octets()),
        }
    }
    // No cookie: any socket with these addresses.
    put(COOKIE, &[0xff; 8]);
    bytes
}

fn read_answer(kind: Kind, answer: &[u8], peer: SocketAddr, local: SocketAddr) -> Option<Owner> {
    if answer.len() < ANSWER || answer[4..6] != SOCK_DIAG_BY_FAMILY.to_ne_bytes() {
        return None;
    }
    let number = |at: usize| {
        answer[at..at + 4]
            .try_into()
            .map(u32::from_ne_bytes)
            .unwrap_or_default()
    };
    let ports = [peer.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    let told = match kind {
        Kind::Tcp => 4,
        // A socket that is not connected has no other end.
        Kind::Udp => 2,
    };
    if answer[PORTS..PORTS + told] != ports[..told] {
        // A listener at the peer's address: the connection itself is gone.
        return Some(Owner::Gone);
    }
    // A socket that no process has open has no inode, and its uid would read as root's.
    if answer[STATE] == TCP_TIME_WAIT || number(INODE) == 0 {
        return Some(Owner::Gone);
    }
    Some(Owner::Uid(number(UID)))
}

fn read_list(kind: Kind, peer: SocketAddr, local: SocketAddr) -> Owner {
    let mut own_end_listed = false;
    // A v4 connection of a v6 socket, as Java makes them, stands in the second.
    let paths = match kind {
        Kind::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Kind::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    for path in paths {
        let Ok(file) = File::open(path) else {
            continue;
        };
        for line in BufReader::new(file).lines().skip(1) {
            let Some(row) = line.ok().as_deref().and_then(Row::parse) else {
                continue;
            };
            let sends = |from: SocketAddr, to: SocketAddr| match kind {
                Kind::Tcp => row.local == from && row.remote == to,
                Kind::Udp => row.is_bound_to(from) && (row.remote == to || row.remote.port() == 0),
            };
            if sends(peer, local) {
                return row.owner;
            }
            own_end_listed |= sends(local, peer);
        }
    }
    // A list that lacks the very connection that was accepted says nothing about the other end.
    if own_end_listed {
        Owner::Gone
    } else {
        Owner::Unknown
    }
}

/// A line of `/proc/net/tcp`.
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    owner: Owner,
}

impl Row {
    /// Whether what it sends may come from `address`.
    fn is_bound_to(&self, address: SocketAddr) -> bool {
        let ip = self.local.ip();
        self.local.port() == address.port() && (ip == address.ip() || ip.is_unspecified())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = parse_addr(fields.next()?)?;
        let remote = parse_addr(fields.next()?)?;
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let mut rest = fields.skip(3);
        let uid = rest.next()?.parse().ok()?;
        let inode: u64 = rest.nth(1)?.parse().ok()?;
        let owner = if state == TCP_TIME_WAIT || inode == 0 {
            Owner::Gone
        } else {
            Owner::Uid(uid)
        };
        Some(Self {
            local,
            remote,
            owner,
        })
    }
}

/// Reads `0100007F:1F90`: words of the address in the machine's byte order.
fn parse_addr(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn connected(listen: &str) -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind(listen).unwrap();
        let app = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        (app, accepted, peer)
    }

    #[test]
    fn an_own_connection_is_found_both_ways() {
        let me = Owner::Uid(nix::unistd::geteuid().as_raw());
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else {
                continue;
            };
            drop(listener);
            let (_app, accepted, peer) = connected(listen);
            let local = accepted.local_addr().unwrap();
            assert_eq!(owner(Kind::Tcp, peer, local), me, "{listen}");
            assert!(
                [me, Owner::Unknown].contains(&read_list(Kind::Tcp, peer, local)),
                "{listen}"
            );
        }
    }

    #[test]
    fn the_sender_of_datagrams_is_found_however_its_socket_is_bound() {
        let me = Owner::Uid(nix::unistd::geteuid().as_raw());
        for (own, other, bind) in [
            ("127.0.0.1:0", "127.0.0.1", "127.0.0.1:0"),
            ("127.0.0.1:0", "127.0.0.1", "0.0.0.0:0"),
            ("127.0.0.1:0", "127.0.0.1", "[::]:0"),
            ("[::1]:0", "::1", "[::]:0"),
        ] {
            let (Ok(ours), Ok(app)) = (UdpSocket::bind(own), UdpSocket::bind(bind)) else {
                continue;
            };
            let local = ours.local_addr().unwrap();
            let peer = SocketAddr::new(other.parse().unwrap(), app.local_addr().unwrap().port());
            for connected in [false, true] {
                // A socket of the other family says so in its own words.
                if connected && app.connect(local).is_err() {
                    continue;
                }
                assert_eq!(owner(Kind::Udp, peer, local), me, "{bind} {connected}");
                let listed = read_list(Kind::Udp, peer, local);
                assert!([me, Owner::Unknown].contains(&listed), "{bind}: {listed:?}");
            }
            drop(app);
            assert!(!matches!(owner(Kind::Udp, peer, local), Owner::Uid(_)));
        }
    }

    #[test]
    fn a_closed_connection_has_no_owner_not_root() {
        let (app, accepted, peer) = connected("127.0.0.1:0");
        drop(app);
        let local = accepted.local_addr().unwrap();
        assert_ne!(owner(Kind::Tcp, peer, local), Owner::Uid(0));
        assert!(!matches!(read_list(Kind::Tcp, peer, local), Owner::Uid(_)));
    }

    #[test]
    fn rows_of_the_list() {
        let row = Row::parse(
            "   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0",
        )
        .unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(row.local, "127.0.0.1:8080".parse().unwrap());
            assert_eq!(row.remote, "127.0.0.1:50000".parse().unwrap());
            assert_eq!(
                parse_addr("0000000000000000FFFF00000100007F:0050"),
                Some("127.0.0.1:80".parse().unwrap())
            );
        }
        assert_eq!(row.owner, Owner::Uid(1000));
        for odd in ["", "1:", "1: zz:1 0:0 01", "1: 0100007F:1F90 é:1 01"] {
            assert!(Row::parse(odd).is_none(), "{odd:?}");
        }
    }
}
