//! A client that knows nothing but bytes.

pub(crate) mod frames;
pub(crate) mod http;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kdev_sim::{Options, SimCluster, shop};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection to the API server.
pub(crate) type Tls = TlsStream<TcpStream>;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails a test that waits for what does not come.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}

/// Whether a future is still not done after a moment.
pub(crate) async fn pending_for<F: Future>(millis: u64, future: F) -> bool {
    tokio::time::timeout(Duration::from_millis(millis), future)
        .await
        .is_err()
}

/// Waits for a condition that follows from what happened already.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// A shop of today.
pub(crate) async fn shop() -> SimCluster {
    shop_with(Options::default()).await
}

pub(crate) async fn shop_with(options: Options) -> SimCluster {
    let cluster = SimCluster::start(options).await.unwrap();
    shop::furnish(&cluster);
    cluster
}

/// TLS to the cluster, verified against its authority.
pub(crate) async fn connect(cluster: &SimCluster) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(cluster.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let socket = TcpStream::connect(cluster.address()).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}
