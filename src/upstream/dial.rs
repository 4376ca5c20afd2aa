//! Dials what is not the cluster's: directly, or through the proxy that the environment names.

use std::sync::Arc;

use super::error::ProxyError;
use super::proxies::Proxies;
use super::proxy::Proxy;
use super::url::Scheme;
use super::vars::Carries;
use crate::addr::Target;
use crate::dial::{Dial, DialError, DialUdp, Flow, HttpIo, HttpProxy, LAPTOP_DIAL_TIMEOUT, Laptop};
use crate::io::BoxIo;

/// Ports that firewalls leave to the proxy. Only for others is a direct dial worth a try when the
/// proxy does not let a stream through.
const WEB_PORTS: [u16; 2] = [80, 443];

/// The laptop's network, with the proxies in front of it.
#[derive(Clone, Debug)]
pub struct Upstream {
    laptop: Laptop,
    proxies: Proxies,
}

impl Upstream {
    /// Goes through `proxies` where they say so, else through `laptop`.
    #[must_use]
    pub fn new(laptop: Laptop, proxies: Proxies) -> Self {
        Self { laptop, proxies }
    }

    fn choose(&self, target: &Target, carries: Carries) -> Result<Option<Arc<Proxy>>, DialError> {
        let chosen = self.proxies.choose(target, carries);
        let chosen = chosen.map_err(|error| error.into_dial(target))?;
        Ok(chosen.map(|chosen| chosen.proxy))
    }

    async fn direct(&self, target: &Target) -> Result<BoxIo, DialError> {
        Ok(Box::new(self.laptop.dial(target).await?))
    }
}

impl Dial for Upstream {
    type Io = BoxIo;

    async fn dial(&self, target: &Target) -> Result<BoxIo, DialError> {
        let Some(proxy) = self.choose(target, Carries::Stream)? else {
            return self.direct(target).await;
        };
        match bounded(&proxy, proxy.open(target)).await {
            // A program that knows no proxy would have dialled directly, and for a database of
            // the company that is right: most proxies let only web ports through.
            Err(refused @ ProxyError::Refused { .. }) if !WEB_PORTS.contains(&target.port) => {
                let direct = self.direct(target).await;
                direct.map_err(|_| refused.into_dial(target))
            }
            opened => opened.map_err(|error| error.into_dial(target)),
        }
    }

    async fn dial_http(&self, target: &Target) -> Result<HttpIo<BoxIo>, DialError> {
        let Some(proxy) = self.choose(target, Carries::PlainHttp)? else {
            return Ok(HttpIo::direct(self.direct(target).await?));
        };
        let opened = bounded(&proxy, async {
            match proxy.url().scheme {
                Scheme::Socks5 => Ok(HttpIo::direct(proxy.open(target).await?)),
                Scheme::Http | Scheme::Https => absolute(&proxy, target).await,
            }
        });
        opened.await.map_err(|error| error.into_dial(target))
    }
}

impl DialUdp for Upstream {
    /// Past the proxies, none of which carries datagrams.
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        let error = match self.laptop.dial_udp(target).await {
            Err(error @ (DialError::NotFound { .. } | DialError::Unreachable { .. })) => error,
            opened => return opened,
        };
        Err(match self.choose(target, Carries::Stream) {
            Ok(Some(proxy)) => DialError::Unreachable {
                target: target.to_string(),
                reason: format!(
                    "the proxy {} carries no datagrams, and without it {error}",
                    proxy.url()
                ),
                fix: String::new(),
            },
            _ => error,
        })
    }
}

/// A stream to the HTTP proxy itself, for requests in absolute form: many proxies refuse CONNECT
/// to port 80.
async fn absolute(proxy: &Arc<Proxy>, target: &Target) -> Result<HttpIo<BoxIo>, ProxyError> {
    if proxy.login.is_unknown() {
        // What a helper would have to be asked about is learnt by a CONNECT, which has no body
        // that could be needed again. Logins that are bound to a connection stay with CONNECT.
        match proxy.open(target).await {
            Ok(stream) => return Ok(HttpIo::direct(stream)),
            Err(ProxyError::Refused { .. } | ProxyError::NotConnected { .. })
                if !proxy.login.is_unknown() => {}
            Err(error) => return Err(error),
        }
    }
    let authorization = proxy.login.known()?;
    let io = proxy.connect().await?;
    let (sent, refused) = (authorization.clone(), Arc::clone(proxy));
    Ok(HttpIo {
        mark: None,
        io,
        via: Some(HttpProxy {
            proxy: proxy.url().to_string(),
            authorization,
            own_machine: proxy.url().is_own_machine(),
            refused: Arc::new(move |challenges| {
                refused.login.refused(sent.as_deref());
                refused.login.no_login(challenges).to_string()
            }),
        }),
    })
}

async fn bounded<T>(
    proxy: &Proxy,
    work: impl Future<Output = Result<T, ProxyError>>,
) -> Result<T, ProxyError> {
    match tokio::time::timeout(LAPTOP_DIAL_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(ProxyError::TimedOut {
            proxy: proxy.url().to_string(),
            after: LAPTOP_DIAL_TIMEOUT,
        }),
    }
}
