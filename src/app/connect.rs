//! `kdev connect`: a proxy for anything and a DNS server, until it is told to end.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::registry::{Lends, Listening, Registration};
use super::{Note, Session, mine, share};
use crate::config::Config;
use crate::dial::{Routes, Rule};
use crate::dns;
use crate::proxy::{self, Access, Pac};

/// A running proxy with its DNS server.
pub struct Connected {
    session: Session,
    address: SocketAddr,
    dns: SocketAddr,
    _registration: Option<Registration>,
}

impl Connected {
    /// Opens a session and serves a proxy and the cluster's names for this machine's user; `note`
    /// hears what that user should know meanwhile.
    ///
    /// # Errors
    /// When the cluster cannot be reached or the address cannot be listened on.
    pub async fn open(config: &Config, note: Note) -> anyhow::Result<Self> {
        let listener = listen(config.proxy_listen).await?;
        let address = listener.local_addr()?;
        let sockets = listen_dns(config.dns_listen).await?;
        let dns = sockets.address();
        let session = Session::open_behind(config, Some(address)).await?;
        serve_laptop(&session, config, listener, address, note);
        let (zone, source) = (session.catalog.clone(), dns::Source::system());
        dns::serve_inside(sockets, zone, source, session.inside(), &session.tasks);
        let listening = [("proxy", address), ("dns", dns)].map(|(purpose, address)| Listening {
            purpose: purpose.to_owned(),
            address: address.to_string(),
            target: None,
        });
        let lends = share::key(config).await.map(|key| Lends {
            key,
            proxy: address,
            domain: session.domain().to_string(),
        });
        let registration = session.register("connect", listening.into(), lends);
        Ok(Self {
            session,
            address,
            dns,
            _registration: registration,
        })
    }

    /// The session behind the proxy.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the DNS server listens, by UDP and TCP.
    #[must_use]
    pub fn dns(&self) -> SocketAddr {
        self.dns
    }

    /// Serves until a signal, whose number is returned.
    ///
    /// # Errors
    /// When the system refuses signal handlers.
    pub async fn until_signal(self) -> anyhow::Result<u8> {
        self.session.until_signal().await
    }
}

/// Listens for apps of this machine; a free port of loopback when nothing else is asked for.
pub(super) async fn listen(address: Option<SocketAddr>) -> anyhow::Result<TcpListener> {
    let address = address.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; without --proxy-listen any free port is taken")
    })
}

/// Listens for questions about names; on a free port of loopback when nothing else is asked for.
async fn listen_dns(address: Option<SocketAddr>) -> anyhow::Result<dns::Sockets> {
    if let Some(address) = address.filter(|a| !a.ip().is_loopback()) {
        tracing::warn!(
            %address,
            "whoever reaches this address may ask for names of the cluster, and of your network"
        );
    }
    dns::Sockets::bind(address).await.with_context(|| {
        let asked = address.map_or_else(|| "loopback".to_owned(), |a| a.to_string());
        format!(
            "cannot listen on {asked} for DNS; without --dns-listen any free port is taken (ports \
             below 1024 need CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start)"
        )
    })
}

/// Serves the laptop's own programs on `listener`.
pub(super) fn serve_laptop(
    session: &Session,
    settings: &Config,
    listener: TcpListener,
    address: SocketAddr,
    note: Note,
) {
    let mut config = proxy::Config::new(Access::SameUser { password: None });
    config.stats = session.stats.clone();
    config.refusals = session.refusals();
    let (catalog, domain) = (session.catalog.clone(), session.domain().clone());
    let routes = session.routes().clone();
    config.pac = Some(Pac::new(move || {
        let services = catalog.services();
        let ips: Vec<IpAddr> = services.iter().flat_map(|s| s.ips.clone()).collect();
        let services = services.into_iter();
        let namespaces: BTreeSet<String> = services.map(|s| s.name.namespace).collect();
        pac(address, namespaces, &ips, domain.name(), &routes)
    }));
    let marker = mine::marker(session, settings, note);
    let served = proxy::serve(
        listener,
        session.dialer(true).with_marker(marker),
        config,
        session.tasks.clone(),
    );
    session.tasks.spawn(served);
}

