//! The proxy of another kdev of this user, for what was caught: by SOCKS5, datagrams too
//! (RFC 1928, 7).

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::error::ProxyError;
use super::proxy::Proxy;
use super::socks;
use super::url::{ProxyUrl, Scheme};
use crate::addr::{Host, Target};
use crate::dial::{Dial, DialError, DialUdp, Flow, LAPTOP_DIAL_TIMEOUT};
use crate::io::BoxIo;

/// How long the other one may take: it bounds its own dials, which may take the relay's time.
const PATIENCE: std::time::Duration = LAPTOP_DIAL_TIMEOUT.saturating_mul(2);

/// Dials through the proxy of another kdev.
#[derive(Clone, Debug)]
pub struct Lent(Arc<Proxy>);

impl Lent {
    /// Through the one that listens at `at`.
    #[must_use]
    pub fn new(at: SocketAddr) -> Self {
        let url = ProxyUrl {
            scheme: Scheme::Socks5,
            address: Target::new(Host::Ip(at.ip()), at.port()),
            login: None,
        };
        Self(Arc::new(Proxy::new(url, None)))
    }

    /// Not as [`Proxy::open`], which takes many dials to one destination for a loop.
    async fn open(&self, target: &Target) -> Result<BoxIo, ProxyError> {
        socks::open(self.0.url(), self.0.connect().await?, target).await
    }

    async fn associate(&self, target: &Target) -> Result<Flow, ProxyError> {
        let url = self.0.url();
        let (control, at) = socks::associate(url, self.0.connect().await?, target).await?;
        let broken = |error: std::io::Error| ProxyError::Unreachable {
            proxy: url.to_string(),
            reason: error.to_string(),
        };
        let socket = UdpSocket::bind(match at {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        });
        let socket = socket.await.map_err(broken)?;
        socket.connect(at).await.map_err(broken)?;
        let header = socks::header(url, target)?;
        Ok(Flow::behind(socket, header, control))
    }
}

async fn bounded<T>(
    target: &Target,
    opening: impl Future<Output = Result<T, ProxyError>>,
) -> Result<T, DialError> {
    match timeout(PATIENCE, opening).await {
        Ok(opened) => opened.map_err(|error| error.into_dial(target)),
        Err(_) => Err(DialError::TimedOut {
            target: target.to_string(),
            after: PATIENCE,
        }),
    }
}

impl Dial for Lent {
    type Io = BoxIo;

    async fn dial(&self, target: &Target) -> Result<BoxIo, DialError> {
        bounded(target, self.open(target)).await
    }
}

impl DialUdp for Lent {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        bounded(target, self.associate(target)).await
    }
}
