//! Why a request to the API server failed, in the user's words.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use serde::Deserialize;

use super::stack::CONNECT_TIMEOUT;
use crate::dial::DialError;
use crate::k8s::exec::ExecError;
use crate::k8s::kubeconfig::KubeconfigError;
use crate::k8s::oidc::OidcError;
use crate::k8s::trust;
use crate::upstream::ProxyError;

/// Why a request to the API server failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The credential plugin gave nothing.
    #[error(transparent)]
    Plugin(#[from] ExecError),
    /// The identity provider gave nothing.
    #[error(transparent)]
    Login(#[from] OidcError),
    /// The credentials cannot be used, for another reason.
    #[error("the credentials of context {context:?} cannot be used: {reason}")]
    Credentials {
        /// The context.
        context: String,
        /// Why.
        reason: String,
    },
    /// The API server cannot be reached.
    #[error("cannot reach the API server {server}: {reason}")]
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        reason: String,
    },
    /// The proxy on the way to the API server is broken, or refuses.
    #[error("cannot reach the API server {server}: {error}")]
    Proxy {
        /// The API server's address.
        server: String,
        /// Why.
        error: ProxyError,
    },
    /// The API server's certificate is not accepted, or ours is not by it.
    #[error("no trust between kdev and the API server {server}: {reason}; {fix}")]
    Certificate {
        /// Its address.
        server: String,
        /// Why.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// The API server does not know the user.
    #[error(
        "the API server does not accept the credentials of user {user:?} (context {context:?}): {message}; log in again, or choose another context"
    )]
    Unauthorized {
        /// The context.
        context: String,
        /// The user.
        user: String,
        /// The API server's words.
        message: String,
    },
    /// The API server said no.
    #[error("the API server answered {code} {reason}: {message}")]
    Status {
        /// The HTTP status.
        code: u16,
        /// The machine-readable reason, for example `Forbidden`; may be empty.
        reason: String,
        /// The API server's words.
        message: String,
    },
    /// The API server asked to wait, for longer than kdev does.
    #[error(
        "the API server {server} is too busy ({code}): kdev waited {} s, and it asks for {} s more; try again later, or ask whoever runs the cluster about its limits for this user",
        .waited.as_secs(), .asked.as_secs()
    )]
    Busy {
        /// Its address.
        server: String,
        /// The HTTP status.
        code: u16,
        /// How long it was waited.
        waited: Duration,
        /// The last `Retry-After`.
        asked: Duration,
    },
    /// The answer is not what Kubernetes would say.
    #[error("the answer of {server} is not understood: {reason}")]
    Answer {
        /// Its address.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// The HTTP status, where the API server gave one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } | Self::Busy { code, .. } => Some(*code),
            Self::Unauthorized { .. } => Some(401),
            _ => None,
        }
    }

    /// Whether the API server itself forbids it, rather than something before it.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::Status { code: 403, reason, .. } if reason == "Forbidden")
    }

    /// Whether trying again soon may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Answer { .. } | Self::Busy { .. } => true,
            Self::Proxy { error, .. } => !error.is_login(),
            Self::Login(error) => error.is_passing(),
            Self::Status { code, .. } => *code == 429 || *code >= 500,
            _ => false,
        }
    }
}

impl ClientError {
    /// Whether only the user can help, by another login.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Login(error) if error.is_final())
    }
}

impl From<ClientError> for DialError {
    fn from(error: ClientError) -> Self {
        Self::Cluster {
            reason: error.to_string(),
            fix: String::new(),
        }
    }
}

/// The part of `metav1.Status` that matters here.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Status {
    #[serde(default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
}

impl Status {
    /// The Status in `body`, if it is one.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let status: Self = serde_json::from_slice(body).ok()?;
        (status.kind == "Status").then_some(status)
    }
}

