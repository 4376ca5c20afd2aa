//! Ports of a command that are reachable from this machine by another address.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// A port of this machine that leads to one of the command's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where this machine listens.
    pub at: SocketAddr,
    /// The command's port.
    pub port: u16,
}

/// A text that is no [`Publish`].
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no port to publish; write PORT, PORT:COMMAND'S-PORT, or both behind an address of this machine, as in 0.0.0.0:8080:80"
)]
pub struct PublishSyntax(String);

/// Why ports are not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// One that was asked for cannot be listened on.
    #[error("--publish {publish}: {at} cannot be listened on: {reason}", at = publish.at)]
    Taken {
        /// What was asked for.
        publish: Publish,
        /// Why.
        reason: io::Error,
    },
    /// The system does not say who listens where, or the helper is gone.
    #[error("the ports of this machine and of the command cannot be kept alike: {0}")]
    Blind(#[from] io::Error),
}

impl FromStr for Publish {
    type Err = PublishSyntax;

    fn from_str(text: &str) -> Result<Self, PublishSyntax> {
        let wrong = || PublishSyntax(text.to_owned());
        let port = |text: &str| {
            text.parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(wrong)
        };
        let (ip, ports) = match text.strip_prefix('[') {
            Some(rest) => {
                let (ip, ports) = rest.split_once("]:").ok_or_else(wrong)?;
                (IpAddr::V6(ip.parse().map_err(|_| wrong())?), ports)
            }
            None => match text.split_once(':') {
                Some((ip, ports)) if ip.contains('.') => {
                    (IpAddr::V4(ip.parse().map_err(|_| wrong())?), ports)
                }
                _ => (Ipv4Addr::LOCALHOST.into(), text),
            },
        };
        let (outside, inside) = ports.split_once(':').unwrap_or((ports, ports));
        Ok(Self {
            at: SocketAddr::new(ip, port(outside)?),
            port: port(inside)?,
        })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.at, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_users_write_them() {
        for (text, meant) in [
            ("3000", Some("127.0.0.1:3000:3000")),
            ("9000:3000", Some("127.0.0.1:9000:3000")),
            ("0.0.0.0:9000:3000", Some("0.0.0.0:9000:3000")),
            ("0.0.0.0:3000", Some("0.0.0.0:3000:3000")),
            ("[::1]:9000:3000", Some("[::1]:9000:3000")),
            ("", None),
            ("0", None),
            ("web", None),
            ("1:2:3", None),
            ("1.2.3:80", None),
            ("[::1:80", None),
            ("70000", None),
        ] {
            let read = text.parse::<Publish>().map(|publish| publish.to_string());
            assert_eq!(read.ok().as_deref(), meant, "{text}");
        }
    }
}
