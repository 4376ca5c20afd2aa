//! Why there is no stream through a proxy. No text ever has a password.

use std::time::Duration;

use super::url::ProxyUrlError;
use crate::addr::Target;
use crate::dial::DialError;

/// Why there is no stream through a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The variable or the kubeconfig names no usable proxy.
    #[error("{from}: {error}")]
    Url {
        /// Where the URL stands.
        from: String,
        /// What is wrong with it.
        error: ProxyUrlError,
    },
    /// The proxy cannot be connected to.
    #[error("the proxy {proxy} cannot be reached: {reason}")]
    Unreachable {
        /// The proxy.
        proxy: String,
        /// Why.
        reason: String,
    },
    /// What answers is no proxy, or none of this kind.
    #[error("what answers at {proxy} is not such a proxy: {reason}")]
    Protocol {
        /// The proxy.
        proxy: String,
        /// What is wrong.
        reason: String,
    },
    /// The proxy wants a login and there is none.
    #[error(
        "the proxy {proxy} asks for a login ({}); put it into the proxy's URL (http://USER:PASSWORD@HOST:PORT), or name a program that logs in with KDEV_PROXY_AUTH_HELPER", shown(.methods)
    )]
    LoginNeeded {
        /// The proxy.
        proxy: String,
        /// What it offers, for example `Negotiate`, `Basic realm="x"`.
        methods: Vec<String>,
    },
    /// The proxy does not accept the login.
    #[error(
        "the proxy {proxy} does not accept {who} ({}); correct it, or ask whoever runs the proxy", shown(.methods)
    )]
    LoginRefused {
        /// The proxy.
        proxy: String,
        /// Whose login, for example `user "me" and the password of its URL`.
        who: String,
        /// What it offers.
        methods: Vec<String>,
    },
    /// The helper gave no login.
    #[error("the helper that logs in to the proxy {proxy} {reason}; run it by hand: {command}")]
    Helper {
        /// The proxy.
        proxy: String,
        /// What it did.
        reason: String,
        /// The helper's command line.
        command: String,
    },
    /// The proxy does not let this destination through.
    #[error("the proxy {proxy} refuses a connection to {target}: {reason}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// The destination.
        target: String,
        /// What the proxy said.
        reason: String,
    },
    /// The proxy tried and could not.
    #[error("the proxy {proxy} cannot connect to {target}: {reason}")]
    NotConnected {
        /// The proxy.
        proxy: String,
        /// The destination.
        target: String,
        /// What the proxy said.
        reason: String,
        /// Whether it said that the destination itself refused the connection.
        refused: bool,
    },
    /// The proxy did not answer in time.
    #[error("the proxy {proxy} did not answer within {} s", .after.as_secs())]
    TimedOut {
        /// The proxy.
        proxy: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The proxies lead back to where they began.
    #[error(
        "the proxy {proxy} leads back to kdev itself; set HTTP_PROXY, HTTPS_PROXY and ALL_PROXY to the proxy of your network before kdev starts, or unset them"
    )]
    Loop {
        /// The proxy.
        proxy: String,
    },
}

/// At most a line of what a proxy offers.
fn shown(methods: &[String]) -> String {
    const SHOWN: usize = 200;
    let text = methods.join(", ");
    match text.char_indices().nth(SHOWN) {
        _ if text.is_empty() => "it does not say which".to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl ProxyError {
    /// Whether the login is at fault, which trying again soon does not mend.
    #[must_use]
    pub fn is_login(&self) -> bool {
        matches!(
            self,
            Self::LoginNeeded { .. } | Self::LoginRefused { .. } | Self::Helper { .. }
        )
    }

    /// The same failure of a dial to `target`.
    pub(super) fn into_dial(self, target: &Target) -> DialError {
        let text = self.to_string();
        let target = target.to_string();
        match self {
            Self::NotConnected { refused: true, .. } => DialError::Refused {
                target,
                reason: text,
            },
            Self::TimedOut { .. } => DialError::Unreachable {
                target,
                reason: text,
                fix: String::new(),
            },
            _ => {
                let (reason, fix) = text.rsplit_once("; ").unwrap_or((&text, ""));
                DialError::Unreachable {
                    target,
                    reason: reason.to_owned(),
                    fix: fix.to_owned(),
                }
            }
        }
    }
}
