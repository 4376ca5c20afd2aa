//! What a user asks `kdev forward` for: kdev's own form, kubectl's, and URLs. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::addr::{Host, Protocol, split_port};
use crate::k8s::catalog::WorkloadKind;

/// Ports of URLs that say none.
const SCHEMES: [(&str, u16); 20] = [
    ("http", 80),
    ("https", 443),
    ("ws", 80),
    ("wss", 443),
    ("grpc", 443),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("mysql", 3306),
    ("mariadb", 3306),
    ("mongodb", 27017),
    ("redis", 6379),
    ("rediss", 6379),
    ("valkey", 6379),
    ("amqp", 5672),
    ("amqps", 5671),
    ("nats", 4222),
    ("mqtt", 1883),
    ("mqtts", 8883),
    ("ldap", 389),
    ("ldaps", 636),
];
/// Longest name of a port (RFC 6335, 5.1).
const LONGEST_PORT_NAME: usize = 15;
/// How the words go together, for who got it wrong.
const USAGE: &str = "write SERVICE:PORT[=LOCAL], as in `kdev forward pg.shop:5432=15432`, or as for \
                     kubectl TYPE/NAME [LOCAL:]PORT, as in `kdev forward deploy/web 8080:80`";

/// One port that a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Where it leads.
    pub what: Named,
    /// The port there, by its number or name; the only one where none is said.
    pub port: Option<PortName>,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// The local address; loopback when the user names none.
    pub ip: IpAddr,
    /// The local port; `None` for the same number as there.
    pub local_port: Option<u16>,
}

/// What has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A Service, any other host, or a pod: whatever has the name.
    Host(Host),
    /// A Service.
    Service(Host),
    /// A pod, as `NAME` or `NAME.NAMESPACE`.
    Pod(String),
    /// The ready pods of a workload, named in the same way.
    Workload(WorkloadKind, String),
}

/// A port as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortName {
    /// A number.
    Number(u16),
    /// A name that the port has.
    Name(String),
}

impl FromStr for PortName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.parse::<u16>() {
            Ok(0) => Err(()),
            Ok(number) => Ok(Self::Number(number)),
            Err(_) if text.bytes().all(|b| b.is_ascii_digit()) => Err(()),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(Host::Ip(IpAddr::V6(ip))) | Self::Service(Host::Ip(IpAddr::V6(ip))) => {
                write!(f, "[{ip}]")
            }
            Self::Host(host) | Self::Service(host) => host.fmt(f),
            Self::Pod(name) => write!(f, "pod/{name}"),
            Self::Workload(kind, name) => write!(f, "{kind}/{name}"),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.fmt(f)?;
        if let Some(port) = &self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(suffix(self.protocol))
    }
}

/// What follows a port that is not TCP's.
pub(super) fn suffix(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "/udp",
        Protocol::Tcp | Protocol::Sctp => "",
    }
}

impl Spec {
    /// Reads all words of a command line: kubectl has a port in a word of its own, behind the
    /// resource that it belongs to.
    ///
    /// # Errors
    /// The first word that makes no sense, and why.
    pub fn read(words: &[String]) -> Result<Vec<Self>, String> {
        let mut specs: Vec<Self> = Vec::new();
        // The last resource: how it was written, whether its ports may follow, whether one did.
        let mut last: Option<(&str, bool, bool)> = None;
        for word in words {
            // A bare word may be a port's name only where kubectl's form was begun.
            let typed = last.is_some_and(|(text, open, _)| open && text.contains('/'));
            let Some(port) = Port::read(word, typed) else {
                let spec = Self::resource(word)?;
                last = Some((
                    word,
                    spec.port.is_none() && spec.local_port.is_none(),
                    false,
                ));
                specs.push(spec);
                continue;
            };
            let (remote, protocol, local_port) = port?;
            let (text, open, followed) = last.ok_or_else(|| {
                format!("{word} is a port, and the Service comes first: `kdev forward pg {word}`")
            })?;
            if !open {
                return Err(format!(
                    "{word} is one more port of {text}, which says its own already; {USAGE}"
                ));
            }
            let mut spec = match followed {
                true => specs.last().cloned(),
                false => specs.pop(),
            }
            .ok_or_else(|| USAGE.to_owned())?;
            last = Some((text, open, true));
            spec.port = Some(remote);
            spec.local_port = local_port;
            spec.protocol = protocol;
            specs.push(spec);
        }
        Ok(specs)
    }

