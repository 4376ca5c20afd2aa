//! The tokens of one login over a session.

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;

use super::{OidcError, Provider, keep, request};
use crate::k8s::exec::Credential;
use crate::k8s::kubeconfig::token_expiry;
use crate::upstream::Proxies;

/// What a session knows beyond the kubeconfig, which may be read-only. The lock is held while a
/// token is renewed: a provider that rotates takes the same refresh token once only.
#[derive(Debug, Default)]
pub(in crate::k8s) struct Session(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The id-token and the refresh-token of the file when it was last looked at.
    file: Option<Tokens>,
    /// The refresh token to use.
    refresh: Option<SecretString>,
    /// What was refused, and why: it is not asked for again.
    refused: Option<(SecretString, OidcError)>,
    /// Whether the user knows that the file is not written.
    noted: bool,
}

/// An id-token and a refresh-token.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    pub(super) id: Option<SecretString>,
    pub(super) refresh: Option<SecretString>,
}

impl Tokens {
    fn of(provider: &Provider) -> Self {
        Self {
            id: provider.id_token.clone(),
            refresh: provider.refresh_token.clone(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        same(self.id.as_ref(), other.id.as_ref())
            && same(self.refresh.as_ref(), other.refresh.as_ref())
    }
}

fn same(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    one.map(|s| s.expose_secret()) == other.map(|s| s.expose_secret())
}

impl Known {
    /// Takes over what the file says, if it says something else than before: somebody has logged
    /// in, or another program has renewed.
    fn read(&mut self, provider: &Provider) -> bool {
        let tokens = Tokens::of(provider);
        if self.file.as_ref().is_some_and(|seen| seen.is(&tokens)) {
            return false;
        }
        self.refresh.clone_from(&tokens.refresh);
        self.file = Some(tokens);
        true
    }
}

impl Session {
    /// A token: the kubeconfig's where it is good and was not given out before, else a fresh one.
    pub(in crate::k8s) async fn credential(
        &self,
        provider: &Provider,
        proxies: &Proxies,
    ) -> Result<Credential, OidcError> {
        let mut known = self.0.lock().await;
        let mut provider = provider.clone();
        loop {
            if known.read(&provider)
                && let Some((token, expires)) = provider.valid()
            {
                return Ok(credential(token, Some(expires)));
            }
            let Some(refresh) = known.refresh.clone() else {
                return Err(OidcError::Ended {
                    issuer: provider.issuer,
                });
            };
            if let Some((refused, error)) = &known.refused
                && same(Some(refused), Some(&refresh))
            {
                return Err(error.clone());
            }
            match request::refresh(&provider, &refresh, proxies).await {
                Ok(granted) => {
                    let expires = token_expiry(granted.id_token.expose_secret());
                    let credential = credential(&granted.id_token, expires);
                    known.refused = None;
                    known.refresh = granted.refresh_token.or(Some(refresh));
                    write_back(&mut known, &provider, granted.id_token).await;
                    return Ok(credential);
                }
                Err(error @ OidcError::Refused { .. }) => {
                    known.refused = Some((refresh, error.clone()));
                    // Another program may have used that token up since the file was read.
                    let before = provider.clone();
                    let read = tokio::task::spawn_blocking(move || before.read_again()).await;
                    let newer = read.ok().flatten().filter(|newer| {
                        !(known.file.as_ref()).is_some_and(|seen| seen.is(&Tokens::of(newer)))
                    });
                    provider = newer.ok_or(error)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Keeps the tokens in the kubeconfig too.
async fn write_back(known: &mut Known, provider: &Provider, id: SecretString) {
    let rotated = !same(known.refresh.as_ref(), provider.refresh_token.as_ref());
    let tokens = Tokens {
        id: Some(id),
        refresh: known.refresh.clone(),
    };
    let (origin, written) = (provider.origin.clone(), tokens.clone());
    let old = Tokens::of(provider);
    let kept = tokio::task::spawn_blocking(move || keep::write(&origin, &old, &written)).await;
    let file = provider.origin.file.display();
    match kept.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(()) => known.file = Some(tokens),
        Err(reason) if rotated && !known.noted => {
            known.noted = true;
            tracing::warn!(
                "the renewed login is kept for this session only: {file} cannot be written ({reason}); other programs may have to log in again"
            );
        }
        Err(reason) => tracing::debug!(%file, reason, "the renewed login is not written"),
    }
}

fn credential(token: &SecretString, expires: Option<std::time::SystemTime>) -> Credential {
    Credential {
        token: Some(token.expose_secret().to_owned()),
        identity: None,
        expires,
    }
}
