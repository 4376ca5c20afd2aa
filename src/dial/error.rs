//! Why a dial fails.

use std::io;
use std::time::Duration;

use crate::addr::Target;

/// What to do about destinations that port-forward cannot reach.
pub const NEEDS_RELAY: &str = "a relay in the cluster reaches it, and `kdev install` sets one up";

/// Why a stream could not be opened. The variants are the questions that callers ask: they are
/// matched exhaustively into SOCKS reply codes and HTTP statuses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// No such host, Service or pod.
    #[error("{what} was not found{}", fix_suffix(.fix))]
    NotFound {
        /// What was looked for, for example `Service web in namespace shop`.
        what: String,
        /// What to do about it; may be empty.
        fix: String,
    },
    /// The host exists and nothing listens on the port.
    #[error("{target} refused the connection{}", reason_suffix(.reason))]
    Refused {
        /// The destination.
        target: String,
        /// What the other side said; may be empty.
        reason: String,
    },
    /// The host is known and cannot be reached: no ready pod, no route, no relay.
    #[error("{target} cannot be reached: {reason}{}", fix_suffix(.fix))]
    Unreachable {
        /// The destination.
        target: String,
        /// Why.
        reason: String,
        /// What to do about it; may be empty.
        fix: String,
    },
    /// Nobody answered in time.
    #[error("{target} did not answer within {} s", .after.as_secs())]
    TimedOut {
        /// The destination.
        target: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Kubernetes does not allow it to this user.
    #[error(
        "not allowed to {verb} {resource} in namespace {namespace}: {message}; ask for the verb {verb:?} on {resource} (`kdev doctor` lists what is missing)"
    )]
    Denied {
        /// The verb, for example `create`.
        verb: String,
        /// The resource, for example `pods/portforward`.
        resource: String,
        /// The namespace.
        namespace: String,
        /// The API server's own words.
        message: String,
    },
    /// The rules of this session forbid it, for example a container that asks for the laptop.
    #[error("{target} is not allowed here: {reason}")]
    Forbidden {
        /// The destination.
        target: String,
        /// Which rule, and what lifts it.
        reason: String,
    },
    /// The way to the cluster is broken: API server, credentials, proxy.
    #[error("the cluster cannot be reached: {reason}{}", fix_suffix(.fix))]
    Cluster {
        /// Why.
        reason: String,
        /// What to do about it; may be empty.
        fix: String,
    },
}

fn fix_suffix(fix: &str) -> String {
    if fix.is_empty() {
        String::new()
    } else {
        format!("; {fix}")
    }
}

fn reason_suffix(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

impl DialError {
    /// Whether another pod of the same Service may do better: the failure belongs to one pod.
    #[must_use]
    pub fn is_of_one_pod(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::NotFound { .. } | Self::Unreachable { .. } => true,
            Self::TimedOut { .. }
            | Self::Denied { .. }
            | Self::Forbidden { .. }
            | Self::Cluster { .. } => false,
        }
    }

    /// The same failure, told of `target`: what was dialled for it in the end says nothing to who
    /// asked.
    #[must_use]
    pub(super) fn of(mut self, asked: &Target) -> Self {
        match &mut self {
            Self::Refused { target, .. }
            | Self::Unreachable { target, .. }
            | Self::TimedOut { target, .. }
            | Self::Forbidden { target, .. } => *target = asked.to_string(),
            Self::NotFound { .. } | Self::Denied { .. } | Self::Cluster { .. } => {}
        }
        self
    }

    /// The same failure with `advice` where it said that a relay is needed.
    #[must_use]
    pub(super) fn advising(mut self, advice: &str) -> Self {
        if let Self::NotFound { fix, .. } | Self::Unreachable { fix, .. } = &mut self
            && fix == NEEDS_RELAY
        {
            *fix = advice.to_owned();
        }
        self
    }

    /// The same failure as an I/O error of a stream that was handed out already.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        use io::ErrorKind;
        let kind = match &self {
            Self::NotFound { .. } | Self::Unreachable { .. } => ErrorKind::HostUnreachable,
            Self::Refused { .. } => ErrorKind::ConnectionRefused,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Denied { .. } | Self::Forbidden { .. } => ErrorKind::PermissionDenied,
            Self::Cluster { .. } => ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, self)
    }

    /// The dial's failure inside an I/O error, where there is one.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}
