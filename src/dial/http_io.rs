//! Streams for plain HTTP requests, which may lead to an HTTP proxy.

use std::fmt;
use std::sync::Arc;

use super::Mark;

/// A stream for plain HTTP requests.
#[derive(Debug)]
pub struct HttpIo<I> {
    /// The stream.
    pub io: I,
    /// Set where it leads to an HTTP proxy instead of the destination.
    pub via: Option<HttpProxy>,
    /// What requests on it are marked with.
    pub mark: Option<Mark>,
}

impl<I> HttpIo<I> {
    /// A stream to the destination itself.
    pub fn direct(io: I) -> Self {
        Self {
            io,
            via: None,
            mark: None,
        }
    }
}

/// Takes what a proxy offers for logins and says why its 407 is one.
pub type LoginRefused = dyn Fn(&[String]) -> String + Send + Sync;

/// What requests on a stream to an HTTP proxy need: the absolute form (RFC 9112, 3.2.2), and
/// what follows.
#[derive(Clone)]
pub struct HttpProxy {
    /// The proxy, without its password.
    pub proxy: String,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
    /// Whether the proxy is on this machine, where it may be another kdev.
    pub own_machine: bool,
    /// Called with the values of `Proxy-Authenticate` when the proxy answers 407; says what that
    /// means to the user. The next dial takes a fresh login where there is one.
    pub refused: Arc<LoginRefused>,
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpProxy").field(&self.proxy).finish()
    }
}
