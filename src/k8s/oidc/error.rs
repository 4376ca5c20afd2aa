//! Why a login by OpenID Connect gave no token.

/// Why there is no token. No text in it has a secret of the user's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The kubeconfig lacks something.
    #[error("the kubeconfig's OIDC login cannot be used: {0}")]
    Config(String),
    /// The token has ended, and nothing renews it.
    #[error(
        "log in again: the id-token of {issuer} has ended, and the kubeconfig has no refresh-token"
    )]
    Ended {
        /// The identity provider.
        issuer: String,
    },
    /// The identity provider does not take the refresh token any more.
    #[error("log in again: the identity provider {issuer} no longer renews this login ({said})")]
    Refused {
        /// The identity provider.
        issuer: String,
        /// Its words.
        said: String,
    },
    /// There is no way to the identity provider.
    #[error(
        "the login cannot be renewed: the identity provider {issuer} cannot be reached: {reason}"
    )]
    Unreachable {
        /// The identity provider.
        issuer: String,
        /// Why.
        reason: String,
    },
    /// The identity provider answered something else.
    #[error("the login cannot be renewed: the identity provider {issuer} {reason}")]
    Answer {
        /// The identity provider.
        issuer: String,
        /// What it did, for example `answered 500`.
        reason: String,
    },
}

impl OidcError {
    /// Whether only the user can help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Refused { .. })
    }

    /// Whether trying again soon may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Answer { .. })
    }
}