    /// Reads a word that says what has the port.
    fn resource(word: &str) -> Result<Self, String> {
        if let Some((scheme, rest)) = word.split_once("://") {
            return Self::url(word, scheme, rest);
        }
        let (text, local) = match word.split_once('=') {
            Some((text, local)) => (text, Some(local)),
            None => (word, None),
        };
        let (text, protocol) = protocol(text);
        let (kind, text) = match text.split_once('/') {
            Some((kind, text)) => (Some(kind), text),
            None => (None, text),
        };
        let (name, port) = split_port(text);
        let port = port.map(|port| port.parse::<PortName>().ok().filter(is_port));
        let port = match port {
            Some(None) => return Err(format!("{word:?} has no port from 1 to 65535; {USAGE}")),
            Some(port) => port,
            None => None,
        };
        let host = name
            .parse::<Host>()
            .map_err(|error| format!("{error}; {USAGE}"))?;
        let what = match kind {
            None => Named::Host(host),
            Some(kind) => named(word, kind, host)?,
        };
        let (ip, local_port) = match local {
            None => (Ipv4Addr::LOCALHOST.into(), None),
            Some(local) => match local.parse::<u16>() {
                Ok(port) => (Ipv4Addr::LOCALHOST.into(), Some(port)),
                Err(_) => {
                    let address: SocketAddr = local.parse().map_err(|_| {
                        format!("{local:?} is neither a local port nor ADDRESS:PORT")
                    })?;
                    (address.ip(), Some(address.port()))
                }
            },
        };
        Ok(Self {
            what,
            port,
            protocol,
            ip,
            local_port,
        })
    }

    /// Reads a URL. What it says of users and paths is the app's.
    fn url(word: &str, scheme: &str, rest: &str) -> Result<Self, String> {
        let scheme = scheme.strip_prefix("jdbc:").unwrap_or(scheme);
        let scheme = scheme.to_ascii_lowercase();
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = split_port(host);
        let usual = SCHEMES.iter().find(|(name, _)| *name == scheme);
        let number = match port.filter(|port| !port.is_empty()) {
            Some(port) => port.parse::<u16>().ok().filter(|port| *port != 0),
            None => usual.map(|(_, port)| *port),
        };
        // A URL may hold a password: what is shown of it is its host.
        let number = number.ok_or_else(|| match port {
            Some(port) => format!("{port:?} in the URL of {host} is no port from 1 to 65535"),
            None => format!("which port {scheme}:// means is not known; write {host}:PORT"),
        })?;
        let host = host.parse::<Host>().map_err(|_| match word.contains('@') {
            true => "the URL has no host that can be read; write HOST:PORT".to_owned(),
            false => format!("{word:?} has no host that can be read; write HOST:PORT"),
        })?;
        Ok(Self {
            what: Named::Host(host),
            port: Some(PortName::Number(number)),
            protocol: Protocol::Tcp,
            ip: Ipv4Addr::LOCALHOST.into(),
            local_port: None,
        })
    }
}

/// A word that is a port: `[LOCAL:]PORT[/udp]`, or `PORT=LOCAL`.
struct Port;

type ReadPort = Result<(PortName, Protocol, Option<u16>), String>;

impl Port {
    /// Reads it; `None` where it is something else. `typed` is whether a bare word may be a name.
    fn read(word: &str, typed: bool) -> Option<ReadPort> {
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let (text, protocol) = protocol(word);
        let (remote, local) = match (text.split_once(':'), text.split_once('=')) {
            (Some((local, remote)), _) if digits(local) => (remote, Some(local)),
            (None, Some((remote, local))) if !remote.is_empty() && digits(remote) => {
                (remote, Some(local))
            }
            (None, None) if digits(text) => (text, None),
            (None, None) if typed => (text, None),
            _ => return None,
        };
        let Some(remote) = remote.parse::<PortName>().ok().filter(is_port) else {
            // `svc/web pod/redis-0`: what has a slash or a dot is no port's name.
            let other = local.is_none() && !digits(text) || remote.contains(':');
            return (!other).then(|| Err(format!("{word:?} has no port from 1 to 65535")));
        };
        let local = match local {
            None => None,
            // As for kubectl: any free one.
            Some("") => Some(0),
            Some(local) => match local.parse::<u16>() {
                Ok(local) => Some(local),
                Err(_) => return Some(Err(format!("{local:?} is no local port"))),
            },
        };
        Some(Ok((remote, protocol, local)))
    }
}

