//! The server's name and a TCP connection to it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::SERVER;
use super::explain::proxy_fix;
use crate::addr::Target;
use crate::app::doctor::check::Check;
use crate::app::doctor::millis;
use crate::k8s::kubeconfig::Loaded;
use crate::upstream::{Chosen, ProxyError};

/// How long the look-up of the server's name may take.
const DNS_LIMIT: Duration = Duration::from_secs(4);
/// How long a TCP connection may take: three lost packets at the start, which are sent again
/// after 1 s and 2 s.
const TCP_LIMIT: Duration = Duration::from_secs(4);
/// How long a proxy may take to connect, a helper's login included.
const PROXY_LIMIT: Duration = Duration::from_secs(15);

/// Looks the name up and opens a TCP connection, where no proxy does both. Gives what to show.
pub(super) async fn connect(loaded: &Loaded) -> Result<String, Check> {
    let server = &loaded.server;
    if let (Some(chosen), Some(target)) = (loaded.route(), loaded.target()) {
        return through(chosen, &target, server).await;
    }
    let host = server.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let plain = server.scheme_str() == Some("http");
    let port = server.port_u16().unwrap_or(if plain { 80 } else { 443 });
    let addresses = look_up(host, port).await?;
    let began = Instant::now();
    let dial = tokio::time::timeout(TCP_LIMIT, TcpStream::connect(&*addresses));
    let address = match dial.await {
        Ok(Ok(stream)) => stream.peer_addr().ok(),
        Ok(Err(error)) => return Err(no_tcp(server, &addresses, &error)),
        Err(_) => {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            return Err(no_tcp(server, &addresses, &error));
        }
    };
    let took = millis(began.elapsed());
    let address = address.map_or_else(String::new, |a| format!("{} ", a.ip()));
    Ok(format!("{server} ({address}connected in {took})"))
}

/// Connects through a proxy, which looks the name up.
async fn through(chosen: &Chosen, target: &Target, server: &hyper::Uri) -> Result<String, Check> {
    let (proxy, from) = (chosen.proxy.url(), chosen.from);
    let began = Instant::now();
    let opened = tokio::time::timeout(PROXY_LIMIT, chosen.proxy.open(target)).await;
    let error = match opened {
        Ok(Ok(_)) => {
            let took = millis(began.elapsed());
            return Ok(format!(
                "{server}, through the proxy {proxy} ({from}), connected in {took}"
            ));
        }
        Ok(Err(error)) => error,
        Err(_) => ProxyError::TimedOut {
            proxy: proxy.to_string(),
            after: PROXY_LIMIT,
        },
    };
    let text = error.to_string();
    let what = text.split("; ").next().unwrap_or(&text);
    let detail = format!("no way to {server} by {from}: {what}");
    Err(Check::fail(SERVER.0, SERVER.1, detail).fix(proxy_fix(&error)))
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, Check> {
    let unknown = |reason: &str| {
        Check::fail(
            SERVER.0,
            SERVER.1,
            format!("this machine cannot resolve the API server's name {host}: {reason}"),
        )
        .fix("is the VPN up? Otherwise correct `server` of the cluster in the kubeconfig")
    };
    let asked = tokio::time::timeout(DNS_LIMIT, tokio::net::lookup_host((host, port))).await;
    match asked {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                Err(unknown("it has no address"))
            } else {
                Ok(found)
            }
        }
        Ok(Err(error)) => Err(unknown(&error.to_string())),
        Err(_) => Err(unknown(&format!(
            "no answer within {} s",
            DNS_LIMIT.as_secs()
        ))),
    }
}

fn no_tcp(server: &hyper::Uri, addresses: &[SocketAddr], error: &io::Error) -> Check {
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let (reason, fix) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            "nothing listens there".to_owned(),
            "start the cluster (kind, minikube, k3d, Docker Desktop: is it running?), or correct \
             `server` of the cluster in the kubeconfig",
        ),
        io::ErrorKind::TimedOut => (
            format!("no connection within {} s", TCP_LIMIT.as_secs()),
            "is the VPN up? A firewall drops it otherwise; where only a proxy leads out, set \
             proxy-url in the kubeconfig or HTTPS_PROXY",
        ),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            (error.to_string(), "is this machine online, and the VPN up?")
        }
        _ => (error.to_string(), "is the VPN up?"),
    };
    let detail = format!(
        "no TCP connection to {server} ({}): {reason}",
        shown.join(", ")
    );
    Check::fail(SERVER.0, SERVER.1, detail).fix(fix)
}
