//! Rules of the user's own about which destinations are the cluster's: `--also-proxy`,
//! `--never-proxy` and `--resolve-in-cluster`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use crate::addr::{Host, Target, split_port};

/// Where a rule sends what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// `never-proxy`: from the laptop, even where the cluster has it.
    Laptop,
    /// `also-proxy`: into the cluster, even where the cluster is not known to have it.
    Cluster,
    /// `resolve-in-cluster`: as [`Side::Cluster`], and only the cluster's DNS is asked about it.
    Inside,
}

impl Side {
    /// The name of the setting that holds such rules.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            Self::Laptop => "never-proxy",
            Self::Cluster => "also-proxy",
            Self::Inside => "resolve-in-cluster",
        }
    }
}

/// What a rule names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pattern {
    /// This name alone.
    Name(String),
    /// All names that end in this text, which begins with a dot.
    Suffix(String),
    /// Addresses. Names are not looked up to find out whether theirs is among them.
    Net(IpNet),
}

/// One rule: what, and on which port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    side: Side,
    pattern: Pattern,
    port: Option<u16>,
}

/// The rules of a session. Cheap to clone; without a rule, what the cluster has is the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// The most specific first.
    rules: Arc<[Rule]>,
}

/// Why rules are not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoutesError {
    /// A text is no rule.
    #[error("{text:?} {reason}")]
    Rule {
        /// The setting it stands in.
        side: Side,
        /// The text.
        text: String,
        /// What is wrong with it, and what to write instead.
        reason: String,
    },
    /// The same destination shall go both ways.
    #[error("{rule} stands both in {one} and in {other}; remove it from one of them")]
    Conflict {
        /// The rule that names it.
        rule: String,
        /// One setting that it stands in.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
}

const FORMS: &str = "is no rule; write a name (db.corp.example), a suffix (.corp.example), \
                     an address or a CIDR (10.0.0.0/8), each with :PORT where it is for one port";

const OWN: &str = "means this machine itself, which no cluster can stand in for";

impl Routes {
    /// Reads the rules of all settings: names, suffixes (`.corp.example` or `*.corp.example`),
    /// addresses and CIDRs, each with an optional `:PORT`; IPv6 with a port in brackets. `inside`
    /// has domains, each of which stands for itself and all names below it.
    ///
    /// # Errors
    /// Where a text is no rule, or the same destination is to go both ways.
    pub fn parse(
        also: &[String],
        never: &[String],
        inside: &[String],
    ) -> Result<Self, RoutesError> {
        let mut parsed = Vec::new();
        for (side, texts) in [(Side::Cluster, also), (Side::Laptop, never)] {
            for text in texts {
                parsed.push(Rule::parse(side, text)?);
            }
        }
        for text in inside {
            parsed.extend(Rule::domain(text)?);
        }
        let mut rules: BTreeMap<_, Side> = BTreeMap::new();
        for rule in parsed {
            let (shown, side) = (rule.to_string(), rule.side);
            match rules.insert((rule.pattern, rule.port), side) {
                Some(other) if (other == Side::Laptop) != (side == Side::Laptop) => {
                    return Err(RoutesError::Conflict {
                        rule: shown,
                        one: other.setting(),
                        other: side.setting(),
                    });
                }
                _ => {}
            }
        }
        Ok(Self::of(rules))
    }

    /// Where the rules send `name`, which is lower-case and has no final dot, on every port, if they
    /// do.
    #[must_use]
    pub fn side(&self, name: &str) -> Option<Side> {
        // Rules for one port are not about the name: no port is 0.
        let target = Target::new(Host::Name(name.to_owned()), 0);
        self.decide(&target).map(Rule::side)
    }

    fn of(rules: BTreeMap<(Pattern, Option<u16>), Side>) -> Self {
        let rules = rules.into_iter();
        let mut rules: Vec<Rule> = rules
            .map(|((pattern, port), side)| Rule {
                side,
                pattern,
                port,
            })
            .collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.rank()));
        Self {
            rules: rules.into(),
        }
    }

    /// The rule that decides on `target`, if any does: the most specific one, where a whole name
    /// comes before a suffix, a longer suffix or prefix before a shorter one, and one with a port
    /// before the same without.
    #[must_use]
    pub fn decide(&self, target: &Target) -> Option<&Rule> {
        // What means this machine itself is never the cluster's.
        self.rules
            .iter()
            .find(|rule| rule.matches(target))
            .filter(|rule| rule.side == Side::Laptop || !is_own(&target.host))
    }

    /// The rules, the most specific first.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }
}

impl Rule {
    /// Where it sends what it names.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// The name, or the end of names with its dot, that it sends into the cluster on every port.
    #[must_use]
    pub fn into_cluster(&self) -> Option<&str> {
        match &self.pattern {
            Pattern::Name(text) | Pattern::Suffix(text)
                if self.side != Side::Laptop && self.port.is_none() =>
            {
                Some(text)
            }
            _ => None,
        }
    }

