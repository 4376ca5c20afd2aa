//! What a host asks for. Pure.

use std::fmt;
use std::net::IpAddr;

use super::picked::Pick;
use crate::addr::{ClusterDomain, ClusterName, Host, Names, Namespaced, Reading, readings};

/// One thing that a host may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    pub(super) what: What,
    /// The cluster's even when it does not exist.
    pub(super) certain: bool,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    Name(ClusterName),
    /// A Service or a pod by its address.
    Ip(IpAddr),
    /// The names of an address.
    Reverse(IpAddr),
    /// Whether a namespace exists.
    Namespace(String),
    /// Pods that are meant without a Service. No host asks for these.
    Pods(Pick),
}

impl Query {
    /// A Service and nothing else.
    pub(super) fn service(name: Namespaced) -> Self {
        Self {
            what: What::Name(ClusterName::Service(name)),
            certain: true,
        }
    }

    /// A Service or a pod by its address.
    fn address(ip: IpAddr) -> Self {
        Self {
            what: What::Ip(ip),
            certain: false,
        }
    }

    /// The names of an address.
    pub(super) fn reverse(ip: IpAddr) -> Self {
        Self {
            what: What::Reverse(ip),
            certain: false,
        }
    }

    /// Whether a namespace exists.
    pub(super) fn existence(namespace: &str) -> Self {
        Self {
            what: What::Namespace(namespace.to_owned()),
            certain: true,
        }
    }

    /// All that a host may ask for, in the order of a pod in `namespace`; nothing where it cannot
    /// be the cluster's.
    pub(super) fn of(
        host: &Host,
        namespace: &str,
        domain: &ClusterDomain,
        names: Names,
    ) -> Vec<Self> {
        let name = match host {
            Host::Ip(ip) if ip.is_loopback() || ip.is_unspecified() => return Vec::new(),
            Host::Ip(ip) => return vec![Self::address(*ip)],
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                return Vec::new();
            }
            Host::Name(name) => name,
        };
        let readings = readings(name, namespace, domain, names).into_iter();
        readings
            .map(|Reading { name, certain }| Self {
                what: What::Name(name),
                certain,
            })
            .collect()
    }

    /// The namespace that the answer lies in, where the question says so.
    pub(super) fn namespace(&self) -> Option<&str> {
        match &self.what {
            What::Name(ClusterName::PodIp { namespace, .. }) => Some(namespace),
            What::Pods(pick) => Some(pick.namespace()),
            _ => self.service_name().map(|service| &*service.namespace),
        }
    }

    /// The Service that the answer depends on.
    pub(super) fn service_name(&self) -> Option<&Namespaced> {
        match &self.what {
            What::Name(
                ClusterName::Service(service)
                | ClusterName::Endpoint { service, .. }
                | ClusterName::Srv { service, .. },
            ) => Some(service),
            What::Name(ClusterName::PodIp { .. })
            | What::Ip(_)
            | What::Reverse(_)
            | What::Namespace(_)
            | What::Pods(_) => None,
        }
    }

    /// The address that is asked for.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match self.what {
            What::Ip(ip) | What::Name(ClusterName::PodIp { ip, .. }) => Some(ip),
            What::Name(_) | What::Reverse(_) | What::Namespace(_) | What::Pods(_) => None,
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Name(name) => name.fmt(f),
            What::Ip(ip) => write!(f, "address {ip}"),
            What::Reverse(ip) => write!(f, "names of {ip}"),
            What::Namespace(name) => write!(f, "namespace {name}"),
            What::Pods(pick) => pick.fmt(f),
        }
    }
}
