//! Where the pods and Services of a simulated cluster are on this machine, for programs in pods that
//! listen and dial by themselves.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

/// How often other addresses are tried, which another cluster may have.
const TRIES: usize = 8;
/// The last part of the address of Services that have none of their own; pods have those after it.
const SERVICES: u8 = 1;
/// How many addresses pods have: as many of those after it as a counter of 8 bits goes round in.
const PODS: u8 = 128;
/// The last parts of the addresses that each Service has one of: two may have the same port.
const OWN: std::ops::RangeInclusive<u8> = SERVICES + 1 + PODS..=254;
/// The first port that anybody may listen on.
const UNPRIVILEGED: u16 = 1024;
/// How much higher the ports below that are. It leads to where few programs listen, below the ports
/// that systems give to clients.
pub(super) const LOW_PORTS: u16 = 10_000;
/// The port of the address of Services that says that a network is somebody's.
const TAKEN: u16 = 65_535;

/// A /24 below 127.0.0.0/8, all of which is this machine on Linux; macOS has 127.0.0.1 alone.
#[derive(Debug)]
pub struct Network {
    prefix: [u8; 3],
    pods: AtomicU8,
    /// The last parts of the addresses of those Services that have one of their own.
    own: Mutex<BTreeMap<String, u8>>,
    _taken: TcpListener,
}

impl Network {
    /// One that is no other process's, unless this system has none.
    #[must_use]
    pub fn take() -> Option<Self> {
        (0..TRIES).find_map(|_| {
            Self::at_prefix([
                127,
                rand::random_range(1..=254),
                rand::random_range(1..=254),
            ])
        })
    }

    fn at_prefix(prefix: [u8; 3]) -> Option<Self> {
        let taken = TcpListener::bind((address(prefix, SERVICES), TAKEN)).ok()?;
        Some(Self {
            prefix,
            pods: AtomicU8::new(0),
            own: Mutex::default(),
            _taken: taken,
        })
    }

    /// Where a port of a Service is: at an address that is the Service's alone, as long as there are
    /// any, and on a port that everybody may listen on.
    #[must_use]
    pub fn service(&self, name: &str, port: u16) -> SocketAddr {
        let port = match port {
            ..UNPRIVILEGED => LOW_PORTS + port,
            _ => port,
        };
        (self.address_of(name), port).into()
    }

    /// The address of a Service.
    pub(super) fn address_of(&self, name: &str) -> Ipv4Addr {
        // What intercepts make has ports of its own, and comes and goes.
        if name.starts_with("kdev-") {
            return address(self.prefix, SERVICES);
        }
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u8::try_from(own.len())
            .ok()
            .and_then(|taken| OWN.start().checked_add(taken))
            .filter(|next| OWN.contains(next));
        let last = match (own.get(name), next) {
            (Some(known), _) => *known,
            (None, Some(next)) => *own.entry(name.to_owned()).or_insert(next),
            (None, None) => SERVICES,
        };
        address(self.prefix, last)
    }

    /// The address of one more pod: the first one's again after so many.
    pub(super) fn pod(&self) -> Ipv4Addr {
        let number = self.pods.fetch_add(1, Ordering::Relaxed) % PODS;
        address(self.prefix, SERVICES + 1 + number)
    }
}

fn address([a, b, c]: [u8; 3], last: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn pods_have_addresses_of_their_own() {
        let network = Network::take().unwrap();
        let all: std::collections::BTreeSet<Ipv4Addr> = (0..PODS).map(|_| network.pod()).collect();
        assert_eq!(all.len(), usize::from(PODS));
        assert!(all.contains(&network.pod()));
        // Services have others, each its own, and no port that only root may listen on.
        let names: Vec<String> = (0..OWN.len()).map(|number| format!("s{number}")).collect();
        let own = names.iter().map(|name| network.service(name, 80));
        let own: std::collections::BTreeSet<SocketAddr> = own.collect();
        assert_eq!(own.len(), OWN.len());
        assert!(own.iter().all(|at| at.port() == 10_080));
        assert_eq!(
            network.service("s0", 8080).ip(),
            network.service("s0", 80).ip()
        );
        for shared in ["one more", "kdev-20000"] {
            assert_eq!(
                network.address_of(shared),
                address(network.prefix, SERVICES)
            );
        }
        let all: std::collections::BTreeSet<std::net::IpAddr> =
            all.into_iter().map(Into::into).collect();
        assert!(own.iter().all(|at| !all.contains(&at.ip())));
        // It is nobody else's until it is dropped.
        let prefix = network.prefix;
        assert!(Network::at_prefix(prefix).is_none());
        drop(network);
        assert!(Network::at_prefix(prefix).is_some());
    }
}
