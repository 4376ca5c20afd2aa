//! What a failed dial is called in SOCKS. The HTTP half of the table stands with the forwarding
//! engine ([`crate::http::Failure`]).

use fast_socks5::ReplyError;

use crate::dial::DialError;

/// The SOCKS5 reply for a failed dial (RFC 1928, 6). The text of the error cannot be sent.
pub(super) fn socks5(error: &DialError) -> ReplyError {
    match error {
        DialError::NotFound { .. } | DialError::Unreachable { .. } => ReplyError::HostUnreachable,
        DialError::Refused { .. } => ReplyError::ConnectionRefused,
        DialError::TimedOut { .. } => ReplyError::TtlExpired,
        DialError::Denied { .. } | DialError::Forbidden { .. } => ReplyError::ConnectionNotAllowed,
        DialError::Cluster { .. } => ReplyError::NetworkUnreachable,
    }
}
