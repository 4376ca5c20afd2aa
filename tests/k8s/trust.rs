//! An API server behind something that opens TLS.

use std::sync::Arc;

use kdev::k8s::ClientError;
use kdev_sim::Options;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::World;

/// The company's side of TLS: a certificate for the API server's name by its own authority.
fn inspecting() -> TlsAcceptor {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = &mut authority.distinguished_name;
    name.push(DnType::CommonName, "Inspection CA");
    name.push(DnType::OrganizationName, "Example Corp");
    let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
    let key = KeyPair::generate().unwrap();
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_tls_on_the_way_is_named() {
    let world = World::new(Options::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = inspecting();
    world.tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // kdev leaves when it sees the certificate.
            let _ = acceptor.accept(stream).await;
        }
    });
    let config = world.cluster.kubeconfig("dev", "shop");
    let config = config.replace(&world.cluster.url(), &url);
    let client = world.connect(&config).await.unwrap();
    let error = client.get::<Value>("/version").await.unwrap_err();
    assert!(
        matches!(error, ClientError::Certificate { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    for part in [
        url.as_str(),
        "signed by \"Inspection CA, Example Corp\", which is no authority that the kubeconfig names",
        "opens TLS",
        "NO_PROXY",
    ] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}
