//! TLS to a proxy, which has a certificate of the public or the company's kind, not of the
//! cluster's: the system's store decides (`SSL_CERT_FILE` and `SSL_CERT_DIR` name another one).

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::addr::Host;
use crate::io::Io;

impl Io for TlsStream<TcpStream> {
    fn reset(&mut self) {
        self.get_mut().0.reset();
    }
}

/// Speaks TLS with the proxy at `host`.
pub(super) async fn wrap(stream: TcpStream, host: &Host) -> io::Result<TlsStream<TcpStream>> {
    let config = config().await?;
    let name = match host {
        Host::Ip(ip) => ServerName::from(*ip),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
    };
    TlsConnector::from(config).connect(name, stream).await
}

/// The one configuration, so that sessions are resumed. Its first use reads the system's store.
async fn config() -> io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let made = tokio::task::spawn_blocking(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_platform_verifier()?;
        Ok::<_, rustls::Error>(Arc::new(builder.with_no_client_auth()))
    });
    let made = made.await.map_err(io::Error::other)?;
    let made = made.map_err(io::Error::other)?;
    Ok(CONFIG.get_or_init(|| made).clone())
}
