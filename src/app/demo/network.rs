//! Where the pods and Services of a simulated cluster are on this machine, for programs in pods that
//! listen and dial by themselves.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

/// How often other addresses are tried, which another cluster may have.
const TRIES: usize = 8;
/// The last part of the address that Services have; pods have those after it.
const SERVICES: u8 = 1;
/// How many addresses pods have: as many of those after it as a counter of 8 bits goes round in.
const PODS: u8 = 128;
/// The port of the address of Services that says that a network is somebody's.
const TAKEN: u16 = 65_535;

/// A /24 below 127.0.0.0/8, all of which is this machine on Linux; macOS has 127.0.0.1 alone.
#[derive(Debug)]
pub struct Network {
    prefix: [u8; 3],
    pods: AtomicU8,
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
            _taken: taken,
        })
    }

    /// Where Services are.
    #[must_use]
    pub fn services(&self) -> Ipv4Addr {
        address(self.prefix, SERVICES)
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
        assert!(!all.contains(&network.services()));
        assert!(all.contains(&network.pod()));
        // It is nobody else's until it is dropped.
        let prefix = network.prefix;
        assert!(Network::at_prefix(prefix).is_none());
        drop(network);
        assert!(Network::at_prefix(prefix).is_some());
    }
}
