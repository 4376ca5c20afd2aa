//! A proxy's URL, as `HTTPS_PROXY` and `proxy-url` have it.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::addr::{Host, Target};

/// What a proxy is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// HTTP in TLS.
    Https,
    /// SOCKS5 (RFC 1928). The proxy resolves names, with `socks5` as with `socks5h`, as in Go.
    Socks5,
}

impl Scheme {
    /// The port where a URL names none, as in Go.
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 => 1080,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }
}

/// A proxy's URL. What is shown of it never has the user or the password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyUrl {
    /// What it speaks.
    pub scheme: Scheme,
    /// Where it is.
    pub address: Target,
    /// User and password, decoded.
    pub(super) login: Option<(String, String)>,
}

/// Why a text is not the URL of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// A protocol that kdev does not speak to proxies.
    #[error("cannot use the proxy {url:?}: kdev knows http, https and socks5")]
    Scheme {
        /// The URL as it may be shown.
        url: String,
    },
    /// No host, or no port, or something else in their place.
    #[error(
        "{url:?} is not the URL of a proxy: {reason}; write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with what is special in the password as %XX"
    )]
    Form {
        /// The URL as it may be shown.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

impl FromStr for ProxyUrl {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let text = text.trim();
        // Go takes what has no scheme for HTTP.
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let url = || without_login(text);
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "socks5" | "socks5h" => Scheme::Socks5,
            _ => return Err(ProxyUrlError::Scheme { url: url() }),
        };
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let place = place.split(['/', '?', '#']).next().unwrap_or(place);
        let address =
            Target::parse(place, Some(scheme.port())).map_err(|e| ProxyUrlError::Form {
                url: url(),
                // The place may be a piece of a password that was not encoded.
                reason: if login.is_none() && rest.contains(['/', '#', '?']) {
                    "it has no host and port".to_owned()
                } else {
                    e.to_string()
                },
            })?;
        let login = login.filter(|login| !login.is_empty()).map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            (decode(user), decode(password))
        });
        Ok(Self {
            scheme,
            address,
            login,
        })
    }
}

impl ProxyUrl {
    /// The user's name, where the URL has one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.login.as_ref().map(|(user, _)| user.as_str())
    }

    /// Whether it is on this machine, where it may be another kdev.
    pub(super) fn is_own_machine(&self) -> bool {
        is_loopback(&self.address.host)
    }
}

/// Whether `host` is this machine itself, which no proxy is asked for.
pub(super) fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Name(name) => name == "localhost",
        Host::Ip(ip) => ip.is_loopback(),
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.address)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

/// A URL that could not be parsed, as it may be shown.
fn without_login(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match rest.rsplit_once('@') {
        Some((_, host)) if scheme.is_empty() => format!("…@{host}"),
        Some((_, host)) => format!("{scheme}://…@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_as_users_write_them() {
        for (text, shown) in [
            ("http://proxy.corp:3128", "http://proxy.corp:3128"),
            ("http://proxy.corp:3128/", "http://proxy.corp:3128"),
            ("proxy.corp:3128", "http://proxy.corp:3128"),
            ("HTTP://Proxy.Corp", "http://proxy.corp:80"),
            ("https://proxy.corp", "https://proxy.corp:443"),
            ("socks5://10.0.0.1", "socks5://10.0.0.1:1080"),
            ("socks5h://[::1]:9", "socks5://[::1]:9"),
            (" http://me:secret@proxy:1 ", "http://proxy:1"),
        ] {
            let url: ProxyUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown, "{text}");
            assert!(!format!("{url:?}").contains("secret"));
        }
    }

    #[test]
    fn a_login_is_decoded() {
        for (text, user, password) in [
            ("http://me:p%40ss%3aword@p:1", "me", "p@ss:word"),
            ("http://CORP%5cme:x:y@p:1", r"CORP\me", "x:y"),
            ("http://me:p@ss@p:1", "me", "p@ss"),
            ("http://me@p:1", "me", ""),
            ("http://m%C3%BCller:%zz@p:1", "müller", "%zz"),
        ] {
            let url: ProxyUrl = text.parse().unwrap();
            let expected = Some((user.to_owned(), password.to_owned()));
            assert_eq!(url.login, expected, "{text}");
        }
        assert_eq!("http://p:1".parse::<ProxyUrl>().unwrap().login, None);
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_the_password() {
        for text in [
            "ftp://u:secret@x",
            "socks4://x:1",
            "http://",
            "http://me:secret@proxy:0",
            "http://me:secret@pro xy:1",
            "http://proxy:port",
        ] {
            let error = text.parse::<ProxyUrl>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
