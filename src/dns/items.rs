//! What the names of Services, endpoints and pods stand for, as CoreDNS sees it: addresses, each
//! with a port, of which the records of every type are made. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use super::zone::{Endpoint, Port, Service, dashed};
use crate::addr::Namespaced;

/// An address with a port, under the name that SRV records give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// The name below the cluster's domain.
    pub(super) host: String,
    pub(super) ip: IpAddr,
    /// `None` where there is no port, or all are meant: such an item has no SRV record.
    pub(super) port: Option<u16>,
}

/// Which ports of a Service a name speaks of; an empty text stands for all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ports<'a> {
    pub(super) name: &'a str,
    /// `tcp`, without the underscore.
    pub(super) protocol: &'a str,
}

impl Ports<'_> {
    fn takes(&self, port: &Port) -> bool {
        let protocol = port.protocol.label().trim_start_matches('_');
        (self.name.is_empty() || self.name == &*port.name)
            && (self.protocol.is_empty() || self.protocol == protocol)
    }

    /// Of those that something has, the numbers of the ports that are meant. What has no port at
    /// all is meant only where none is named.
    fn of(&self, ports: &[Port]) -> Vec<Option<u16>> {
        if ports.is_empty() {
            let any = self.name.is_empty() && self.protocol.is_empty();
            return if any { vec![None] } else { Vec::new() };
        }
        let ports = ports.iter().filter(|port| self.takes(port));
        ports.map(|port| port.number).collect()
    }
}

/// What `service`, called `name`, has for `ports`; nothing where the name does not exist.
pub(super) fn of_service(name: &Namespaced, service: &Service, ports: Ports<'_>) -> Vec<Item> {
    let own = format!("{}.{}.svc", name.name, name.namespace);
    match service {
        Service::Cluster { ips, ports: has } => {
            let numbers = ports.of(has).into_iter();
            let items = numbers.flat_map(|port| ips.iter().map(move |ip| (*ip, port)));
            items
                .map(|(ip, port)| Item {
                    host: own.clone(),
                    ip,
                    port,
                })
                .collect()
        }
        Service::Headless(endpoints) => {
            let endpoints = endpoints.iter();
            endpoints
                .flat_map(|endpoint| of_endpoint(&own, endpoint, ports))
                .collect()
        }
        Service::Alias(_) => Vec::new(),
    }
}

fn of_endpoint(service: &str, endpoint: &Endpoint, ports: Ports<'_>) -> Vec<Item> {
    let numbers = ports.of(&endpoint.ports);
    let mut items = Vec::with_capacity(endpoint.ips.len() * numbers.len());
    for ip in &endpoint.ips {
        let host = match &endpoint.host {
            Some(host) => format!("{host}.{service}"),
            None => format!("{}.{service}", dashed(*ip)),
        };
        items.extend(numbers.iter().map(|port| Item {
            host: host.clone(),
            ip: *ip,
            port: *port,
        }));
    }
    items
}

/// The weight of each of `count` items in SRV records: equal shares of a hundred. CoreDNS counts
/// items, so that an address of each family halves it although both have one record.
pub(super) fn weight(count: usize) -> u16 {
    let sum = 100.0 * count.max(1) as f64;
    // At most 100.
    ((100.0 / sum * 100.0) as u16).max(1)
}

/// The addresses of one family, each once.
pub(super) fn addresses(items: &[Item], is_wanted: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    let ips = items.iter().map(|item| item.ip).filter(is_wanted);
    ips.filter(|ip| seen.insert(*ip)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Protocol;

    fn port(name: &str, protocol: Protocol, number: Option<u16>) -> Port {
        Port {
            name: name.into(),
            protocol,
            number,
        }
    }

    fn shown(service: &Service, name: &str, protocol: &str) -> Vec<String> {
        let web = Namespaced::new("shop", "web");
        let items = of_service(&web, service, Ports { name, protocol });
        let items = items.into_iter();
        items
            .map(|Item { host, ip, port }| format!("{host} {ip} {port:?}"))
            .collect()
    }

    #[test]
    fn each_address_goes_with_each_port_that_is_meant() {
        let service = Service::Cluster {
            ips: vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            ports: vec![
                port("dns", Protocol::Udp, Some(53)),
                port("dns-tcp", Protocol::Tcp, Some(53)),
            ],
        };
        assert_eq!(shown(&service, "", "").len(), 4);
        let one = ["10.96.0.1", "fd00::1"].map(|ip| format!("web.shop.svc {ip} Some(53)"));
        assert_eq!(shown(&service, "dns", "udp"), one);
        assert_eq!(shown(&service, "", "udp"), one);
        assert_eq!(shown(&service, "dns", ""), one);
        for (name, protocol) in [
            ("dns", "tcp"),
            ("http", "tcp"),
            ("dns", "sctp"),
            ("dns", "x"),
        ] {
            assert_eq!(
                shown(&service, name, protocol),
                [""; 0],
                "{name} {protocol}"
            );
        }
    }

    #[test]
    fn an_endpoint_without_a_host_name_is_called_after_each_of_its_addresses() {
        let mut endpoint = Endpoint {
            host: None,
            ips: vec!["10.0.0.1".parse().unwrap(), "fd00::".parse().unwrap()],
            ports: Vec::new(),
        };
        let of =
            |endpoint: &Endpoint, name| shown(&Service::Headless(vec![endpoint.clone()]), name, "");
        assert_eq!(
            of(&endpoint, ""),
            [
                "10-0-0-1.web.shop.svc 10.0.0.1 None",
                "fd00--0.web.shop.svc fd00:: None",
            ]
        );
        assert_eq!(of(&endpoint, "http"), [""; 0], "it has no port");
        endpoint.host = Some("web-0".into());
        endpoint.ports = vec![port("http", Protocol::Tcp, None)];
        assert_eq!(
            of(&endpoint, "http"),
            [
                "web-0.web.shop.svc 10.0.0.1 None",
                "web-0.web.shop.svc fd00:: None",
            ],
            "all ports"
        );
    }

    #[test]
    fn weights_are_shares_of_a_hundred_and_never_nothing() {
        let shares = [1, 2, 3, 4, 7, 100, 101, 5000].map(weight);
        assert_eq!(shares, [100, 50, 33, 25, 14, 1, 1, 1]);
        assert_eq!(weight(0), 100);
    }
}
