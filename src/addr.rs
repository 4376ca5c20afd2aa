//! Names and addresses, parsed once.

mod cluster;
pub mod inside;
mod protocol;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

pub use self::cluster::{
    ClusterDomain, ClusterName, DEFAULT_DOMAIN, Names, Reading, readings, undashed,
};
pub use self::protocol::Protocol;

/// Longest DNS name in its text form without the final dot (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
/// Longest label of a DNS name (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// Where a stream or a flow of datagrams shall go: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host as the app named it.
    pub host: Host,
    /// The port that the app asked for; for a Service, the Service's port.
    pub port: u16,
}

/// A host: a name that is not resolved yet, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name, lower-case, without the final dot.
    Name(String),
    /// An address literal.
    Ip(IpAddr),
}

/// Why a text is not a host or a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Neither a DNS name nor an address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Host(String),
    /// No name of a namespace.
    #[error(
        "{0:?} is not a namespace: at most 63 lower-case letters, digits and -, with a letter or a digit \
         at both ends"
    )]
    Namespace(String),
    /// The port is missing or not 1 to 65535.
    #[error("{0:?} has no port from 1 to 65535 (write HOST:PORT)")]
    Port(String),
}

impl Target {
    /// A target from parts.
    #[must_use]
    pub fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }

    /// Parses `host:port`, with `default_port` where the text has none.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, AddrError> {
        let (host, port) = split_port(text);
        let port = match (port, default_port) {
            (Some(port), _) => port
                .parse()
                .ok()
                .filter(|p| *p != 0)
                .ok_or_else(|| AddrError::Port(text.to_owned()))?,
            (None, Some(port)) => port,
            (None, None) => return Err(AddrError::Port(text.to_owned())),
        };
        Ok(Self {
            host: host.parse()?,
            port,
        })
    }
}

/// Splits `host:port`, `[v6]:port`, `[v6]`, and a bare IPv6 address, without judging the parts.
#[must_use]
pub fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(rest) = text.strip_prefix('[')
        && let Some((host, after)) = rest.split_once(']')
    {
        // What stands after the bracket is a port, or no sense: left for whoever reads the port.
        let port = (!after.is_empty()).then(|| after.strip_prefix(':').unwrap_or(after));
        return (host, port);
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

impl FromStr for Target {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        Self::parse(text, None)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// Whether a text can be the name of a namespace, a Service or a host: a DNS label (RFC 1123, 2.1).
#[must_use]
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a text can be the name of a pod: DNS labels with dots between them.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(is_label)
}

/// Takes the name of a namespace. It stands in paths to the API server, which another text would
/// lead elsewhere.
///
/// # Errors
/// When no namespace has that name.
pub fn namespace(text: &str) -> Result<String, AddrError> {
    match is_label(text) {
        true => Ok(text.to_owned()),
        false => Err(AddrError::Namespace(text.to_owned())),
    }
}

impl FromStr for Host {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let literal = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Some(v6) = literal {
            // A zone ("fe80::1%eth0") names a link of the laptop, never one of the cluster.
            return v6
                .parse::<Ipv6Addr>()
                .map(|ip| Self::Ip(ip.into()))
                .map_err(|_| AddrError::Host(text.to_owned()));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        // Underscores are no host name but stand in SRV names and in real-world container names.
        let valid = !name.is_empty()
            && name.len() <= MAX_NAME
            && name.split('.').all(|label| {
                (1..=MAX_LABEL).contains(&label.len())
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            });
        // All digits and dots that is no IPv4 address is a mistyped one, not a name.
        let mistyped = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if valid && !mistyped {
            Ok(Self::Name(name))
        } else {
            Err(AddrError::Host(text.to_owned()))
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// A namespaced object's name: a Service or a pod, told apart by where it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespaced {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl Namespaced {
    /// A name from parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Namespaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_parse_as_users_write_them() {
        for (text, host, port) in [
            ("web.shop:80", Host::Name("web.shop".into()), 80),
            ("WEB.Shop.:80", Host::Name("web.shop".into()), 80),
            ("10.96.0.1:443", Host::Ip("10.96.0.1".parse().unwrap()), 443),
            ("[::1]:8080", Host::Ip("::1".parse().unwrap()), 8080),
            (
                "[::ffff:10.0.0.1]:1",
                Host::Ip("10.0.0.1".parse().unwrap()),
                1,
            ),
        ] {
            assert_eq!(
                text.parse::<Target>().unwrap(),
                Target::new(host, port),
                "{text}"
            );
        }
        for text in [
            "web",
            "web:",
            "web:0",
            "web:65536",
            ":80",
            "a b:80",
            "300.1.1.1:80",
            "::1",
            "[::1]",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert!(Target::parse("[::1]x", Some(80)).is_err());
        assert_eq!(
            Target::parse("web", Some(80)).unwrap().to_string(),
            "web:80"
        );
        assert_eq!(
            Target::parse("::1", Some(80)).unwrap().to_string(),
            "[::1]:80"
        );
    }

    /// What stands between slashes of a path to the API server.
    #[test]
    fn a_name_of_an_object_leads_nowhere_else() {
        let longest = "a".repeat(63);
        for name in ["shop", "a", "7", "kube-system", "a-1-b", &longest] {
            assert!(is_label(name) && is_subdomain(name), "{name}");
            assert_eq!(namespace(name).unwrap(), name);
        }
        assert!(is_subdomain("web-0.a.b") && !is_label("web-0.a.b"));
        let long = "a".repeat(64);
        for wrong in [
            "",
            "kube-system/services/kube-dns?x=",
            "a/b",
            "..",
            ".",
            "a%2fb",
            "a?b",
            "a#b",
            "A",
            "a_b",
            "-a",
            "a-",
            "a b",
            "ä",
            "a\n",
            &long,
        ] {
            assert!(!is_label(wrong) && !is_subdomain(wrong), "{wrong:?}");
            assert!(namespace(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn long_names_are_refused() {
        assert!("a".repeat(64).parse::<Host>().is_err());
        assert!(vec!["a"; 128].join(".").parse::<Host>().is_err());
    }
}
