//! A stream through one proxy.

use hyper::StatusCode;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::TcpStream;
use tower::Service as _;

use super::connect::{Answer, Connection};
use super::error::ProxyError;
use super::helper::Helper;
use super::login::{Login, Talk};
use super::pending::Pending;
use super::url::{ProxyUrl, Scheme};
use super::{
    KEEPALIVE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, MAX_LEGS, PROXY_CONNECT_TIMEOUT, socks, tls,
};
use crate::addr::Target;
use crate::io::BoxIo;

/// A proxy, with the login to it.
#[derive(Debug)]
pub struct Proxy {
    url: ProxyUrl,
    pub(super) login: Login,
    pending: Pending,
}

impl Proxy {
    /// A proxy that is logged in to with what its URL has, else with what `helper` prints.
    #[must_use]
    pub fn new(url: ProxyUrl, helper: Option<Helper>) -> Self {
        Self {
            login: Login::new(url.clone(), helper),
            url,
            pending: Pending::default(),
        }
    }

    /// Its URL; `Display` of it has no password.
    #[must_use]
    pub fn url(&self) -> &ProxyUrl {
        &self.url
    }

    /// Opens a stream to `target` through the proxy, which resolves its name. Not bounded in time
    /// but for connecting to the proxy and each answer of a helper: callers know how long they
    /// want to wait. Dropping the future ends the attempt and its helper.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open(&self, target: &Target) -> Result<BoxIo, ProxyError> {
        let waiting = if self.url.is_own_machine() {
            let Some(waiting) = self.pending.enter(target) else {
                return Err(ProxyError::Loop {
                    proxy: self.url.to_string(),
                });
            };
            Some(waiting)
        } else {
            None
        };
        let opened = match self.url.scheme {
            Scheme::Socks5 => socks::open(&self.url, self.connect().await?, target).await,
            Scheme::Http | Scheme::Https => self.tunnel(target).await,
        };
        drop(waiting);
        opened
    }

    /// A stream to the proxy itself, on which nothing was said yet, TLS aside.
    pub(super) async fn connect(&self) -> Result<BoxIo, ProxyError> {
        let connecting = async {
            let stream = self.tcp().await?;
            match self.url.scheme {
                Scheme::Https => {
                    let host = &self.url.address.host;
                    let stream = tls::wrap(stream, host).await;
                    let stream = stream.map_err(|e| format!("TLS with it failed: {e}"))?;
                    Ok(Box::new(stream) as BoxIo)
                }
                Scheme::Http | Scheme::Socks5 => Ok(Box::new(stream) as BoxIo),
            }
        };
        match tokio::time::timeout(PROXY_CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|reason: String| ProxyError::Unreachable {
                proxy: self.url.to_string(),
                reason,
            }),
            Err(_) => Err(ProxyError::TimedOut {
                proxy: self.url.to_string(),
                after: PROXY_CONNECT_TIMEOUT,
            }),
        }
    }

    /// Tries all addresses of the proxy's name, both kinds at the same time (RFC 8305).
    async fn tcp(&self) -> Result<TcpStream, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        let uri = format!("http://{}", self.url.address);
        let uri = uri.parse().map_err(|e| format!("{e}"))?;
        match tcp.call(uri).await {
            Ok(stream) => Ok(stream.into_inner()),
            Err(error) => {
                let mut cause: &dyn std::error::Error = &error;
                while let Some(source) = cause.source() {
                    cause = source;
                }
                let what = error.to_string();
                Err(if what.starts_with("dns") {
                    format!("its name does not resolve: {cause}")
                } else {
                    cause.to_string()
                })
            }
        }
    }

    async fn tunnel(&self, target: &Target) -> Result<BoxIo, ProxyError> {
        let broken = |error: hyper::Error| self.broken(&error);
        let mut sent = self.login.known()?;
        let mut talk = Talk::default();
        let mut connection = None;
        for _ in 0..MAX_LEGS {
            let current = match connection.take() {
                Some(connection) => connection,
                None => {
                    let stream = self.connect().await?;
                    Connection::new(stream).await.map_err(broken)?
                }
            };
            let answer = current.ask(target, sent.as_deref()).await;
            match answer.map_err(broken)? {
                Answer::Open(stream) => {
                    self.login.accepted();
                    return Ok(stream);
                }
                Answer::Login(challenges, open) => {
                    let next = self.login.next(&mut talk, sent.as_deref(), &challenges);
                    sent = Some(next.await?);
                    connection = open;
                }
                Answer::Refused(status, reason) => {
                    self.login.accepted();
                    return Err(self.refused(target, status, reason));
                }
            }
        }
        Err(ProxyError::Protocol {
            proxy: self.url.to_string(),
            reason: format!("it asked {MAX_LEGS} times for a login"),
        })
    }

    fn broken(&self, error: &hyper::Error) -> ProxyError {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let reason = if error.is_parse() {
            "it does not speak HTTP/1".to_owned()
        } else {
            let ended = "it closed the connection before it answered";
            cause.map_or_else(|| ended.to_owned(), |cause| format!("{ended}: {cause}"))
        };
        ProxyError::Protocol {
            proxy: self.url.to_string(),
            reason,
        }
    }

    /// What a status other than 2xx and 407 means.
    fn refused(&self, target: &Target, status: StatusCode, reason: String) -> ProxyError {
        let (proxy, target) = (self.url.to_string(), target.to_string());
        match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => ProxyError::NotConnected {
                proxy,
                target,
                reason,
                refused: false,
            },
            StatusCode::LOOP_DETECTED => ProxyError::Loop { proxy },
            _ => ProxyError::Refused {
                proxy,
                target,
                reason,
            },
        }
    }
}
