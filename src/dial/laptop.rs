//! Dialling from the laptop's own network.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Dial, DialError, DialUdp, Flow, connect};
use crate::addr::{Host, Target};

/// Longest time that dialling from the laptop may take, unless the system gives up earlier.
pub const LAPTOP_DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Dials from the laptop, as any program on it would.
#[derive(Clone, Copy, Debug)]
pub struct Laptop {
    /// Whether the laptop's own loopback may be dialled. A container must not reach through kdev
    /// what its own network keeps from it.
    pub loopback: bool,
}

impl Dial for Laptop {
    type Io = TcpStream;

    async fn dial(&self, target: &Target) -> Result<TcpStream, DialError> {
        let dialling = async {
            let addresses = self.addresses(target).await?;
            connect::tcp(target, addresses, LAPTOP_DIAL_TIMEOUT).await
        };
        bounded(target, dialling).await
    }
}

impl DialUdp for Laptop {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        let dialling = async {
            let addresses = self.addresses(target).await?;
            Ok(Flow::socket(connect::udp(target, addresses).await?))
        };
        bounded(target, dialling).await
    }
}

async fn bounded<T>(
    target: &Target,
    dialling: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    match tokio::time::timeout(LAPTOP_DIAL_TIMEOUT, dialling).await {
        Ok(result) => result,
        Err(_) => Err(DialError::TimedOut {
            target: target.to_string(),
            after: LAPTOP_DIAL_TIMEOUT,
        }),
    }
}

impl Laptop {
    /// The addresses that may be dialled, at least one.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, DialError> {
        let mut addresses = lookup(target).await;
        if !self.loopback
            && let Some(own) = addresses.iter().map(SocketAddr::ip).find(|ip| is_own(*ip))
        {
            addresses.retain(|address| !is_own(address.ip()));
            if addresses.is_empty() {
                return Err(DialError::Forbidden {
                    target: target.to_string(),
                    reason: format!(
                        "{own} is this machine's own loopback; --host-loopback opens it to containers"
                    ),
                });
            }
        }
        if addresses.is_empty() {
            return Err(DialError::NotFound {
                what: format!("host {}", target.host),
                fix: "it is neither a Service that you may see in the cluster nor a name that \
                      this machine resolves"
                    .to_owned(),
            });
        }
        Ok(addresses)
    }
}

/// The addresses of a host in the order of the system's resolver; none where it does not resolve.
pub async fn lookup(target: &Target) -> Vec<SocketAddr> {
    match &target.host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, target.port)],
        Host::Name(name) => tokio::net::lookup_host((name.as_str(), target.port))
            .await
            .map(Iterator::collect)
            .unwrap_or_default(),
    }
}

/// Whether connecting to `ip` stays on this machine whatever its interfaces are.
fn is_own(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test]
    async fn the_laptops_loopback_is_closed_to_containers_however_it_is_written() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let container = Laptop { loopback: false };
        for host in [
            "127.0.0.1",
            "127.8.8.8",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "localhost",
            "0.0.0.0",
        ] {
            let target = format!("{host}:{port}").parse().unwrap();
            let error = container.dial(&target).await.unwrap_err();
            assert!(
                matches!(error, DialError::Forbidden { .. }),
                "{host}: {error}"
            );
        }
        let target = format!("127.0.0.1:{port}").parse().unwrap();
        Laptop { loopback: true }.dial(&target).await.unwrap();
    }

    #[tokio::test]
    async fn failures_name_their_cause() {
        let laptop = Laptop { loopback: true };
        let refused = laptop
            .dial(&"127.0.0.1:1".parse().unwrap())
            .await
            .unwrap_err();
        assert!(matches!(refused, DialError::Refused { .. }), "{refused}");
        let unknown = laptop
            .dial(&"no-such-host.invalid:80".parse().unwrap())
            .await
            .unwrap_err();
        assert!(matches!(unknown, DialError::NotFound { .. }), "{unknown}");
        let io = refused.into_io();
        assert_eq!(io.kind(), io::ErrorKind::ConnectionRefused);
        assert!(DialError::from_io(&io).is_some());
    }

    #[tokio::test]
    async fn either_family_will_do() {
        let laptop = Laptop { loopback: true };
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(bind).await else {
                println!("SKIPPED: ipv6: {bind} cannot be listened on here");
                continue;
            };
            let address = listener.local_addr().unwrap();
            laptop
                .dial(&address.to_string().parse().unwrap())
                .await
                .unwrap();
            let named = Target::new("localhost".parse().unwrap(), address.port());
            if lookup(&named).await.contains(&address) {
                laptop.dial(&named).await.unwrap();
            }
        }
    }
}