/// A PAC file that sends names of the cluster, addresses of its Services and what rules name here
/// and leaves all else alone. Addresses of pods are left out: browsers keep the file longer than those last.
/// Plain HTTP comes to the proxy as such: where a request goes, and whose it says that it is, is decided
/// for each, and not for a connection that a browser keeps.
fn pac(
    address: SocketAddr,
    namespaces: impl IntoIterator<Item = String>,
    ips: &[IpAddr],
    domain: &str,
    routes: &Routes,
) -> String {
    let ruled: Vec<&str> = routes.iter().filter_map(Rule::into_cluster).collect();
    let (ends, names): (Vec<&str>, Vec<&str>) = ruled.iter().partition(|t| t.starts_with('.'));
    // Namespace names are DNS labels, so they need no quoting.
    let suffixes: Vec<String> = namespaces
        .into_iter()
        .map(|ns| format!(".{ns}"))
        .chain([".svc".to_owned(), format!(".{domain}")])
        .chain(ends.into_iter().map(str::to_owned))
        .map(|suffix| format!("{suffix:?}"))
        .collect();
    let hosts = ips.iter().map(ToString::to_string);
    let hosts = hosts.chain(names.into_iter().map(str::to_owned));
    let hosts: Vec<String> = hosts.map(|host| format!("{host:?}: 1")).collect();
    format!(
        "// Names of the cluster go through kdev; the rest is none of its business.\n\
         function FindProxyForURL(url, host) {{\n\
         \x20 var suffixes = [{}];\n\
         \x20 var hosts = {{{}}};\n\
         \x20 var kdev = url.substring(0, 5) === \"http:\" ? \"PROXY {address}; SOCKS5 {address}\" : \"SOCKS5 {address}; PROXY {address}\";\n\
         \x20 if (hosts[host.replace(/[\\[\\]]/g, \"\")] === 1) return kdev;\n\
         \x20 if (isPlainHostName(host) && host !== \"localhost\" && host.indexOf(\":\") < 0) return kdev + \"; DIRECT\";\n\
         \x20 for (var i = 0; i < suffixes.length; i++)\n\
         \x20   if (dnsDomainIs(host, suffixes[i])) return kdev;\n\
         \x20 return \"DIRECT\";\n\
         }}\n",
        suffixes.join(", "),
        hosts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use crate::dial::Routes;

    #[test]
    fn the_pac_file_names_the_proxy_and_the_namespaces() {
        let text = super::pac(
            "127.0.0.1:1080".parse().unwrap(),
            ["shop".to_owned(), "dev".to_owned()],
            &["10.96.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            "cluster.local",
            &Routes::parse(
                &["also.example".to_owned(), "10.0.0.0/8".to_owned()],
                &["never.example".to_owned()],
                &["corp.example".to_owned()],
            )
            .unwrap(),
        );
        assert!(
            text.contains(r#"[".shop", ".dev", ".svc", ".cluster.local", ".corp.example"]"#),
            "{text}"
        );
        let hosts = r#"{"10.96.0.5": 1, "fd00::5": 1, "also.example": 1, "corp.example": 1}"#;
        assert!(text.contains(hosts), "{text}");
        // Some engines pass an IPv6 literal in brackets.
        assert!(text.contains(r#"host.replace(/[\[\]]/g, "")"#), "{text}");
        let own = "127.0.0.1:1080";
        let way = format!(r#""http:" ? "PROXY {own}; SOCKS5 {own}" : "SOCKS5 {own}; PROXY {own}""#);
        assert!(text.contains(&way), "{text}");
    }
}
