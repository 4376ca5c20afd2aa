//! Why a relay did not open a stream, as a response that both kdev and people can read.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};

use crate::addr::Target;
use crate::dial::DialError;

/// The header that names the variant of [`DialError`].
pub const CAUSE_HEADER: &str = "kdev-cause";
/// The header with the words for people.
pub const REASON_HEADER: &str = "kdev-reason";
/// The header with the seconds that were waited, for a time-out.
const AFTER_HEADER: &str = "kdev-after";
/// The answer to who may go there himself: this side is not the one to ask (RFC 9110, 15.5.20).
pub(super) const DECLINED: StatusCode = StatusCode::MISDIRECTED_REQUEST;
/// Most bytes of a reason.
const MAX_REASON: usize = 512;

/// The response that says why a stream was not opened.
#[must_use]
pub fn refusal(error: &DialError) -> Response<()> {
    let (status, cause, reason) = match error {
        DialError::NotFound { what, .. } => (StatusCode::NOT_FOUND, "not-found", what),
        DialError::Refused { reason, .. } => (StatusCode::BAD_GATEWAY, "refused", reason),
        DialError::Unreachable { reason, .. } => (StatusCode::BAD_GATEWAY, "unreachable", reason),
        DialError::TimedOut { target, .. } => (StatusCode::GATEWAY_TIMEOUT, "timed-out", target),
        DialError::Forbidden { reason, .. } => (StatusCode::FORBIDDEN, "forbidden", reason),
        DialError::Denied { message, .. } => (StatusCode::FORBIDDEN, "forbidden", message),
        DialError::Cluster { reason, .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "unreachable", reason)
        }
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CAUSE_HEADER, HeaderValue::from_static(cause));
    let reason: String = reason
        .chars()
        .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
        .take(MAX_REASON)
        .collect();
    if let Ok(value) = HeaderValue::try_from(reason) {
        headers.insert(REASON_HEADER, value);
    }
    if let DialError::TimedOut { after, .. } = error {
        headers.insert(AFTER_HEADER, HeaderValue::from(after.as_secs()));
    }
    response
}

/// What a response that is no success means for the dial of `target`.
#[must_use]
pub fn cause_of<B>(target: &Target, response: &Response<B>) -> DialError {
    let text = |name| {
        let value = response.headers().get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or_default()
    };
    let reason = text(REASON_HEADER).to_owned();
    let target = target.to_string();
    match text(CAUSE_HEADER) {
        "not-found" => DialError::NotFound {
            what: reason,
            fix: "the relay's own DNS does not know it".to_owned(),
        },
        "refused" => DialError::Refused { target, reason },
        "timed-out" => DialError::TimedOut {
            target,
            after: Duration::from_secs(text(AFTER_HEADER).parse().unwrap_or(0)),
        },
        "forbidden" => DialError::Forbidden { target, reason },
        _ => DialError::Unreachable {
            target,
            reason: match reason.is_empty() {
                true => format!("the relay answered {}", response.status()),
                false => reason,
            },
            fix: String::new(),
        },
    }
}
