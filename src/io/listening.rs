//! What is listened on in a network namespace (sock_diag(7)): one question to the kernel, whose
//! answer grows with the listeners and not with the connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendFlags, recv, send};

pub use super::sock_diag::questions;
use super::sock_diag::{ADDRESS, AF_INET, AF_INET6, ANSWER, HEADER, PORTS, TCP, UDP, request};

/// `linux/netlink.h`
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP: u16 = 0x300;
/// Bytes of answers that are read at once: what the kernel writes at once at most.
const ROOM: usize = 32 << 10;
/// Most reads of one answer.
const READS: usize = 1024;

/// Which sockets are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// TCP listeners.
    Tcp,
    /// UDP sockets that take datagrams from anywhere.
    Udp,
}

impl Listener {
    /// The protocol's number, and a mask of `net/tcp_states.h`: `LISTEN`, or `CLOSE`, which a
    /// datagram socket without a peer has.
    fn numbers(self) -> (u8, u32) {
        match self {
            Self::Tcp => (TCP, 1 << 10),
            Self::Udp => (UDP, 1 << 7),
        }
    }
}

/// Where is listened, in the namespace of `questions`; every address once.
///
/// # Errors
/// When the system does not say.
pub fn listening(questions: &impl AsFd, what: Listener) -> io::Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for family in [AF_INET, AF_INET6] {
        ask(questions, what, family, &mut all)?;
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn ask(
    questions: &impl AsFd,
    what: Listener,
    family: u8,
    into: &mut Vec<SocketAddr>,
) -> io::Result<()> {
    let (protocol, states) = what.numbers();
    let request = request(NLM_F_DUMP, family, protocol, states);
    send(questions, &request, SendFlags::empty())?;
    let mut answers = vec![0; ROOM];
    for _ in 0..READS {
        let (length, _) = recv(questions, &mut answers[..], RecvFlags::empty())?;
        let mut rest = &answers[..length];
        while rest.len() >= HEADER {
            let number = |at: usize| rest[at..at + 4].try_into().map(u32::from_ne_bytes);
            let length = number(0).unwrap_or_default() as usize;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            if length < HEADER || length > rest.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = number(HEADER).unwrap_or_default().cast_signed();
                    return Err(io::Error::from_raw_os_error(-code));
                }
                _ if length >= ANSWER => into.push(address(&rest[..length], family)),
                _ => {}
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
    Err(io::Error::other("the list of sockets has no end"))
}

/// The address of an answer, which is long enough.
fn address(answer: &[u8], family: u8) -> SocketAddr {
    let port = u16::from_be_bytes([answer[PORTS], answer[PORTS + 1]]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&answer[ADDRESS..ADDRESS + 16]);
    let [a, b, c, d, ..] = bytes;
    let ip = match family {
        AF_INET => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(bytes),
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn listeners_are_found_and_connections_are_not() {
        let asked = questions().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        let client = std::net::TcpStream::connect(at).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = listening(&asked, Listener::Tcp).unwrap();
        assert!(found.contains(&at), "{found:?}");
        assert!(!found.contains(&client.local_addr().unwrap()));
        let found = listening(&asked, Listener::Udp).unwrap();
        assert!(found.contains(&udp.local_addr().unwrap()), "{found:?}");
        if let Ok(v6) = TcpListener::bind("[::1]:0") {
            let found = listening(&asked, Listener::Tcp).unwrap();
            assert!(found.contains(&v6.local_addr().unwrap()), "{found:?}");
        }
        drop(tcp);
        assert!(!listening(&asked, Listener::Tcp).unwrap().contains(&at));
    }
}
