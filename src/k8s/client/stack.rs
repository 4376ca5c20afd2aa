//! One set of credentials as two HTTP clients: one that keeps connections for the next request,
//! and one that makes a connection per upgrade, because an upgrade keeps it.
//!
//! kube's own stack would wrap the upgraded stream in timers and trace every answer of 400 and
//! above as an error; this one uses kube's layers for credentials, headers and TLS around a plain
//! hyper client. All connections share one TLS configuration, so sessions are resumed.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt as _, RustlsTlsError};
use rustls::pki_types::CertificateDer;
use tower::{BoxError, Service, ServiceBuilder};
use tower_http::decompression::DecompressionLayer;

use crate::io::BoxIo;
use crate::k8s::kubeconfig::server_target;
use crate::k8s::trust::{self, Anchors};
use crate::upstream::Proxy;

/// How long a connection to the API server may take, TCP, proxy and TLS together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept: longer than a burst of requests pauses, shorter than
/// any middlebox forgets it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// When a silent connection is probed first, and how often then. A watch on a laptop that changed
/// networks ends after `KEEPALIVE` + `KEEPALIVE_RETRIES` × `KEEPALIVE_INTERVAL`, 30 s.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// The two clients.
pub(super) struct Stack {
    /// For requests.
    pub(super) requests: kube::Client,
    /// For upgrades.
    pub(super) upgrades: kube::Client,
}

/// Builds the clients. Reads certificate and token files: call it off the async threads, inside
/// the runtime's context.
pub(super) fn build(config: &Config, proxy: Option<&Arc<Proxy>>) -> kube::Result<Stack> {
    match proxy {
        Some(proxy) => assemble(config, Through(Arc::clone(proxy))),
        None => assemble(config, tcp()),
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp
}

fn assemble<C>(config: &Config, connector: C) -> kube::Result<Stack>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    let connector = Timed(tls(config, connector)?);
    let namespace = &config.default_namespace;
    let credentials = config.auth_layer()?;
    let headers = config.extra_headers_layer()?;

    let pooled = legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build::<_, Body>(connector.clone());
    let requests = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(DecompressionLayer::new().gzip(!config.disable_compression))
        .option_layer(credentials.as_ref())
        .layer(headers.clone())
        .map_err(BoxError::from)
        .service(pooled);

    let single = legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build::<_, Body>(connector);
    let upgrades = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(credentials.as_ref())
        .layer(headers)
        .map_err(BoxError::from)
        .service(single);

    Ok(Stack {
        requests: kube::Client::new(requests, namespace),
        upgrades: kube::Client::new(upgrades, namespace),
    })
}

/// TLS as the kubeconfig has it, with errors that name who signed what is not trusted.
fn tls<C>(config: &Config, connector: C) -> kube::Result<HttpsConnector<C>> {
    let bad = |error| kube::Error::RustlsTls(RustlsTlsError::AddRootCertificate(error));
    let mut tls = config.rustls_client_config()?;
    // A pod's authority is a file that kube's own verifier reads again when it changes.
    if !config.accept_invalid_certs && config.root_cert_file.is_none() {
        let anchors = match &config.root_cert {
            Some(roots) => {
                let roots = roots.iter().map(|der| CertificateDer::from(der.clone()));
                Anchors::of_der(roots, "the kubeconfig names").map_err(|e| bad(e.into()))?
            }
            None => Anchors::System,
        };
        let verifier = trust::verifier(&anchors, tls.crypto_provider());
        let verifier = verifier.map_err(|e| bad(e.into()))?;
        tls.dangerous().set_certificate_verifier(verifier);
    }
    let mut builder = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name.clone().try_into();
        let name =
            name.map_err(|e| kube::Error::RustlsTls(RustlsTlsError::InvalidServerName(e)))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(builder.enable_http1().wrap_connector(connector))
}

/// Connects through a proxy, which resolves the server's name.
#[derive(Clone)]
struct Through(Arc<Proxy>);

impl Service<Uri> for Through {
    type Response = Proxied;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Proxied, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let proxy = Arc::clone(&self.0);
        Box::pin(async move {
            let (target, _) = server_target(&uri).ok_or("the API server's address has no host")?;
            let stream = proxy.open(&target).await?;
            Ok(Proxied(TokioIo::new(stream)))
        })
    }
}

/// A stream through a proxy, as hyper takes it.
struct Proxied(TokioIo<BoxIo>);

impl Connection for Proxied {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Proxied {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Proxied {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

/// Bounds the whole of connecting; nothing of it stays on the stream.
#[derive(Clone)]
struct Timed<C>(C);

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
    C::Response: 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(result) => result.map_err(Into::into),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}
