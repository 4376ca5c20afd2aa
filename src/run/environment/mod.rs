//! The variables that make a program use kdev's proxy.
//!
//! Every value is kdev's, not the user's: a laptop's own `HTTP_PROXY` is replaced, since kdev takes
//! what is not in the cluster through that proxy itself. Two values are kept and extended:
//! `NO_PROXY` (see [`no_proxy`]) and `JAVA_TOOL_OPTIONS` (see [`jvm`]). A user who wants one of
//! them otherwise sets it in the command: `kdev run -- env HTTPS_PROXY= CMD`.
//!
//! What is known to go wrong, none of which a value can mend:
//! * `ALL_PROXY=socks5h://`: Python's httpx, and so the SDKs that are built on it, refuses to start
//!   when it sees it without the `socksio` package (`pip install httpx[socks]`), even though
//!   `HTTP_PROXY` is set. So it is `http://`, which the programs that read it take as well, and SOCKS
//!   has `KDEV_SOCKS_PROXY`. [`AllProxy::Socks`] is for programs that take SOCKS from there alone.
//! * git takes `http.proxy` of its configuration over the environment; so does Maven with
//!   `settings.xml`.
//! * Programs that open sockets themselves (psql, redis-cli, Netty, statically linked database
//!   drivers) look at none of it; `kdev forward` is for those.

pub mod jvm;
pub mod no_proxy;

use std::fmt;
use std::fmt::Write as _;

/// Where a program finds the proxy: one port that speaks HTTP and SOCKS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAddress {
    /// A name or an address as the program sees it; an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What the proxy asks for, where it asks.
    pub credentials: Option<Credentials>,
}

/// A user and a password for the proxy. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl ProxyAddress {
    /// A proxy that asks for nothing.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            credentials: None,
        }
    }

    /// The same proxy, which asks for `credentials`.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The URL with `scheme`, credentials included.
    #[must_use]
    pub fn url(&self, scheme: &str) -> String {
        let authority = self.authority();
        match &self.credentials {
            Some(c) => format!(
                "{scheme}://{}:{}@{authority}",
                percent_encode(&c.user),
                percent_encode(&c.password)
            ),
            None => format!("{scheme}://{authority}"),
        }
    }
}

/// Encodes all but the unreserved characters of RFC 3986, which every URL parser leaves alone.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// What `ALL_PROXY` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllProxy {
    /// The HTTP proxy, as the other variables.
    #[default]
    Http,
    /// The SOCKS proxy.
    Socks,
}

impl AllProxy {
    /// The scheme of its URL, which is also what the setting is called.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks => SOCKS,
        }
    }
}

/// The scheme of a SOCKS proxy that resolves names itself.
const SOCKS: &str = "socks5h";

/// What the variables of a program are made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The proxy as the program sees it.
    pub proxy: ProxyAddress,
    /// Names and addresses that the program shall reach without the proxy, besides its own
    /// loopback and the user's `NO_PROXY`.
    pub direct: Vec<String>,
    /// The DNS domain of the cluster, for example `cluster.local`.
    pub domain: String,
    /// The kubeconfig context, for `KDEV_CONTEXT`.
    pub context: Option<String>,
    /// The namespace of bare names, for `KDEV_NAMESPACE`.
    pub namespace: Option<String>,
    /// What `ALL_PROXY` says.
    pub all_proxy: AllProxy,
}

/// Variables to set, and what of the user's was not kept.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// Names and values, in no order, no name twice.
    pub set: Vec<(String, String)>,
    /// Entries of the user's `NO_PROXY` that would keep the program from the cluster.
    pub dropped_no_proxy: Vec<String>,
}

impl Variables {
    /// The value that is set for `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.set
            .iter()
            .find_map(|(n, v)| (n == name).then_some(v.as_str()))
    }

    /// Leaves only kdev's own variables, for a program that needs no proxy.
    pub fn keep_own(&mut self) {
        self.set.retain(|(name, _)| name.starts_with("KDEV_"));
        self.dropped_no_proxy.clear();
    }

    fn put(&mut self, names: &[&str], value: &str) {
        for name in names {
            self.set.push(((*name).to_owned(), value.to_owned()));
        }
    }
}

/// The variables for a program whose environment has `inherited` values so far.
pub fn variables(settings: &Settings, inherited: impl Fn(&str) -> Option<String>) -> Variables {
    let proxy = &settings.proxy;
    let http = proxy.url("http");
    // Tools disagree on the case; the lower one is what curl and grpc insist on.
    let user = inherited("no_proxy").or_else(|| inherited("NO_PROXY"));
    let no_proxy = no_proxy::merge(
        user.as_deref().unwrap_or_default(),
        &settings.direct,
        &settings.domain,
    );
    let list = no_proxy.kept.join(",");

    let mut out = Variables::default();
    out.put(
        &["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"],
        &http,
    );
    out.put(
        &["ALL_PROXY", "all_proxy"],
        &proxy.url(settings.all_proxy.scheme()),
    );
    out.put(&["NO_PROXY", "no_proxy"], &list);
    // gRPC's C core takes https_proxy too, but a grpc_proxy of the user's would win over it.
    out.put(&["GRPC_PROXY", "grpc_proxy"], &http);
    out.put(&["NO_GRPC_PROXY", "no_grpc_proxy"], &list);
    // Node 22.21 and 24.5 on: fetch and http(s) take the variables above only when told so.
    out.put(&["NODE_USE_ENV_PROXY"], "1");
    // The npm package `global-agent`, which older Node programs boot with.
    out.put(
        &["GLOBAL_AGENT_HTTP_PROXY", "GLOBAL_AGENT_HTTPS_PROXY"],
        &http,
    );
    out.put(&["GLOBAL_AGENT_NO_PROXY"], &list);
    // npm, Yarn and pip have configuration files that win over HTTP_PROXY, but not over these.
    out.put(&["npm_config_proxy", "npm_config_https_proxy"], &http);
    out.put(&["npm_config_noproxy"], &list);
    out.put(&["YARN_HTTP_PROXY", "YARN_HTTPS_PROXY", "PIP_PROXY"], &http);
    out.put(
        &["JAVA_TOOL_OPTIONS"],
        &jvm::tool_options(
            inherited("JAVA_TOOL_OPTIONS").as_deref(),
            proxy,
            &no_proxy.kept,
        ),
    );
    out.put(&["KDEV_SOCKS", "KDEV_HTTP"], &proxy.authority());
    out.put(&["KDEV_SOCKS_PROXY"], &proxy.url(SOCKS));
    if let Some(context) = &settings.context {
        out.put(&["KDEV_CONTEXT"], context);
    }
    if let Some(namespace) = &settings.namespace {
        out.put(&["KDEV_NAMESPACE"], namespace);
    }
    out.dropped_no_proxy = no_proxy.dropped;
    out
}

#[cfg(test)]
mod tests;
