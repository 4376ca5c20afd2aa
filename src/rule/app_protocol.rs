//! What callers of a port speak.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// What callers of a port speak, as the Service or `--protocol` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppProtocol {
    /// Not said: whoever speaks first, and what, decides for each connection.
    #[default]
    Auto,
    /// HTTP, of whichever version: the caller speaks first.
    Http,
    /// HTTP/1.
    H1,
    /// HTTP/2 without TLS.
    H2c,
    /// gRPC, so HTTP/2 without TLS.
    Grpc,
    /// None that could be looked into, TLS for example.
    Tcp,
}

const ALL: [(AppProtocol, &str); 6] = [
    (AppProtocol::Auto, "auto"),
    (AppProtocol::Http, "http"),
    (AppProtocol::H1, "h1"),
    (AppProtocol::H2c, "h2c"),
    (AppProtocol::Grpc, "grpc"),
    (AppProtocol::Tcp, "tcp"),
];

/// What Services say, as `appProtocol` or in front of a port's name (Kubernetes' own values,
/// Istio's, and IANA's).
const SAID: [(&str, AppProtocol); 24] = [
    ("http", AppProtocol::Http),
    ("h1", AppProtocol::H1),
    ("http1", AppProtocol::H1),
    ("ws", AppProtocol::Http),
    ("kubernetes.io/ws", AppProtocol::Http),
    ("h2c", AppProtocol::H2c),
    ("http2", AppProtocol::H2c),
    ("kubernetes.io/h2c", AppProtocol::H2c),
    ("grpc", AppProtocol::Grpc),
    ("https", AppProtocol::Tcp),
    ("tls", AppProtocol::Tcp),
    ("wss", AppProtocol::Tcp),
    ("kubernetes.io/wss", AppProtocol::Tcp),
    ("h2", AppProtocol::Tcp),
    ("tcp", AppProtocol::Tcp),
    ("mysql", AppProtocol::Tcp),
    ("postgres", AppProtocol::Tcp),
    ("postgresql", AppProtocol::Tcp),
    ("redis", AppProtocol::Tcp),
    ("mongo", AppProtocol::Tcp),
    ("mongodb", AppProtocol::Tcp),
    ("amqp", AppProtocol::Tcp),
    ("kafka", AppProtocol::Tcp),
    ("ssh", AppProtocol::Tcp),
];

impl AppProtocol {
    /// What a Service says of a port: its `appProtocol`, else its name or what stands before the
    /// first `-` of it. Anything else leaves it open.
    #[must_use]
    pub fn of_port(app_protocol: Option<&str>, name: Option<&str>) -> Self {
        let said = |text: &str| {
            let text = text.to_ascii_lowercase();
            let found = SAID.iter().find(|(word, _)| *word == text);
            found.map(|(_, protocol)| *protocol)
        };
        let first = |name: &str| said(name.split('-').next().unwrap_or(name));
        app_protocol
            .and_then(said)
            .or_else(|| name.and_then(first))
            .unwrap_or_default()
    }
}

impl FromStr for AppProtocol {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = ALL.iter().find(|(_, name)| *name == text);
        found.map(|(protocol, _)| *protocol).ok_or_else(|| {
            let names = ALL.map(|(_, name)| name).join(", ");
            Invalid(format!("{text:?} is none of {names}"))
        })
    }
}

impl fmt::Display for AppProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = ALL.iter().find(|(protocol, _)| protocol == self);
        f.write_str(found.map_or("auto", |(_, name)| name))
    }
}
