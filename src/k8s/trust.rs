//! Whether a server's certificate is trusted, and who signed one that is not.
//!
//! The decision is rustls's, or the system's. What is added is the name of the authority that was
//! seen: it tells a proxy that opens TLS from a kubeconfig that is out of date.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::x509;

/// Whom a server's certificate must be signed by.
#[derive(Clone, Debug)]
pub(super) enum Anchors {
    /// One of these authorities, which `by` (for example `the kubeconfig names`).
    Named {
        roots: Arc<RootCertStore>,
        by: &'static str,
    },
    /// An authority of the system's store.
    System,
}

impl Anchors {
    /// The authorities in a PEM file.
    pub(super) fn of_pem(pem: &[u8], by: &'static str) -> Result<Self, String> {
        let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let read = read.map_err(|e| e.to_string())?;
        if read.is_empty() {
            return Err("it holds no certificate".to_owned());
        }
        Self::of_der(read, by).map_err(|e| e.to_string())
    }

    /// These authorities.
    pub(super) fn of_der(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
        by: &'static str,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate)?;
        }
        Ok(Self::Named {
            roots: Arc::new(roots),
            by,
        })
    }
}

/// A certificate that no trusted authority has signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its certificate is signed by {issuer}, which is no authority that {}", .by.unwrap_or("this machine trusts"))]
pub(super) struct Untrusted {
    /// Who signed it, in quotes.
    pub(super) issuer: String,
    /// As in [`Anchors::Named`]; none for the system's store.
    pub(super) by: Option<&'static str>,
}

/// A configuration without a client certificate. Reads the system's store where that decides.
pub(super) fn client_config(anchors: &Anchors) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(anchors, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What decides about a server's certificate.
pub(super) fn verifier(
    anchors: &Anchors,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let (inner, by): (Arc<dyn ServerCertVerifier>, _) = match anchors {
        Anchors::Named { roots, by } => {
            let (roots, provider) = (Arc::clone(roots), Arc::clone(provider));
            let built = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            let built = built.map_err(|e| Error::General(e.to_string()))?;
            (built, Some(*by))
        }
        Anchors::System => {
            let system = rustls_platform_verifier::Verifier::new(Arc::clone(provider))?;
            (Arc::new(system), None)
        }
    };
    Ok(Arc::new(Explaining { inner, by }))
}

/// What stopped a handshake, as shortly as it can be said.
pub(super) fn reason(error: &io::Error) -> String {
    let tls = error
        .get_ref()
        .and_then(|e| (e as &(dyn StdError + 'static)).downcast_ref());
    match tls.and_then(untrusted) {
        Some(untrusted) => untrusted.to_string(),
        None => error.to_string(),
    }
}

/// The certificate that `error` is about, if nobody trusted has signed it.
pub(super) fn untrusted(error: &Error) -> Option<&Untrusted> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            other.downcast_ref()
        }
        _ => None,
    }
}

/// Says who signed what `inner` does not trust.
#[derive(Debug)]
struct Explaining {
    inner: Arc<dyn ServerCertVerifier>,
    by: Option<&'static str>,
}

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        verified.map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                let issuer = x509::issuer(end_entity).map(|name| format!("{name:?}"));
                let untrusted = Untrusted {
                    issuer: issuer.unwrap_or_else(|| "nobody it names".to_owned()),
                    by: self.by,
                };
                CertificateError::Other(OtherError(Arc::new(untrusted))).into()
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
