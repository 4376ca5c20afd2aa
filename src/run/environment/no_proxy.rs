//! What goes past the proxy.

use std::net::IpAddr;

/// A program's own loopback: always past the proxy.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A `NO_PROXY` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProxy {
    /// The entries in force.
    pub kept: Vec<String>,
    /// The user's entries that were left out.
    pub dropped: Vec<String>,
}

/// Joins the loopback, `direct`, and the entries of the `user`'s own list that hide nothing of
/// the cluster.
///
/// Lists in companies often hold `.svc,.cluster.local,10.0.0.0/8`, written for pods; they would
/// send cluster names to the laptop's resolver. Leaving an entry out costs little: the proxy dials
/// from the laptop whatever is not the cluster's.
#[must_use]
pub fn merge(user: &str, direct: &[String], domain: &str) -> NoProxy {
    let mut kept: Vec<String> = LOOPBACK.iter().map(ToString::to_string).collect();
    let mut dropped = Vec::new();
    for entry in direct {
        push_new(&mut kept, entry);
    }
    for entry in user.split([',', ' ']).filter(|e| !e.is_empty()) {
        if hides_cluster(entry, domain) {
            push_new(&mut dropped, entry);
        } else {
            push_new(&mut kept, entry);
        }
    }
    NoProxy { kept, dropped }
}

fn push_new(list: &mut Vec<String>, entry: &str) {
    if !list.iter().any(|e| e == entry) {
        list.push(entry.to_owned());
    }
}

/// Whether `entry` matches names of Services, or a range that Services and pods may live in.
fn hides_cluster(entry: &str, domain: &str) -> bool {
    let entry = entry.to_ascii_lowercase();
    if entry == "*" {
        return true;
    }
    if let Some((ip, bits)) = entry.split_once('/') {
        let (Ok(ip), Ok(bits)) = (ip.parse(), bits.parse()) else {
            return false;
        };
        return overlaps_private(ip, bits);
    }
    if let Some(prefix) = entry.strip_suffix(".*") {
        return wildcard_address(prefix).is_some_and(|(ip, bits)| overlaps_private(ip, bits));
    }
    let name = entry.trim_start_matches('*').trim_start_matches('.');
    let name = name.split(':').next().unwrap_or(name);
    let is_or_under = |name: &str, zone: &str| {
        name == zone
            || name
                .strip_suffix(zone)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    // A parent of the cluster's domain (`local`), the domain, or something in it.
    is_or_under(domain, name) || is_or_under(name, domain) || is_or_under(name, "svc")
}

/// `10` → 10.0.0.0/8, `172.16` → 172.16.0.0/16.
fn wildcard_address(prefix: &str) -> Option<(IpAddr, u8)> {
    let octets: Vec<u8> = prefix
        .split('.')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let mut full = [0; 4];
    full.get_mut(..octets.len())?.copy_from_slice(&octets);
    let bits = u8::try_from(octets.len() * 8).ok()?;
    Some((IpAddr::from(full), bits))
}

/// Whether the range shares addresses with the private ones (RFC 1918, RFC 6598, RFC 4193), where
/// clusters have theirs.
fn overlaps_private(ip: IpAddr, bits: u8) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => [
            (0x0a00_0000, 8),
            (0xac10_0000, 12),
            (0xc0a8_0000, 16),
            (0x6440_0000, 10),
        ]
        .into_iter()
        .any(|(net, net_bits): (u32, u8)| {
            let common = bits.min(net_bits).min(32);
            let shift = 32 - u32::from(common);
            (u64::from(u32::from(ip)) >> shift) == (u64::from(net) >> shift)
        }),
        IpAddr::V6(ip) => {
            let common = bits.min(7);
            let shift = 16 - u32::from(common);
            (u32::from(ip.segments()[0]) >> shift) == (0xfc00_u32 >> shift)
        }
    }
}
