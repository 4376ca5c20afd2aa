//! Where the pods and Services of a simulated cluster are on this machine, for programs in pods that
//! listen and dial by themselves.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

/// How often other addresses are tried, which another cluster may have.
const TRIES: usize = 8;
/// The last part of the address that Services have; pods have those after it.
const SERVICES: u8 = 1;

/// A /24 below 127.0.0.0/8, all of which is this machine on Linux; macOS has 127.0.0.1 alone.
#[derive(Debug)]
pub struct Network {
    prefix: [u8; 3],
    pods: AtomicU8,
}

impl Network {
    /// One that is nobody's, unless this system has none.
    #[must_use]
    pub fn take() -> Option<Self> {
        let some = (0..TRIES).map(|_| Self {
            prefix: [
                127,
                rand::random_range(1..=254),
                rand::random_range(1..=254),
            ],
            pods: AtomicU8::new(SERVICES),
        });
        some.into_iter()
            .find(|network| TcpListener::bind((network.services(), 0)).is_ok())
    }

    /// Where Services are.
    #[must_use]
    pub fn services(&self) -> Ipv4Addr {
        self.at(SERVICES)
    }

    /// The address of one more pod. The first comes again after 254 of them.
    pub(super) fn pod(&self) -> Ipv4Addr {
        let next = |last: u8| {
            Some(
                last.checked_add(1)
                    .filter(|n| *n < 255)
                    .unwrap_or(SERVICES + 1),
            )
        };
        let last = self
            .pods
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        self.at(next(last.unwrap_or(SERVICES)).unwrap_or(SERVICES + 1))
    }

    fn at(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_addresses_of_their_own() {
        let network = Network {
            prefix: [127, 9, 9],
            pods: AtomicU8::new(SERVICES),
        };
        let all: std::collections::BTreeSet<Ipv4Addr> = (0..253).map(|_| network.pod()).collect();
        assert_eq!(all.len(), 253);
        assert!(!all.contains(&network.services()));
        assert_eq!(network.pod(), Ipv4Addr::new(127, 9, 9, 2));
    }
}
