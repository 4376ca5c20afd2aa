//! What the relay may reach. Checked on the resolved address, so that a name cannot lead around
//! it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

/// Addresses that clouds answer metadata on, credentials among it, besides the link-local ones.
const METADATA: [(&str, IpAddr); 5] = [
    // https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
    (
        "Alibaba Cloud",
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    ),
    // https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
    ("Azure", IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16))),
    // https://docs.oracle.com/iaas/Content/Compute/Tasks/gettingmetadata.htm, its older address
    ("Oracle Cloud", IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192))),
    // https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    (
        "AWS",
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    ),
    // https://cloud.google.com/compute/docs/metadata/querying-metadata
    (
        "Google Cloud",
        IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    ),
];

/// A network, and ports of it: `10.0.0.0/8`, `10.1.2.3:5432`, `fd00::/8`, `[fd00::1]:80-90`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    net: IpNet,
    ports: RangeInclusive<u16>,
}

impl Rule {
    fn matches(&self, ip: IpAddr, port: u16) -> bool {
        self.net.contains(&ip) && self.ports.contains(&port)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.net.fmt(f)?;
        match (*self.ports.start(), *self.ports.end()) {
            (0, u16::MAX) => Ok(()),
            (from, to) if from == to => write!(f, ":{from}"),
            (from, to) => write!(f, ":{from}-{to}"),
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no address or network with ports, such as 10.0.0.0/8:5432-5439")
        };
        let (net, ports) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
            Some((net, "")) => (net, None),
            Some((net, rest)) => (net, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
            None => match text.rsplit_once(':') {
                Some((net, ports)) if !net.contains(':') => (net, Some(ports)),
                _ => (text, None),
            },
        };
        let net = net
            .parse::<IpNet>()
            .or_else(|_| net.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| wrong())?;
        let ports = match ports {
            None => 0..=u16::MAX,
            Some(ports) => {
                let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
                let from = from.parse().map_err(|_| wrong())?;
                let to = to.parse().map_err(|_| wrong())?;
                if from > to {
                    return Err(wrong());
                }
                from..=to
            }
        };
        Ok(Self { net, ports })
    }
}

/// What the relay may reach.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Only these, where there are any. One that lies inside what is refused by itself opens that.
    pub allow: Vec<Rule>,
    /// Never these.
    pub deny: Vec<Rule>,
}

impl Policy {
    /// Whether the relay may connect to `address`.
    ///
    /// # Errors
    /// Which rule forbids it, for people.
    pub fn check(&self, address: SocketAddr) -> Result<(), String> {
        let port = address.port();
        // What a translator on the way would make of it counts as well.
        for ip in [Some(address.ip()), embedded(address.ip())]
            .into_iter()
            .flatten()
        {
            if let Some(rule) = self.deny.iter().find(|rule| rule.matches(ip, port)) {
                return Err(format!("{ip} is denied by the relay's rule {rule}"));
            }
            let opened = |net: &IpNet| {
                let mut allow = self.allow.iter();
                allow.any(|rule| rule.matches(ip, port) && net.contains(&rule.net))
            };
            if let Some((why, net)) = refused_by_itself(ip)
                && !opened(&net)
            {
                return Err(format!("{ip} is {why}, which the relay does not reach"));
            }
        }
        let ip = address.ip().to_canonical();
        if self.allow.is_empty() || self.allow.iter().any(|rule| rule.matches(ip, port)) {
            return Ok(());
        }
        Err(format!(
            "the relay is limited to other addresses than {ip}:{port}"
        ))
    }
}

/// Why an address is refused unless somebody opens it, and the network that it stands in.
fn refused_by_itself(ip: IpAddr) -> Option<(String, IpNet)> {
    if let Some((cloud, _)) = METADATA.iter().find(|(_, metadata)| *metadata == ip) {
        return Some((format!("the metadata service of {cloud}"), IpNet::from(ip)));
    }
    let net = |text: &str| text.parse::<IpNet>().ok();
    let (why, net) = match ip {
        IpAddr::V4(v4) if v4.is_link_local() => (
            "link-local, where clouds answer metadata",
            net("169.254.0.0/16"),
        ),
        IpAddr::V4(v4) if v4.is_loopback() => ("the relay's own loopback", net("127.0.0.0/8")),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => ("the relay itself", net("0.0.0.0/8")),
        IpAddr::V4(v4) if v4.is_multicast() => ("a multicast group", net("224.0.0.0/4")),
        IpAddr::V4(v4) if v4.is_broadcast() => ("the broadcast address", net("255.255.255.255/32")),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => ("link-local", net("fe80::/10")),
        IpAddr::V6(v6) if v6.is_loopback() => ("the relay's own loopback", net("::1/128")),
        IpAddr::V6(v6) if v6.is_unspecified() => ("the relay itself", net("::/128")),
        IpAddr::V6(v6) if v6.is_multicast() => ("a multicast group", net("ff00::/8")),
        _ => return None,
    };
    net.map(|net| (why.to_owned(), net))
}

