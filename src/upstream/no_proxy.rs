//! What goes past the proxies, with the rules of Go's `golang.org/x/net/http/httpproxy`, which
//! kubectl follows.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::addr::{Host, Target, split_port};

/// A `NO_PROXY` list: `*`, addresses, ranges, names, each with a port or without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    All,
    Range(IpNet),
    Ip(IpAddr, Option<u16>),
    /// A domain without the leading dot: what is below it, and itself unless it had the dot.
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl NoProxy {
    /// Reads a list. Empty entries and those that no host could match are skipped, as in Go.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        let entries = list.split(',').filter_map(Entry::parse).collect();
        Self { entries }
    }

    /// Whether `target` goes past the proxies.
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        self.entries.iter().any(|entry| entry.matches(target))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Self::All);
        }
        if let Ok(range) = IpNet::from_str(&text) {
            return Some(Self::Range(range));
        }
        let (host, port) = split_port(&text);
        // As in Go, what is no number never matches.
        let port = match port {
            Some(port) => Some(port.parse().ok()?),
            None => None,
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Self::Ip(ip.to_canonical(), port));
        }
        // `*.corp` means `.corp`.
        let host = host.strip_prefix('*').unwrap_or(host);
        let (itself, name) = match host.strip_prefix('.') {
            Some(name) => (false, name),
            None => (true, host),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        (!name.is_empty()).then(|| Self::Domain {
            name: name.to_owned(),
            itself,
            port,
        })
    }

    fn matches(&self, target: &Target) -> bool {
        let same_port = |port: &Option<u16>| port.is_none_or(|port| port == target.port);
        match (self, &target.host) {
            (Self::All, _) => true,
            (Self::Range(range), Host::Ip(ip)) => range.contains(ip),
            (Self::Ip(own, port), Host::Ip(ip)) => own == ip && same_port(port),
            (Self::Domain { name, itself, port }, Host::Name(host)) => {
                let below = host
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.ends_with('.'));
                (below || (*itself && host == name)) && same_port(port)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_means_what_it_means_to_kubectl() {
        for (list, past, through) in [
            ("*", &["a.b:1", "10.0.0.1:2"][..], &[][..]),
            ("", &[], &["a.b:1"]),
            (" , ,", &[], &["a.b:1"]),
            (
                "corp.example",
                &["corp.example:443", "api.corp.example:1", "CORP.example.:1"],
                &["notcorp.example:443", "example:443"],
            ),
            (
                ".corp.example",
                &["api.corp.example:443", "a.b.corp.example:443"],
                &["corp.example:443"],
            ),
            (
                "*.corp.example",
                &["api.corp.example:443"],
                &["corp.example:443"],
            ),
            (
                "api.corp.example:6443",
                &["api.corp.example:6443", "x.api.corp.example:6443"],
                &["api.corp.example:443"],
            ),
            (
                "10.0.0.0/8,fd00::/8",
                &["10.200.3.4:1", "[fd00::1]:1"],
                &["11.0.0.1:1", "[fe00::1]:1", "ten.corp:1"],
            ),
            (
                "192.168.1.5, 192.168.1.6:8443",
                &["192.168.1.5:1", "192.168.1.6:8443"],
                &["192.168.1.6:443", "192.168.1.7:1"],
            ),
            (
                "fe80::1,[fe80::2]:443",
                &["[fe80::1]:9", "[fe80::2]:443"],
                &["[fe80::2]:9"],
            ),
            ("corp:port", &[], &["corp:443"]),
            ("a.b,.internal", &["a.b:1", "x.internal:2"], &["c.d:1"]),
        ] {
            let parsed = NoProxy::parse(list);
            for target in past {
                assert!(
                    parsed.matches(&target.parse().unwrap()),
                    "{list:?} {target}"
                );
            }
            for target in through {
                assert!(
                    !parsed.matches(&target.parse().unwrap()),
                    "{list:?} {target}"
                );
            }
        }
    }
}
