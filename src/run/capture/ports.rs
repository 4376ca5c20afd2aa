//! Which ports of this machine's loopback the network leads to: those where somebody listens.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::capture::wire::Ports;
use crate::io::listening::{Listener, listening};

/// What this machine listens on, but for `published`, which leads back into the network.
pub(super) fn of_machine(
    questions: &OwnedFd,
    published: &BTreeSet<SocketAddr>,
) -> io::Result<Ports> {
    let mut ports = Ports::default();
    let all = listening(questions, Listener::Tcp)?;
    let others = all.into_iter().filter(|at| !published.contains(at));
    (ports.tcp4, ports.tcp6) = on_loopback(others);
    (ports.udp4, ports.udp6) = on_loopback(listening(questions, Listener::Udp)?);
    Ok(ports)
}

/// The ports of IPv4 and of IPv6 that are reached by loopback.
fn on_loopback(all: impl IntoIterator<Item = SocketAddr>) -> (Vec<u16>, Vec<u16>) {
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    for at in all {
        let (ip, port) = (at.ip(), at.port());
        let here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
        if here(ip.to_canonical()) && ip.to_canonical().is_ipv4()
            || ip.is_ipv6() && ip.is_unspecified()
        {
            v4.insert(port);
        }
        if here(ip) && ip.is_ipv6() {
            v6.insert(port);
        }
    }
    (v4.into_iter().collect(), v6.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_on_every_address_listens_on_loopback() {
        let all = [
            "127.0.0.1:1",
            "0.0.0.0:2",
            "[::]:3",
            "[::1]:4",
            "[::ffff:127.0.0.1]:5",
            "10.0.0.1:6",
            "[fd00::1]:7",
        ];
        let all = all.map(|at| at.parse().unwrap());
        assert_eq!(on_loopback(all), (vec![1, 2, 3, 5], vec![3, 4]));
    }
}