/// Names the cause of an error that came out of kube's client.
pub(super) fn classify(error: &kube::Error, context: &str, server: &str) -> ClientError {
    if let kube::Error::InferKubeconfig(_) | kube::Error::Auth(_) | kube::Error::RustlsTls(_) =
        error
    {
        return ClientError::Credentials {
            context: context.to_owned(),
            reason: innermost(error),
        };
    }
    let mut proxy = None;
    let mut tls = None;
    walk(error, &mut |e| {
        if let Some(e) = e.downcast_ref::<rustls::Error>() {
            tls = Some(e.clone());
        }
        if let Some(e) = e.downcast_ref::<ProxyError>() {
            proxy = Some(e.clone());
        }
    });
    if let Some(error) = proxy {
        return ClientError::Proxy {
            server: server.to_owned(),
            error,
        };
    }
    let server = server.to_owned();
    if let Some(tls) = tls {
        let (reason, fix) = explain(&tls);
        return ClientError::Certificate {
            server,
            reason,
            fix,
        };
    }
    let mut timed_out = false;
    let mut credentials = false;
    walk(error, &mut |e| {
        credentials |= e.is::<kube::client::AuthError>();
        if let Some(e) = e.downcast_ref::<io::Error>() {
            timed_out |= e.kind() == io::ErrorKind::TimedOut;
        }
    });
    if credentials {
        return ClientError::Credentials {
            context: context.to_owned(),
            reason: innermost(error),
        };
    }
    let reason = if timed_out {
        format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())
    } else {
        innermost(error)
    };
    ClientError::Unreachable { server, reason }
}

/// What a TLS failure means to the user, and what to do.
fn explain(error: &rustls::Error) -> (String, String) {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    let correct_ca = "correct certificate-authority-data in the kubeconfig, or get a new one";
    if let Some(untrusted) = trust::untrusted(error) {
        let own = match untrusted.by {
            Some(_) => correct_ca,
            None => {
                "add it to the system's store, to the file that SSL_CERT_FILE names, or as \
                 certificate-authority-data to the kubeconfig"
            }
        };
        let fix = format!(
            "if that is the cluster's own authority, {own}; if it is your company's, a proxy or a \
             firewall on the way opens TLS: ask whoever runs it to let the API server's through \
             unopened, or go past a proxy with NO_PROXY"
        );
        return (untrusted.to_string(), fix);
    }
    match error {
        Error::InvalidCertificate(Bad::BadSignature) => (
            "its certificate is signed by another authority of the name that is trusted".into(),
            format!("the cluster was probably made anew: {correct_ca}"),
        ),
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => (
            "its certificate has expired".into(),
            "check this machine's clock, then tell whoever runs the cluster".into(),
        ),
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => (
            format!("{error}"),
            "use a name that the certificate has, or set tls-server-name in the kubeconfig".into(),
        ),
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRequired
            | Alert::CertificateUnknown
            | Alert::UnknownCA,
        ) => (
            format!("it refuses the client certificate ({error})"),
            "get a new client certificate".into(),
        ),
        _ => (error.to_string(), correct_ca.into()),
    }
}

/// The innermost cause, with the step that failed where its text alone says too little.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut texts = Vec::new();
    walk(error, &mut |e| {
        let text = e.to_string();
        if !text.is_empty() {
            texts.push(text);
        }
    });
    let last = texts.pop().unwrap_or_default();
    match texts.iter().rev().find(|t| !t.contains(&last)) {
        Some(step) if step.starts_with("dns error") || step.starts_with("tunnel") => {
            format!("{step}: {last}")
        }
        _ => last,
    }
}

/// Visits an error and its causes, also those inside an [`io::Error`], whose own `source` skips
/// the error it carries.
fn walk(error: &(dyn StdError + 'static), visit: &mut dyn FnMut(&(dyn StdError + 'static))) {
    visit(error);
    let carried = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    match carried {
        Some(carried) => walk(carried, visit),
        None => {
            if let Some(source) = error.source() {
                walk(source, visit);
            }
        }
    }
}
