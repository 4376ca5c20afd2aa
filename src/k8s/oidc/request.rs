//! Two questions to an identity provider: where its token endpoint is (OpenID Connect Discovery
//! 1.0, section 4), and a token for a refresh token (RFC 6749, section 6).

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_rustls::TlsConnector;

use super::{OidcError, PROVIDER_TIMEOUT, Provider};
use crate::addr::Host;
use crate::dial::{Dial as _, Laptop};
use crate::k8s::kubeconfig::server_target;
use crate::k8s::trust::{self, Anchors};
use crate::upstream::{Proxies, Upstream};

/// Most of an answer's head that is read.
const MAX_HEAD: usize = 64 << 10;
/// Most of an answer's body that is read: a discovery document or a few tokens are some KiB.
const MAX_BODY: usize = 256 << 10;
/// How much of what the provider says about a refusal is shown.
const SHOWN: usize = 200;

/// What a refresh token was exchanged for.
pub(super) struct Granted {
    pub(super) id_token: SecretString,
    /// The next refresh token, where the provider rotates them.
    pub(super) refresh_token: Option<SecretString>,
}

#[derive(Deserialize)]
struct Discovered {
    token_endpoint: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    id_token: Option<String>,
    refresh_token: Option<String>,
}

/// RFC 6749, section 5.2.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Exchanges `refresh_token` for an id-token.
pub(super) async fn refresh(
    provider: &Provider,
    refresh_token: &SecretString,
    proxies: &Proxies,
) -> Result<Granted, OidcError> {
    let reading = provider.clone();
    let tls = tokio::task::spawn_blocking(move || tls(&reading)).await;
    let tls = tls.map_err(|e| OidcError::Config(e.to_string()))??;
    let line = Line {
        provider,
        proxies,
        tls,
    };
    let issuer = provider.issuer.trim_end_matches('/');
    let document = format!("{issuer}/.well-known/openid-configuration");
    let (status, body) = line.ask(&document, None).await?;
    if status != StatusCode::OK {
        return Err(line.odd(format!("answered {status} to {document}")));
    }
    let discovered: Discovered = line.parse(&body, "its discovery document")?;

    let form = Form::new(provider, refresh_token, &discovered);
    let (status, body) = line.ask(&discovered.token_endpoint, Some(form)).await?;
    if status == StatusCode::OK {
        let answer: Answer = line.parse(&body, "the answer of its token endpoint")?;
        let id_token = answer.id_token.ok_or_else(|| {
            line.odd("renewed the login without an id_token: log in with the scope openid".into())
        })?;
        return Ok(Granted {
            id_token: id_token.into(),
            refresh_token: answer
                .refresh_token
                .filter(|token| !token.is_empty())
                .map(Into::into),
        });
    }
    let Ok(refusal) = serde_json::from_slice::<Refusal>(&body) else {
        return Err(line.odd(format!("answered {status} to the refresh token")));
    };
    let said = said(&refusal, provider, refresh_token);
    Err(match refusal.error.as_str() {
        "invalid_grant" => OidcError::Refused {
            issuer: provider.issuer.clone(),
            said,
        },
        _ => line.odd(format!("answered {status} to the refresh token: {said}")),
    })
}

/// The provider's words, without what it may repeat of ours, and without what a terminal obeys.
fn said(refusal: &Refusal, provider: &Provider, refresh_token: &SecretString) -> String {
    let mut text = refusal.error.clone();
    if !refusal.error_description.is_empty() {
        text = format!("{text}: {}", refusal.error_description);
    }
    let secrets = [Some(refresh_token), provider.client_secret.as_ref()];
    for secret in secrets.into_iter().flatten() {
        text = text.replace(secret.expose_secret(), "…");
    }
    text.retain(|c| !c.is_control());
    text.chars().take(SHOWN).collect()
}

/// A request to the token endpoint.
struct Form {
    authorization: Option<HeaderValue>,
    body: String,
}

impl Form {
    fn new(provider: &Provider, refresh_token: &SecretString, discovered: &Discovered) -> Self {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let client = encode(&provider.client_id);
        let token = encode(refresh_token.expose_secret());
        let mut body = format!("grant_type=refresh_token&refresh_token={token}");
        let secret = provider.client_secret.as_ref();
        let secret = secret.map(|secret| encode(secret.expose_secret()));
        let methods = &discovered.token_endpoint_auth_methods_supported;
        let has = |method: &str| methods.iter().any(|m| m == method);
        // Basic is the default of a document that says nothing.
        let post = has("client_secret_post") && !has("client_secret_basic");
        let authorization = match secret {
            Some(secret) if !post => {
                let login = BASE64_STANDARD.encode(format!("{client}:{secret}"));
                // Base64 is always a header's value.
                let value = HeaderValue::from_str(&format!("Basic {login}")).ok();
                value.map(|mut value| {
                    value.set_sensitive(true);
                    value
                })
            }
            Some(secret) => {
                body.push_str(&format!("&client_id={client}&client_secret={secret}"));
                None
            }
            // A public client only says who it is (RFC 6749, section 2.3).
            None => {
                body.push_str(&format!("&client_id={client}"));
                None
            }
        };
        Self {
            authorization,
            body,
        }
    }
}

