//! What the relay is told by its environment, validated once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::memory;
use super::policy::{Policy, Rule};
use crate::tunnel::TUNNEL_PORT;

/// First port of the fixed range where intercepted Services arrive: above what programs register,
/// below the ports that Linux gives to clients (32768).
pub const FIRST_PORT: u16 = 20_000;
/// Ports of that range.
pub const PORTS: u16 = 512;
/// Ports that one Service gets.
pub const BLOCK: u16 = 8;
/// Where metrics and readiness are served.
pub const HTTP_PORT: u16 = 20_600;
/// Where the two Secrets are mounted, a file `key` in each.
const SECRETS: &str = "/var/run/secrets/kdev";

/// What the relay is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where tunnels arrive.
    pub tunnel: SocketAddr,
    /// Also for tunnels, after an HTTP upgrade, for the way that does not pass the kubelet; none
    /// unless asked for.
    pub pod_tunnel: Option<SocketAddr>,
    /// Where metrics and readiness are served; none to go without.
    pub http: Option<SocketAddr>,
    /// The address and the first port of the fixed range, and how many there are.
    pub inbound: (IpAddr, u16, u16),
    /// The folder with the secrets: `forward/key` and, for intercepts, `intercept/key`.
    pub secrets: PathBuf,
    /// What may be reached.
    pub policy: Policy,
    /// Bytes of memory that the container may use.
    pub memory: usize,
}

impl Settings {
    /// Reads them from environment variables, looked up by `var`.
    ///
    /// # Errors
    /// Which variable makes no sense, and why.
    pub fn read(var: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let address = |name: &str| match var(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) if text == "off" => Ok(Some(None)),
            Some(text) => match text.parse() {
                Ok(address) => Ok(Some(Some(address))),
                Err(_) => Err(format!("{name}={text:?} is no ADDRESS:PORT")),
            },
        };
        let rules = |name: &str| -> Result<Vec<Rule>, String> {
            let text = var(name).unwrap_or_default();
            let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
            let rules = parts.map(str::parse::<Rule>).collect::<Result<_, _>>();
            rules.map_err(|error| format!("{name}: {error}"))
        };
        let any = any_address();
        Ok(Self {
            tunnel: address("KDEV_TUNNEL")?
                .flatten()
                .unwrap_or_else(|| (Ipv4Addr::LOCALHOST, TUNNEL_PORT).into()),
            pod_tunnel: match var("KDEV_POD_TUNNEL").and_then(|text| text.parse().ok()) {
                Some(port) => Some((any, port).into()),
                None => address("KDEV_POD_TUNNEL")?.flatten(),
            },
            http: address("KDEV_HTTP")?.unwrap_or_else(|| Some((any, HTTP_PORT).into())),
            inbound: (any, FIRST_PORT, PORTS),
            secrets: var("KDEV_SECRETS").map_or_else(|| SECRETS.into(), PathBuf::from),
            policy: Policy {
                allow: rules("KDEV_ALLOW")?,
                deny: rules("KDEV_DENY")?,
            },
            memory: memory::limit(),
        })
    }
}

/// All addresses of both families where the pod has IPv6, else of IPv4.
fn any_address() -> IpAddr {
    match std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| {
            let found = vars.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_keep_tunnels_on_loopback() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.tunnel.to_string(), "127.0.0.1:7000");
        assert_eq!(settings.pod_tunnel, None);
        assert_eq!(settings.http.unwrap().port(), 20_600);
    }

    #[test]
    fn a_pod_tunnel_may_be_a_port_of_any_address() {
        let settings = read(&[("KDEV_POD_TUNNEL", "7001")]).unwrap();
        let tunnel = settings.pod_tunnel.unwrap();
        assert!(tunnel.ip().is_unspecified() && tunnel.port() == 7001);
        let settings = read(&[("KDEV_POD_TUNNEL", "10.0.0.1:7001")]).unwrap();
        assert_eq!(settings.pod_tunnel.unwrap().to_string(), "10.0.0.1:7001");
        assert!(read(&[("KDEV_POD_TUNNEL", "yes")]).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let settings = read(&[
            ("KDEV_HTTP", "off"),
            ("KDEV_DENY", "10.0.0.0/8, 1.2.3.4:22"),
        ]);
        let settings = settings.unwrap();
        assert_eq!(settings.http, None);
        assert_eq!(settings.policy.deny.len(), 2);
        let error = read(&[("KDEV_ALLOW", "10.0.0.0/99")]).unwrap_err();
        assert!(error.starts_with("KDEV_ALLOW: "), "{error}");
        let error = read(&[("KDEV_TUNNEL", "7000")]).unwrap_err();
        assert!(error.contains("KDEV_TUNNEL"), "{error}");
    }
}
