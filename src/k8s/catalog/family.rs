//! Families of addresses: which of a pod's addresses a Service means. Pure.

use std::fmt;
use std::net::IpAddr;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The families of a Service, in its order; where it says nothing, any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Families([Option<Family>; 2]);

impl Families {
    /// Reads `ipFamilies`. Servers before 1.20 have none: there a Service's own addresses tell,
    /// and the endpoints of one without are of both, as the endpoint slice controller has it
    /// (`getAddressTypesForService` of k8s.io/endpointslice).
    pub(super) fn new(names: &[String], own: &[IpAddr]) -> Self {
        let named = names.iter().filter_map(|name| match name.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        });
        let mut families: Vec<Family> = named.collect();
        if families.is_empty() {
            families.extend(own.iter().map(|ip| Family::of(*ip)));
        }
        let mut found = families.into_iter();
        let first = found.next();
        Self([first, found.find(|family| Some(*family) != first)])
    }

    /// The place of an address in the order of preference; `None` for a family that is not meant.
    pub(super) fn rank(self, ip: IpAddr) -> Option<usize> {
        match self.0 {
            [None, _] => Some(0),
            [first, _] if first == Some(Family::of(ip)) => Some(0),
            [_, second] if second == Some(Family::of(ip)) => Some(1),
            _ => None,
        }
    }

    /// Those of `ips` that are meant, the preferred ones first.
    pub(super) fn of(self, ips: &[IpAddr]) -> impl Iterator<Item = IpAddr> + '_ {
        let ranks = 0..self.0.len();
        ranks.flat_map(move |rank| {
            let ips = ips.iter().copied();
            ips.filter(move |ip| self.rank(*ip) == Some(rank))
        })
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            [Some(Family::V4), None] => "IPv4",
            [Some(Family::V6), None] => "IPv6",
            _ => "IP",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_service_means_addresses_of_its_families_in_its_order() {
        let pod = ["10.0.0.1", "fd00::1"];
        for (names, own, meant) in [
            (&["IPv4"][..], &[][..], &["10.0.0.1"][..]),
            (&["IPv6"], &[], &["fd00::1"]),
            (&["IPv4", "IPv6"], &[], &pod),
            (&["IPv6", "IPv4"], &["10.96.0.1"], &["fd00::1", "10.0.0.1"]),
            (&[], &["10.96.0.1"], &["10.0.0.1"]),
            (&[], &["fd00::a", "10.96.0.1"], &["fd00::1", "10.0.0.1"]),
            (&[], &[], &pod),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let families = Families::new(&names, &ips(own));
            let found: Vec<IpAddr> = families.of(&ips(&pod)).collect();
            assert_eq!(found, ips(meant), "{names:?} {own:?}");
        }
    }
}