/// The way to a provider.
struct Line<'a> {
    provider: &'a Provider,
    proxies: &'a Proxies,
    tls: Arc<ClientConfig>,
}

impl Line<'_> {
    /// One request, a POST of `form` or a GET, on a connection of its own.
    async fn ask(&self, url: &str, form: Option<Form>) -> Result<(StatusCode, Bytes), OidcError> {
        let asked = self.exchange(url, form);
        match tokio::time::timeout(PROVIDER_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(format!(
                "{url} did not answer within {} s",
                PROVIDER_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn exchange(
        &self,
        url: &str,
        form: Option<Form>,
    ) -> Result<(StatusCode, Bytes), OidcError> {
        let uri: Uri = url
            .parse()
            .map_err(|e| OidcError::Config(format!("{url:?} is no address: {e}")))?;
        let target = server_target(&uri).map(|(target, _)| target);
        let (Some("https"), Some(target)) = (uri.scheme_str(), target) else {
            return Err(self.odd(format!("has an address that is not https: {url:?}")));
        };
        let name = match &target.host {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|e| OidcError::Config(format!("{url:?}: {e}")))?,
        };
        let stream = Upstream::new(Laptop { loopback: true }, self.proxies.clone());
        let stream = stream.dial(&target).await;
        let stream = stream.map_err(|e| self.unreachable(e.to_string()))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        let stream = stream.await.map_err(|e| {
            self.unreachable(format!("no trust in {target}: {}", trust::reason(&e)))
        })?;

        let broken = |e: hyper::Error| self.unreachable(format!("{target} broke off: {e}"));
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let request = request(&uri, form);
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|e| self.odd(format!("sent an answer that broke off: {e}")))?;
            Ok((status, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // Its error reaches the request that waits on it.
            _ = connection => answer.await,
        }
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8], what: &str) -> Result<T, OidcError> {
        // The parser's words may repeat what it read.
        serde_json::from_slice(body).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            self.odd(format!(
                "is not understood: {what} is unusual at line {line} column {column}"
            ))
        })
    }

    fn unreachable(&self, reason: String) -> OidcError {
        OidcError::Unreachable {
            issuer: self.provider.issuer.clone(),
            reason,
        }
    }

    fn odd(&self, reason: String) -> OidcError {
        OidcError::Answer {
            issuer: self.provider.issuer.clone(),
            reason,
        }
    }
}

fn request(uri: &Uri, form: Option<Form>) -> Request<Full<Bytes>> {
    let (authorization, body) = match form {
        Some(form) => (form.authorization, Some(form.body)),
        None => (None, None),
    };
    let post = body.is_some();
    let mut request = Request::new(Full::from(body.unwrap_or_default()));
    // A URI that has a scheme has a path.
    if let Some(path) = uri.path_and_query() {
        *request.uri_mut() = Uri::from(path.clone());
    }
    let headers = request.headers_mut();
    if let Some(Ok(host)) = uri.authority().map(|a| HeaderValue::from_str(a.as_str())) {
        headers.insert(HOST, host);
    }
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization);
    }
    if post {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
        *request.method_mut() = Method::POST;
    }
    request
}

/// Trusts what the kubeconfig names for the provider, else the system's store. Blocks.
fn tls(provider: &Provider) -> Result<Arc<ClientConfig>, OidcError> {
    let config = |what: &str, reason: String| OidcError::Config(format!("{what}: {reason}"));
    let pem = match (&provider.ca_data, &provider.ca_file) {
        (Some(data), _) => {
            let pem = BASE64_STANDARD.decode(data.trim());
            Some(pem.map_err(|e| config("idp-certificate-authority-data", e.to_string()))?)
        }
        (None, Some(file)) => {
            let name = file.display().to_string();
            Some(std::fs::read(file).map_err(|e| config(&name, e.to_string()))?)
        }
        (None, None) => None,
    };
    let anchors = match pem {
        Some(pem) => {
            let named = Anchors::of_pem(&pem, "the kubeconfig names for the identity provider");
            named.map_err(|e| config("idp-certificate-authority", e))?
        }
        None => Anchors::System,
    };
    let made = trust::client_config(&anchors);
    made.map_err(|e| config("the certificates to trust", e.to_string()))
}