/// Whether the name of a port can be one: `pg-1.shop` cannot.
fn is_port(port: &PortName) -> bool {
    match port {
        PortName::Number(_) => true,
        PortName::Name(name) => {
            (1..=LONGEST_PORT_NAME).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        }
    }
}

/// Takes `/udp` or `/tcp` off the end of a word.
fn protocol(text: &str) -> (&str, Protocol) {
    let Some((rest, end)) = text.rsplit_once('/') else {
        return (text, Protocol::Tcp);
    };
    let protocol = match end.to_ascii_lowercase().as_str() {
        "udp" => Protocol::Udp,
        "tcp" => Protocol::Tcp,
        _ => return (text, Protocol::Tcp),
    };
    // A pod may be called that.
    match is_kind(rest) {
        true => (text, Protocol::Tcp),
        false => (rest, protocol),
    }
}

/// A kind without its group: `deployment.apps` is what kubectl prints.
fn plain(kind: &str) -> String {
    kind.split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

fn is_kind(text: &str) -> bool {
    let kind = plain(text);
    is_service(&kind) || is_pod(&kind) || WorkloadKind::named(&kind).is_some()
}

fn is_service(kind: &str) -> bool {
    matches!(kind, "svc" | "service" | "services")
}

fn is_pod(kind: &str) -> bool {
    matches!(kind, "po" | "pod" | "pods")
}

fn named(word: &str, kind: &str, host: Host) -> Result<Named, String> {
    let kind = plain(kind);
    if is_service(&kind) {
        return Ok(Named::Service(host));
    }
    let Host::Name(name) = host else {
        return Err(format!(
            "{word:?} names a {kind} by an address; write its name"
        ));
    };
    if is_pod(&kind) {
        return Ok(Named::Pod(name));
    }
    match WorkloadKind::named(&kind) {
        Some(kind) => Ok(Named::Workload(kind, name)),
        None => Err(format!(
            "{word:?} is of a kind that has no ports; those of svc, pod, deploy, statefulset, \
             daemonset, replicaset and job can be forwarded"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn read(line: &str) -> Vec<Spec> {
        Spec::read(&words(line)).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    fn spec(text: &str) -> Spec {
        let specs = read(text);
        assert_eq!(specs.len(), 1, "{text}: {specs:?}");
        specs.into_iter().next().unwrap()
    }

    fn host(name: &str) -> Named {
        Named::Host(Host::Name(name.into()))
    }

    #[test]
    fn specs_as_users_write_them() {
        let pg = spec("pg.shop:5432");
        assert_eq!(pg.what, host("pg.shop"));
        assert_eq!(pg.port, Some(PortName::Number(5432)));
        assert_eq!((pg.ip, pg.local_port), (Ipv4Addr::LOCALHOST.into(), None));
        assert_eq!(
            spec("web:http=8080").port,
            Some(PortName::Name("http".into()))
        );
        assert_eq!(spec("web:http=8080").local_port, Some(8080));
        assert_eq!(
            spec("web:80=0.0.0.0:8080").ip,
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        );
        assert_eq!(spec("[fd00::1]:80=0").local_port, Some(0));
        assert_eq!(spec("web").port, None);
        assert_eq!(spec("web=0").local_port, Some(0));
        assert_eq!(spec("dns:53/udp").protocol, Protocol::Udp);
        assert_eq!(spec("dns:53/udp=5353").local_port, Some(5353));
    }

    #[test]
    fn kubectls_words_go_together() {
        let number = |n| Some(PortName::Number(n));
        let web = Named::Service(Host::Name("web".into()));
        let deployed = Named::Workload(WorkloadKind::Deployment, "web".into());
        for (line, what, port, local) in [
            ("svc/web 80", web.clone(), number(80), None),
            ("service/web:80", web.clone(), number(80), None),
            ("svc/web 8080:80", web.clone(), number(80), Some(8080)),
            ("svc/web :80", web.clone(), number(80), Some(0)),
            (
                "svc/web http",
                web.clone(),
                Some(PortName::Name("http".into())),
                None,
            ),
            (
                "svc/web 8080:http",
                web,
                Some(PortName::Name("http".into())),
                Some(8080),
            ),
            ("deploy/web 8080", deployed.clone(), number(8080), None),
            (
                "deployment.apps/web 8080",
                deployed.clone(),
                number(8080),
                None,
            ),
            ("deploy/web", deployed, None, None),
            (
                "statefulset/redis 6379",
                Named::Workload(WorkloadKind::StatefulSet, "redis".into()),
                number(6379),
                None,
            ),
            (
                "pod/redis-0 6379",
                Named::Pod("redis-0".into()),
                number(6379),
                None,
            ),
            ("pod/udp 6379", Named::Pod("udp".into()), number(6379), None),
            ("redis-0 6379", host("redis-0"), number(6379), None),
            ("pg 15432:5432", host("pg"), number(5432), Some(15432)),
            ("pg 5432=15432", host("pg"), number(5432), Some(15432)),
            (
                "http://web.shop/a?b=c:d",
                host("web.shop"),
                number(80),
                None,
            ),
            (
                "https://web.shop:8443",
                host("web.shop"),
                number(8443),
                None,
            ),
            (
                "postgres://u:p@w@pg.shop/db",
                host("pg.shop"),
                number(5432),
                None,
            ),
            ("jdbc:postgresql://pg/db", host("pg"), number(5432), None),
            ("redis://redis", host("redis"), number(6379), None),
        ] {
            let read = spec(line);
            assert_eq!(
                (read.what, read.port, read.local_port),
                (what, port, local),
                "{line}"
            );
            assert_eq!(read.protocol, Protocol::Tcp, "{line}");
        }
        let udp = spec("svc/dns 5353:53/udp");
        assert_eq!((udp.protocol, udp.local_port), (Protocol::Udp, Some(5353)));
    }

    #[test]
    fn several_resources_have_several_ports() {
        let shown = |line: &str| {
            let all = read(line);
            let all = all.iter().map(|s| match s.local_port {
                Some(local) => format!("{s}={local}"),
                None => s.to_string(),
            });
            all.collect::<Vec<_>>().join(" ")
        };
        for (line, is) in [
            (
                "svc/web 8080:80 9090:metrics",
                "web:80=8080 web:metrics=9090",
            ),
            ("pg redis", "pg redis"),
            ("pg 5432 redis 6379", "pg:5432 redis:6379"),
            (
                "pg.shop:5432=15432 redis:6379",
                "pg.shop:5432=15432 redis:6379",
            ),
            ("svc/pg redis.shop", "pg redis.shop"),
            ("svc/pg pod/redis-0 6379", "pg pod/redis-0:6379"),
            ("deploy/web 80 pg:5432", "deployment/web:80 pg:5432"),
        ] {
            assert_eq!(shown(line), is, "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (line, why) in [
            ("web:", "no port"),
            (":80", "comes first"),
            ("8080:80 svc/web", "comes first"),
            ("web:0", "no port"),
            ("web:99999", "no port"),
            ("web 0", "no port"),
            ("web 99999", "no port"),
            ("web 99999:80", "no local port"),
            ("web:80=x", "neither a local port"),
            ("web:80=", "neither a local port"),
            ("web:80 81", "says its own already"),
            ("a\tb:80", "neither a host name"),
            ("ingress/web 80", "of a kind that has no ports"),
            ("pod/10.0.0.1 80", "by an address"),
            ("foo://web", "which port foo:// means"),
            ("http://web:0/", "no port"),
        ] {
            let error = Spec::read(&words(line)).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        // No password gets to a terminal.
        let error = Spec::read(&words("postgres://me:geheim@p_g@/db")).unwrap_err();
        assert!(!error.contains("geheim"), "{error}");
    }
}
