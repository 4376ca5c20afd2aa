//! The proxies between this laptop and everything else: which one a destination goes through, and
//! a stream through it.
//!
//! One code path serves the API server (requests and upgrades) and the destinations of the local
//! proxy that are not the cluster's:
//! * [`ProxyVars`] decides as Go's `httpproxy.FromEnvironment` does, which is what kubectl asks
//! * [`Proxy`] opens streams: CONNECT to `http://` and `https://` proxies, SOCKS5 to `socks5://`
//! * a login is the user and password of the proxy's URL, or what a helper program prints
//! * [`Proxies`] keeps one [`Proxy`] per URL, so that a login is made once
//! * [`Upstream`] is the [`Dial`](crate::dial::Dial) of what is not the cluster's
//!
//! A name is sent to the proxy as it is: often only the proxy can resolve it.

mod connect;
mod dial;
mod error;
mod helper;
mod lent;
mod login;
mod no_proxy;
mod pending;
mod proxies;
mod proxy;
mod socks;
mod tls;
mod url;
mod vars;

use std::time::Duration;

pub use dial::Upstream;
pub use error::ProxyError;
pub use helper::Helper;
pub use lent::Lent;
pub use no_proxy::NoProxy;
pub use proxies::{Chosen, Proxies};
pub use proxy::Proxy;
pub use url::{ProxyUrl, ProxyUrlError, Scheme};
pub use vars::{BEFORE, Carries, ProxyVars};

/// How long a TCP connection to a proxy may take. A proxy is near; what does not answer by then
/// is away.
pub const PROXY_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a helper may think about one answer: a look into a key ring or a ticket cache takes
/// milliseconds, a ticket from a far away domain controller seconds.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a login that the proxy or the helper refused is not tried again. Directories lock an
/// account after a few wrong passwords, and a session opens many connections.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// How often one connection may be answered 407: a refused cached login, then the three legs of
/// NTLM, then once more because the proxy closed the connection in between.
const MAX_LEGS: usize = 6;

/// Most of a proxy's head that is read.
const MAX_HEAD: usize = 64 << 10;

/// Most of a refusal's body that is read, so that the connection can carry the next attempt.
const MAX_REFUSAL: usize = 256 << 10;

/// When a silent connection to a proxy is probed first, how often then, and when it is given up:
/// as connections to the API server are, 30 s in all.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
