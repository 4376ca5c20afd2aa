//! What a host name may mean in a cluster: the forms of the Kubernetes DNS specification, 1.1.0,
//! as a pod would get an answer to them, through its search list too.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{AddrError, Host, Namespaced, is_label};

/// The DNS domain of nearly all clusters.
pub const DEFAULT_DOMAIN: &str = "cluster.local";

/// The cluster's DNS domain, as far as it is known. Nothing in the API tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDomain(Option<String>);

impl ClusterDomain {
    /// The domain to write names with: the one that was set, or the usual one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or(DEFAULT_DOMAIN)
    }

    /// Whether it was set. Unless it was, names with other domains may be the cluster's too.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

impl FromStr for ClusterDomain {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        match text.strip_prefix('.').unwrap_or(text).parse()? {
            Host::Name(name) => Ok(Self(Some(name))),
            Host::Ip(_) => Err(AddrError::Host(text.to_owned())),
        }
    }
}

impl fmt::Display for ClusterDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a name is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// As an app writes it: a pod's search list applies.
    Relative,
    /// As the target of an alias: complete as it stands.
    Absolute,
}

/// What a name means, if the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClusterName {
    /// A Service.
    Service(Namespaced),
    /// One endpoint of a Service, by its host name or by its address with dashes: what SRV
    /// records of headless Services name.
    Endpoint {
        /// The Service.
        service: Namespaced,
        /// The host name or the address.
        host: String,
    },
    /// A pod by its address with dashes.
    PodIp {
        /// The namespace that the name says it is in.
        namespace: String,
        /// Its address.
        ip: IpAddr,
    },
    /// The name of an SRV record, which has no address.
    Srv {
        /// The Service.
        service: Namespaced,
        /// The name of its port.
        port: String,
    },
}

/// One way to read a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    /// What it means.
    pub name: ClusterName,
    /// Whether it is the cluster's even when there is no such thing there; else it is the
    /// cluster's only where it exists.
    pub certain: bool,
}

/// The ways to read `name`, in the order in which a pod in `namespace` would try them.
#[must_use]
pub fn readings(name: &str, namespace: &str, domain: &ClusterDomain, names: Names) -> Vec<Reading> {
    let mut found = Vec::new();
    let mut add = |name: Option<ClusterName>, certain| {
        if let Some(name) = name {
            let new = Reading { name, certain };
            if !found.contains(&new) {
                found.push(new);
            }
        }
    };
    let in_domain = name
        .strip_suffix(domain.name())
        .and_then(|rest| rest.strip_suffix('.'));
    let labels: Vec<&str> = in_domain.unwrap_or(name).split('.').collect();
    if in_domain.is_some() {
        add(complete(&labels), true);
        return found;
    }
    if names != Names::Absolute {
        // No top-level domain is called `svc`. Without the domain, the search list adds it.
        if let Some(complete) = complete(&labels) {
            add(Some(complete), true);
            return found;
        }
        let hosts = match labels.as_slice() {
            [port, protocol, rest @ ..] if is_srv(port) && is_srv(protocol) => rest,
            labels => labels,
        };
        if hosts.iter().all(|label| is_label(label)) {
            add(in_services(&labels, Some(namespace)), false);
            add(in_services(&labels, None), false);
        }
    }
    if !domain.is_set() {
        for end in labels.iter().enumerate().skip(1).rev().map(|(i, _)| i) {
            add(complete(&labels[..end]), false);
        }
    }
    found
}

/// A name without the cluster's domain.
fn complete(labels: &[&str]) -> Option<ClusterName> {
    match labels {
        [ip, namespace, "pod"] => undashed(ip).map(|ip| ClusterName::PodIp {
            namespace: (*namespace).to_owned(),
            ip,
        }),
        [rest @ .., "svc"] => in_services(rest, None),
        _ => None,
    }
}

/// A name under `svc`, or under a `namespace` of it.
fn in_services(labels: &[&str], namespace: Option<&str>) -> Option<ClusterName> {
    let (namespace, labels) = match (namespace, labels) {
        (Some(namespace), labels) => (namespace, labels),
        (None, [labels @ .., namespace]) => (*namespace, labels),
        (None, []) => return None,
    };
    match labels {
        [service] => Some(ClusterName::Service(Namespaced::new(namespace, *service))),
        [port, protocol, service] if is_srv(port) && is_srv(protocol) => Some(ClusterName::Srv {
            service: Namespaced::new(namespace, *service),
            port: port[1..].to_owned(),
        }),
        [host, service] if !is_srv(service) => Some(ClusterName::Endpoint {
            service: Namespaced::new(namespace, *service),
            host: (*host).to_owned(),
        }),
        _ => None,
    }
}

/// An address written with dashes for its dots or colons, as endpoints without a host name are
/// called.
#[must_use]
pub fn undashed(text: &str) -> Option<IpAddr> {
    let v4 = text.replace('-', ".").parse::<Ipv4Addr>();
    let v6 = || text.replace('-', ":").parse::<Ipv6Addr>();
    v4.map(IpAddr::from)
        .or_else(|_| v6().map(IpAddr::from))
        .ok()
}

/// Whether a text is a port or a protocol in an SRV name (RFC 2782).
fn is_srv(text: &str) -> bool {
    text.len() > 1 && text.starts_with('_')
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => describe(service, f),
            Self::Endpoint { service, host } => {
                write!(f, "endpoint {host} of ")?;
                describe(service, f)
            }
            Self::PodIp { namespace, ip } => {
                write!(f, "pod with address {ip} in namespace {namespace}")
            }
            Self::Srv { service, port } => {
                write!(f, "SRV record of port {port} of ")?;
                describe(service, f)
            }
        }
    }
}

fn describe(service: &Namespaced, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "Service {} in namespace {}",
        service.name, service.namespace
    )
}

#[cfg(test)]
mod tests;