    fn parse(side: Side, text: &str) -> Result<Self, RoutesError> {
        let error = |reason: &str| RoutesError::Rule {
            side,
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        if text.contains("://") {
            return Err(error("is a URL; write its host"));
        }
        let (what, port) = split_port(text.trim());
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port)) if port != 0 => Some(port),
            Some(_) => return Err(error("has no port from 1 to 65535 after its last colon")),
        };
        let suffix = what.strip_prefix('*').unwrap_or(what);
        let pattern = if what.contains('/') {
            Pattern::Net(net(what).map_err(|reason| error(&reason))?)
        } else if let Some(name) = suffix.strip_prefix('.') {
            match name.parse() {
                Ok(Host::Name(name)) => Pattern::Suffix(format!(".{name}")),
                _ => return Err(error(FORMS)),
            }
        } else {
            match what.parse() {
                Ok(Host::Name(name)) => Pattern::Name(name),
                Ok(Host::Ip(ip)) => Pattern::Net(ip.into()),
                Err(_) => return Err(error(FORMS)),
            }
        };
        let rule = Self {
            side,
            pattern,
            port,
        };
        if side == Side::Cluster && rule.is_own() {
            return Err(error(OWN));
        }
        Ok(rule)
    }

    /// The rules for a domain, with or without a dot before it: itself, and all below it.
    fn domain(text: &str) -> Result<[Self; 2], RoutesError> {
        let error = |reason: &str| RoutesError::Rule {
            side: Side::Inside,
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let name = text.trim();
        let name = name.strip_prefix('*').unwrap_or(name);
        let name = match name.strip_prefix('.').unwrap_or(name).parse() {
            Ok(Host::Name(name)) => name,
            Ok(Host::Ip(_)) | Err(_) => {
                return Err(error("is no domain; write one such as corp.example"));
            }
        };
        if is_own(&Host::Name(name.clone())) {
            return Err(error(OWN));
        }
        let rule = |pattern| Self {
            side: Side::Inside,
            pattern,
            port: None,
        };
        Ok([
            rule(Pattern::Suffix(format!(".{name}"))),
            rule(Pattern::Name(name)),
        ])
    }

    /// Whether all that it names is this machine.
    fn is_own(&self) -> bool {
        match &self.pattern {
            Pattern::Name(name) => is_own(&Host::Name(name.clone())),
            Pattern::Suffix(suffix) => suffix == ".localhost" || suffix.ends_with(".localhost"),
            Pattern::Net(net) => {
                let whole = net.prefix_len() >= if net.addr().is_ipv4() { 8 } else { 128 };
                whole && is_own(&Host::Ip(net.addr()))
            }
        }
    }

    fn matches(&self, target: &Target) -> bool {
        let host = match (&self.pattern, &target.host) {
            (Pattern::Name(name), Host::Name(host)) => name == host,
            (Pattern::Suffix(suffix), Host::Name(host)) => host.ends_with(suffix.as_str()),
            (Pattern::Net(net), Host::Ip(ip)) => net.contains(&ip.to_canonical()),
            (Pattern::Name(_) | Pattern::Suffix(_), Host::Ip(_))
            | (Pattern::Net(_), Host::Name(_)) => false,
        };
        host && self.port.is_none_or(|port| port == target.port)
    }

    /// Orders rules that match the same destination; no two of one session are equal.
    fn rank(&self) -> (usize, bool) {
        let length = match &self.pattern {
            Pattern::Name(_) => usize::MAX,
            Pattern::Suffix(suffix) => suffix.len(),
            Pattern::Net(net) => usize::from(net.prefix_len()),
        };
        (length, self.port.is_some())
    }
}

impl fmt::Display for Rule {
    /// Without the setting, as [`Routes::parse`] takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.pattern {
            Pattern::Name(name) => name.clone(),
            Pattern::Suffix(suffix) => suffix.clone(),
            Pattern::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
            Pattern::Net(net) => net.to_string(),
        };
        match self.port {
            Some(port) if text.contains(':') => write!(f, "[{text}]:{port}"),
            Some(port) => write!(f, "{text}:{port}"),
            None => f.write_str(&text),
        }
    }
}

/// A CIDR, v4-mapped ones in their IPv4 form; else what is wrong with it.
fn net(text: &str) -> Result<IpNet, String> {
    /// Bits before the IPv4 address in a v4-mapped one.
    const MAPPED: u8 = 96;
    let net: IpNet = text
        .parse()
        .map_err(|_| "is no CIDR; write an address and its prefix: 10.0.0.0/8".to_owned())?;
    if net.trunc() != net {
        return Err(format!(
            "has bits set beyond its prefix; write {}",
            net.trunc()
        ));
    }
    if let (IpAddr::V4(v4), IpNet::V6(v6)) = (net.addr().to_canonical(), net)
        && let Some(length) = v6.prefix_len().checked_sub(MAPPED)
        && let Ok(mapped) = Ipv4Net::new(v4, length)
    {
        return Ok(mapped.into());
    }
    Ok(net)
}

/// Whether a host means this machine whatever network it is in.
fn is_own(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => ip.is_loopback() || ip.is_unspecified(),
        Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests;
