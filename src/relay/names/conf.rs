//! `resolv.conf` and `hosts`, as far as a pod's have something to say (resolv.conf(5), hosts(5)).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// The port of nameservers.
const PORT: u16 = 53;
/// Nameservers that count, as in the C library.
const MOST_SERVERS: usize = 3;
/// Search domains that count: Kubernetes allows 32.
const MOST_DOMAINS: usize = 32;
/// Most dots that may be asked for, as in the C library.
const MOST_DOTS: usize = 15;

/// How names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::relay) struct Conf {
    /// Who is asked, in this order.
    pub(in crate::relay) servers: Vec<SocketAddr>,
    /// What is appended to short names, in this order; without dots at the ends.
    pub(super) search: Vec<String>,
    /// Names with so many dots are tried as they are first.
    pub(super) dots: usize,
    hosts: HashMap<String, Vec<IpAddr>>,
}

impl Conf {
    /// Reads both files; lines that make no sense are skipped, as the C library does.
    #[must_use]
    pub(in crate::relay) fn parse(resolv: &str, hosts: &str) -> Self {
        let mut conf = Self {
            dots: 1,
            ..Self::default()
        };
        for line in resolv.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if conf.servers.len() < MOST_SERVERS => {
                    let ip = words.next().and_then(|ip| ip.parse::<IpAddr>().ok());
                    conf.servers.extend(ip.map(|ip| SocketAddr::new(ip, PORT)));
                }
                Some("search" | "domain") => {
                    let domains = words.map(|domain| domain.trim_matches('.').to_owned());
                    let named = domains.filter(|domain| !domain.is_empty());
                    conf.search = named.take(MOST_DOMAINS).collect();
                }
                Some("options") => {
                    let dots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    conf.dots = dots.unwrap_or(conf.dots).min(MOST_DOTS);
                }
                _ => {}
            }
        }
        for line in hosts.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else {
                continue;
            };
            for name in words {
                let ips = conf.hosts.entry(name.to_ascii_lowercase()).or_default();
                ips.push(ip);
            }
        }
        conf
    }

    /// What the hosts file says of a name.
    pub(super) fn host(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.hosts.get(&name).cloned()
    }

    /// The full names that a name may mean, in the order in which they are asked for.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let mut names: Vec<String> = self
            .search
            .iter()
            .map(|domain| format!("{name}.{domain}"))
            .collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let at = if dots >= self.dots { 0 } else { names.len() };
        names.insert(at, name.to_owned());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_files_are_read() {
        let conf = Conf::parse(
            "# made by the kubelet\nnameserver 10.96.0.10\nnameserver fd00::a ; second\n\
             nameserver nonsense\nsearch shop.svc.cluster.local svc.cluster.local cluster.local.\n\
             options edns0 ndots:5\n",
            "127.0.0.1 localhost\n10.0.0.9\tlegacy legacy.corp # an alias\n::1 localhost\nbad x\n",
        );
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[fd00::a]:53"]);
        assert_eq!(conf.dots, 5);
        assert_eq!(
            conf.host("Legacy.corp."),
            Some(vec!["10.0.0.9".parse().unwrap()])
        );
        assert_eq!(conf.host("localhost").unwrap().len(), 2);
        assert_eq!(conf.host("x"), None);
        assert_eq!(
            conf.candidates("web"),
            [
                "web.shop.svc.cluster.local",
                "web.svc.cluster.local",
                "web.cluster.local",
                "web"
            ]
        );
        assert_eq!(conf.candidates("web.shop.")[..], ["web.shop"]);
        assert_eq!(conf.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
    }
}
