//! Logins by OpenID Connect, as kubectl's auth-provider `oidc` keeps them in the kubeconfig: an
//! id-token for the API server, and a refresh-token that gets the next one from the identity
//! provider.
//!
//! The provider is reached as everything else is, through the proxy of the environment where its
//! host has one. Tokens that it rotates are kept for the session and written back to the
//! kubeconfig, as kubectl does: many providers take each refresh token once only.

mod error;
mod keep;
mod request;
mod session;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use kube::config::Kubeconfig;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

pub use error::OidcError;
pub(super) use session::Session;

use super::kubeconfig::token_expiry;

/// How long each answer of the identity provider may take, connecting included. People wait for
/// it, and providers answer within a second.
pub const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);
/// A token with less left than this is not worth a request (client-go has the same margin).
const MARGIN: Duration = Duration::from_secs(10);

const ID_TOKEN: &str = "id-token";
const REFRESH_TOKEN: &str = "refresh-token";

/// The login of one user of a kubeconfig.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    issuer: String,
    client_id: String,
    client_secret: Option<SecretString>,
    id_token: Option<SecretString>,
    refresh_token: Option<SecretString>,
    ca_file: Option<PathBuf>,
    ca_data: Option<String>,
    origin: Origin,
}

/// Where a login is written.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The file.
    pub(super) file: PathBuf,
    /// The name of the user in it.
    pub(super) user: String,
}

impl Provider {
    /// Reads the `config` of an auth-provider.
    pub(super) fn new(config: &HashMap<String, String>, origin: Origin) -> Result<Self, OidcError> {
        let get = |key: &str| config.get(key).filter(|value| !value.is_empty()).cloned();
        let need = |key: &str| {
            get(key).ok_or_else(|| {
                let user = &origin.user;
                OidcError::Config(format!("user {user:?} has no {key}; log in again"))
            })
        };
        let issuer = need("idp-issuer-url")?;
        if !issuer.starts_with("https://") {
            return Err(OidcError::Config(format!(
                "idp-issuer-url {issuer:?} is no https:// address"
            )));
        }
        Ok(Self {
            client_id: need("client-id")?,
            issuer,
            client_secret: get("client-secret").map(Into::into),
            id_token: get(ID_TOKEN).map(Into::into),
            refresh_token: get(REFRESH_TOKEN).map(Into::into),
            ca_file: get("idp-certificate-authority").map(Into::into),
            ca_data: get("idp-certificate-authority-data"),
            origin,
        })
    }

    /// When the login ends if nothing renews it; none where something does.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        match self.refresh_token {
            Some(_) => None,
            None => token_expiry(self.id_token.as_ref()?.expose_secret()),
        }
    }

    /// Who logs in where; the same after the tokens were renewed.
    pub(super) fn identity(&self) -> (&str, &str, Option<String>) {
        #[derive(Deserialize)]
        struct Claims {
            sub: String,
        }
        let subject = self.id_token.as_ref().and_then(|token| {
            let payload = token.expose_secret().split('.').nth(1)?;
            let json = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
            Some(serde_json::from_slice::<Claims>(&json).ok()?.sub)
        });
        (&self.issuer, &self.client_id, subject)
    }

    /// The id-token of the kubeconfig with its end, if it is good now.
    fn valid(&self) -> Option<(&SecretString, SystemTime)> {
        let token = self.id_token.as_ref()?;
        let expires = token_expiry(token.expose_secret())?;
        (SystemTime::now() + MARGIN < expires).then_some((token, expires))
    }

    /// What the file says at this moment; none where it does not say it any more. Blocks.
    fn read_again(&self) -> Option<Self> {
        let config = Kubeconfig::read_from(&self.origin.file).ok()?;
        let mut users = config.auth_infos.into_iter();
        let user = users.find(|user| user.name == self.origin.user)?;
        let provider = user.auth_info?.auth_provider?;
        Self::new(&provider.config, self.origin.clone()).ok()
    }
}
