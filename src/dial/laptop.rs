//! Dialling from the laptop's own network.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

use super::{Dial, DialError};
use crate::addr::{Host, Target};

/// How long an attempt goes on alone before the next address is tried beside it (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// How many addresses of a host are tried: more than any healthy name has.
const MAX_ADDRESSES: usize = 16;
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
        match tokio::time::timeout(LAPTOP_DIAL_TIMEOUT, self.connect(target)).await {
            Ok(result) => result,
            Err(_) => Err(timed_out(target)),
        }
    }
}

impl Laptop {
    async fn connect(&self, target: &Target) -> Result<TcpStream, DialError> {
        let mut last = DialError::NotFound {
            what: format!("host {}", target.host),
            fix: "it is neither a Service that you may see in the cluster nor a name that this \
                  machine resolves"
                .to_owned(),
        };
        let mut addresses = Vec::new();
        for address in interleaved(lookup(target).await) {
            if !self.loopback && is_own(address.ip()) {
                last = DialError::Forbidden {
                    target: target.to_string(),
                    reason: format!(
                        "{} is this machine's own loopback; --host-loopback opens it to containers",
                        address.ip()
                    ),
                };
            } else {
                addresses.push(address);
            }
        }
        let mut addresses = addresses.into_iter();
        let mut attempts = FuturesUnordered::new();
        loop {
            attempts.extend(addresses.next().map(TcpStream::connect));
            let more = !addresses.as_slice().is_empty();
            tokio::select! {
                attempt = attempts.next() => match attempt {
                    Some(Ok(stream)) => {
                        // Fails only on a socket that is gone already; the first read says so.
                        let _ = stream.set_nodelay(true);
                        return Ok(stream);
                    }
                    Some(Err(error)) => last = connect_error(target, &error),
                    None => return Err(last),
                },
                () = tokio::time::sleep(STAGGER), if more => {}
            }
        }
    }
}

/// Both families by turns, the system's first choice first (RFC 8305, 4): one family that leads
/// nowhere must not hold the other up.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut found = Vec::new();
    while found.len() < MAX_ADDRESSES {
        let before = found.len();
        found.extend(one.next());
        found.extend(other.next());
        if found.len() == before {
            break;
        }
    }
    found
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

fn timed_out(target: &Target) -> DialError {
    DialError::TimedOut {
        target: target.to_string(),
        after: LAPTOP_DIAL_TIMEOUT,
    }
}

/// Names the cause of a failed connect in the words of [`DialError`].
fn connect_error(target: &Target, error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused {
            target: target.to_string(),
            reason: String::new(),
        },
        io::ErrorKind::TimedOut => timed_out(target),
        _ => DialError::Unreachable {
            target: target.to_string(),
            reason: error.to_string(),
            fix: String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn families_take_turns() {
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"];
        let sorted = interleaved(all.map(|a| a.parse().unwrap()).into());
        let shown: Vec<String> = sorted.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"]);
        let many = (0..100).map(|i| SocketAddr::from(([10, 0, 0, i], 1)));
        assert_eq!(interleaved(many.collect()).len(), MAX_ADDRESSES);
        assert!(interleaved(Vec::new()).is_empty());
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
