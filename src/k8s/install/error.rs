//! Why the relay could not be put there, or taken away.

use crate::k8s::ClientError;

/// What to do where objects are somebody else's.
const ANOTHER_PLACE: &str = "choose another namespace with -n, or remove what is there";

/// Why the relay could not be put there, or taken away.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Permissions are missing; nothing was changed.
    #[error(
        "not allowed to {what} in namespace {namespace}, so nothing was changed; the built-in role `edit` in that namespace has all that is needed"
    )]
    Denied {
        /// Verbs and resources.
        what: String,
        /// Where.
        namespace: String,
    },
    /// Objects of these names are somebody else's; nothing was changed.
    #[error("{what} in namespace {namespace} {by}, so nothing was changed; {ANOTHER_PLACE}")]
    Foreign {
        /// Which objects.
        what: String,
        /// Where.
        namespace: String,
        /// Whose they are.
        by: String,
    },
    /// Another field manager has set fields to something else.
    #[error("{what} was changed by somebody else: {message}; pass --force to take it over")]
    Conflict {
        /// Which object.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// A change was refused.
    #[error("{what} was refused: {message}; {fix}")]
    Refused {
        /// Which object.
        what: String,
        /// The API server's words.
        message: String,
        /// What to do about it.
        fix: String,
    },
    /// A dry run shows that it would be refused; nothing was changed.
    #[error("the cluster would refuse this, so nothing was changed:{what}; {fix}")]
    Foreseen {
        /// Which objects, and the API server's words, each on a line.
        what: String,
        /// What to do about it.
        fix: String,
    },
    /// The pods do not start, for a reason that waiting does not change.
    #[error("the relay does not start: {reason}; {fix}")]
    Stuck {
        /// Kubernetes' reason.
        reason: String,
        /// What to do about it.
        fix: String,
    },
    /// It took too long.
    #[error(
        "{what} within {seconds} s{}; what was done stays, and the same command goes on from there",
        .because.as_ref().map_or_else(String::new, |because| format!(": {because}"))
    )]
    TimedOut {
        /// What did not come about.
        what: String,
        /// How long it was waited for.
        seconds: u64,
        /// What was in the way last.
        because: Option<String>,
    },
    /// The system has no randomness for a secret.
    #[error("no random bytes for a secret: {0}")]
    Random(#[from] getrandom::Error),
}

impl InstallError {
    /// What is in the way and what to do about it, for who only asks whether an install would go
    /// through; `None` where that was not found out.
    #[must_use]
    pub fn foreseen(&self) -> Option<(String, &str)> {
        Some(match self {
            Self::Foreign {
                what,
                namespace,
                by,
            } => (
                format!("{what} in namespace {namespace} {by}"),
                ANOTHER_PLACE,
            ),
            Self::Foreseen { what, fix } => (format!("the cluster would refuse it:{what}"), fix),
            _ => return None,
        })
    }
}
