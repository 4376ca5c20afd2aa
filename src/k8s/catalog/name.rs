//! What a host asks for. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Host, Namespaced, ServiceForm, service_form};

/// Longest name of a Service (RFC 1035 label).
const MAX_SERVICE: usize = 63;

/// What a host asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Query {
    /// A Service; `certain` when the name can mean nothing else.
    Service { name: Namespaced, certain: bool },
    /// A pod by its host name under a headless Service.
    PodOf { service: Namespaced, host: String },
    /// A Service or a pod by its address.
    Ip(IpAddr),
    /// Nothing of the cluster's.
    Nothing,
}

impl Query {
    /// Reads a host; `namespace` is where a bare name is looked for.
    pub(super) fn of(host: &Host, namespace: &str, domain: &str) -> Self {
        let name = match host {
            Host::Ip(ip) if ip.is_loopback() || ip.is_unspecified() => return Self::Nothing,
            Host::Ip(ip) => return Self::Ip(*ip),
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                return Self::Nothing;
            }
            Host::Name(name) => name,
        };
        match service_form(name, namespace, domain) {
            Some(ServiceForm::Certain(name)) => Self::Service {
                name,
                certain: true,
            },
            Some(ServiceForm::Possible(name))
                if is_label(&name.name) && is_label(&name.namespace) =>
            {
                Self::Service {
                    name,
                    certain: false,
                }
            }
            Some(ServiceForm::Possible(_)) => Self::Nothing,
            None => Self::of_pod(name, domain),
        }
    }

    /// `host.svc.ns.svc` and `1-2-3-4.ns.pod`, with or without the domain.
    fn of_pod(name: &str, domain: &str) -> Self {
        let bare = name.strip_suffix(domain).and_then(|n| n.strip_suffix('.'));
        let labels: Vec<&str> = bare.unwrap_or(name).split('.').collect();
        match labels.as_slice() {
            [host, service, namespace, "svc"] => match dashed(host) {
                Some(ip) => Self::Ip(ip),
                None => Self::PodOf {
                    service: Namespaced::new(*namespace, *service),
                    host: (*host).to_owned(),
                },
            },
            [ip, _, "pod"] => dashed(ip).map_or(Self::Nothing, Self::Ip),
            _ => Self::Nothing,
        }
    }

    /// The namespace that the answer lies in, where the question says so.
    pub(super) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Service { name, .. } => Some(&name.namespace),
            Self::PodOf { service, .. } => Some(&service.namespace),
            Self::Ip(_) | Self::Nothing => None,
        }
    }
}

/// An address written with dashes.
fn dashed(text: &str) -> Option<IpAddr> {
    let v4 = text.replace('-', ".").parse::<Ipv4Addr>().map(Into::into);
    let v6 = || text.replace('-', ":").parse::<Ipv6Addr>().map(Into::into);
    v4.or_else(|_| v6()).ok()
}

/// Whether a text can be the name of a Service or a namespace.
fn is_label(text: &str) -> bool {
    text.len() <= MAX_SERVICE
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(host: &str) -> Query {
        Query::of(&host.parse().unwrap(), "dev", "cluster.local")
    }

    #[test]
    fn hosts_are_read_as_cluster_dns_would() {
        let service = |ns: &str, name: &str, certain| Query::Service {
            name: Namespaced::new(ns, name),
            certain,
        };
        let ip = |ip: &str| Query::Ip(ip.parse().unwrap());
        assert_eq!(query("web"), service("dev", "web", false));
        assert_eq!(query("web.shop"), service("shop", "web", false));
        assert_eq!(query("web.shop.svc"), service("shop", "web", true));
        assert_eq!(
            query("web.shop.svc.cluster.local."),
            service("shop", "web", true)
        );
        assert_eq!(
            query("db-0.db.shop.svc.cluster.local"),
            Query::PodOf {
                service: Namespaced::new("shop", "db"),
                host: "db-0".into()
            }
        );
        assert_eq!(query("10-244-0-7.shop.pod.cluster.local"), ip("10.244.0.7"));
        assert_eq!(query("10-244-0-7.web.shop.svc"), ip("10.244.0.7"));
        assert_eq!(query("10.96.0.1"), ip("10.96.0.1"));
        for elsewhere in [
            "localhost",
            "127.0.0.1",
            "www.example.com",
            "_x._tcp",
            "a_b",
        ] {
            assert_eq!(query(elsewhere), Query::Nothing, "{elsewhere}");
        }
    }
}