/// The IPv4 address that an IPv6 one stands for somewhere on the way: v4-mapped and v4-compatible
/// (RFC 4291, 2.5.5), NAT64 (RFC 6052, its well-known prefix, and RFC 8215's local one), 6to4
/// (RFC 3056), ISATAP (RFC 5214).
fn embedded(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = ip else { return None };
    let s = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match s {
        // ::1 and :: are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => v4(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 1, ..] => v4(s[6], s[7]),
        [0x2002, high, low, ..] => v4(high, low),
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &Policy, address: &str) -> Result<(), String> {
        policy.check(address.parse().unwrap())
    }

    #[test]
    fn metadata_is_refused_in_every_disguise() {
        let policy = Policy::default();
        for address in [
            "169.254.169.254:80",
            "169.254.170.2:80",
            "169.254.20.10:53",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "192.0.0.192:80",
            "[fd00:ec2::254]:80",
            "[fd20:ce::254]:80",
            "[fe80::1]:80",
            "[::ffff:169.254.169.254]:80",
            "[::169.254.169.254]:80",
            "[::ffff:0:169.254.169.254]:80",
            "[64:ff9b::169.254.169.254]:80",
            "[64:ff9b:1::169.254.169.254]:80",
            "[2002:a9fe:a9fe::1]:80",
            "[fd00::5efe:a9fe:a9fe]:80",
            "[::ffff:100.100.100.200]:80",
            "127.0.0.1:7000",
            "127.9.9.9:7000",
            "[::1]:7000",
            "[::ffff:127.0.0.1]:7000",
            "[64:ff9b::7f00:1]:7000",
            "0.0.0.0:7000",
            "[::]:7000",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "255.255.255.255:80",
        ] {
            assert!(check(&policy, address).is_err(), "{address}");
        }
        for address in [
            "10.96.0.1:443",
            "8.8.8.8:53",
            "[fd00:10:96::1]:443",
            "[2001:db8::1]:80",
            "[64:ff9b::8.8.8.8]:53",
        ] {
            assert_eq!(check(&policy, address), Ok(()), "{address}");
        }
        let said = check(&policy, "[64:ff9b::169.254.169.254]:80").unwrap_err();
        assert!(said.contains("metadata"), "{said}");
    }

    #[test]
    fn rules_limit_and_open() {
        let rules = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
        let policy = Policy {
            allow: rules(&[
                "10.0.0.0/8",
                "192.168.1.5:5432-5439",
                "169.254.20.10:53",
                "[fd00::]:80",
            ]),
            deny: rules(&["10.9.0.0/16", "10.0.0.0/8:22"]),
        };
        for address in [
            "10.1.2.3:80",
            "192.168.1.5:5433",
            "169.254.20.10:53",
            "[fd00::]:80",
            "[::ffff:10.1.2.3]:80",
        ] {
            assert_eq!(check(&policy, address), Ok(()), "{address}");
        }
        for address in [
            "10.9.1.1:80",
            "10.1.2.3:22",
            "[::ffff:10.9.1.1]:80",
            "192.168.1.5:80",
            "192.168.1.6:5432",
            "169.254.20.10:80",
            "169.254.169.254:80",
            "8.8.8.8:53",
        ] {
            assert!(check(&policy, address).is_err(), "{address}");
        }
        // A rule for everything does not open what is refused by itself.
        let all = Policy {
            allow: rules(&["0.0.0.0/0", "::/0"]),
            deny: Vec::new(),
        };
        assert!(check(&all, "169.254.169.254:80").is_err());
        assert_eq!(check(&all, "8.8.8.8:53"), Ok(()));
    }

    #[test]
    fn rules_are_read_and_written() {
        for text in [
            "10.0.0.0/8",
            "10.1.2.3/32:5432",
            "fd00::/8",
            "0.0.0.0/0:1-1024",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1:",
            "10.0.0.1:9-8",
            "web:80",
            "[fd00::1]80",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }
}
