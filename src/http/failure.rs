//! What an app is told when its request could not be answered by the origin.

use std::error::Error;
use std::fmt::Display;
use std::io;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::{Body, MAX_ANSWER_HEAD, MAX_HEADERS};
use crate::dial::DialError;
use crate::io::text::lines;

/// Marks a response as kdev's own, with one word for the cause, so that scripts can tell it from
/// the origin's 502.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("x-kdev-error");

/// The word for a request that broke off because whoever sent it left.
const LEFT: &str = "caller-left";

/// Why a request has no answer of the origin: a status, one word, and a text with cause and fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status that the app gets.
    pub status: StatusCode,
    /// The value of [`ERROR_HEADER`].
    pub word: &'static str,
    /// Cause and fix.
    pub text: String,
}

impl Failure {
    /// The app's request is at fault.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            word: "bad-request",
            text: text.into(),
        }
    }

    /// A response with this status and text. Nobody may cache it.
    #[must_use]
    pub fn response(&self) -> Response<Body> {
        // An API server's words may be among it, and curl prints all that it gets.
        let text = lines(&self.text);
        let mut response = Response::new(Body::text(format!("kdev: {text}\n")));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.word));
        response
    }

    /// Whether there is nobody any more who could be told: whoever sent the request left before it
    /// was through.
    #[must_use]
    pub fn is_of_who_left(&self) -> bool {
        self.word == LEFT
    }

    /// What failed between kdev and the origin: a late refusal where there is one inside.
    pub(super) fn exchange(target: impl Display, error: &hyper::Error) -> Self {
        if let Some(refusal) = late_refusal(error) {
            return refusal.into();
        }
        if error.is_user() {
            let cause = error
                .source()
                .map_or_else(String::new, |s| format!(": {s}"));
            let failure = Self::bad_request(format!("the body of the request broke off{cause}"));
            return match is_malformed(error) {
                true => failure,
                false => Self {
                    word: LEFT,
                    ..failure
                },
            };
        }
        if error.is_parse_too_large() {
            return Self {
                status: StatusCode::BAD_GATEWAY,
                word: "answer-too-large",
                text: format!(
                    "{target} answered with a head of more than {} KiB or {MAX_HEADERS} lines",
                    MAX_ANSWER_HEAD >> 10
                ),
            };
        }
        let what = if error.is_parse() {
            "sent something that is not HTTP/1"
        } else if is_reset(error) {
            "reset the connection before it answered"
        } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            "closed the connection before it answered"
        } else {
            "broke the connection before it answered"
        };
        let cause = error.source().filter(|_| !is_reset(error));
        let cause = cause.map_or_else(String::new, |source| format!(": {source}"));
        Self {
            status: StatusCode::BAD_GATEWAY,
            word: "no-response",
            text: format!("{target} {what}{cause}"),
        }
    }
}

/// Why the body of an answer broke off that `who` gave, for people.
#[must_use]
pub fn broke_off(who: &str, error: &hyper::Error) -> String {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    if let Some(refusal) = late_refusal(error) {
        return refusal.to_string();
    }
    if is_reset(error) {
        return format!("{who} reset the connection");
    }
    let kind = sources(error).find_map(|e| e.downcast_ref().map(io::Error::kind));
    let what = match kind {
        Some(UnexpectedEof) => return format!("{who} closed the connection"),
        _ if error.is_incomplete_message() => return format!("{who} closed the connection"),
        Some(InvalidData | InvalidInput) => "sent a body that is not HTTP/1",
        _ => "broke the connection",
    };
    let cause = error.source();
    let cause = cause.map_or_else(String::new, |source| format!(": {source}"));
    format!("{who} {what}{cause}")
}

/// What an error comes from, the nearest first.
fn sources(error: &hyper::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// Whether the other end reset the connection, or the stream of a tunnel or of HTTP/2 that stood for
/// it: in the words of those libraries it has no more need of it.
fn is_reset(error: &hyper::Error) -> bool {
    sources(error).any(|source| {
        let io = source.downcast_ref::<io::Error>();
        let stream = match io {
            Some(io) => io.get_ref().and_then(|inner| inner.downcast_ref()),
            None => source.downcast_ref::<h2::Error>(),
        };
        match (stream, io) {
            (Some(stream), _) => stream.is_remote() && stream.reason() == Some(h2::Reason::CANCEL),
            // Of a socket, and not what was found out otherwise.
            (None, Some(io)) => {
                io.kind() == io::ErrorKind::ConnectionReset && io.raw_os_error().is_some()
            }
            (None, None) => false,
        }
    })
}

/// Whether a body broke off because of what is in it, and not because no more came.
fn is_malformed(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{InvalidData, InvalidInput};
            return matches!(error.kind(), InvalidData | InvalidInput);
        }
        source = error.source();
    }
    false
}

/// The dial's failure that a stream reported on its first read, where that is the cause.
pub(super) fn late_refusal(error: &hyper::Error) -> Option<&DialError> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(refusal) = error.downcast_ref().and_then(DialError::from_io) {
            return Some(refusal);
        }
        source = error.source();
    }
    None
}

/// Whether an HTTP/2 peer said that it has not looked at the request (RFC 9113, 8.7).
pub(super) fn is_unserved(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let reason = error.reason();
            return reason == Some(h2::Reason::REFUSED_STREAM)
                || error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR);
        }
        source = error.source();
    }
    false
}

impl From<&DialError> for Failure {
    /// The HTTP half of the table that turns a failed dial into an answer; the SOCKS half stands
    /// in the proxy.
    fn from(error: &DialError) -> Self {
        let (status, word) = match error {
            DialError::NotFound { .. } => (StatusCode::BAD_GATEWAY, "not-found"),
            DialError::Refused { .. } => (StatusCode::BAD_GATEWAY, "refused"),
            DialError::Unreachable { .. } => (StatusCode::BAD_GATEWAY, "unreachable"),
            DialError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "timed-out"),
            DialError::Denied { .. } => (StatusCode::FORBIDDEN, "denied"),
            DialError::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden"),
            DialError::Cluster { .. } => (StatusCode::BAD_GATEWAY, "cluster"),
        };
        Self {
            status,
            word,
            text: error.to_string(),
        }
    }
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        (&error).into()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn what_others_wrote_does_nothing_to_the_terminal_that_shows_the_answer() {
        let response = Failure::bad_request("said \u{1b}[2J\u{202e}").response();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"kdev: said \\u{1b}[2J\\u{202e}\n");
    }
}
