//! Bodies and the answers that API servers give with them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub(crate) type Answer = Response<Body>;

/// A whole body, or one that a watch keeps writing to.
pub(crate) enum Body {
    Whole(Bytes),
    Events(mpsc::Receiver<Bytes>),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Events(events) => events
                .poll_recv(cx)
                .map(|next| next.map(Frame::data).map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(bytes) => hyper::body::SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) => hyper::body::SizeHint::default(),
        }
    }
}

/// An answer with a JSON document.
pub(crate) fn document(code: StatusCode, value: &Value) -> Answer {
    typed(code, "application/json", format!("{value}\n"))
}

/// An answer in plain text, as handlers outside of the API machinery give it.
pub(crate) fn text(code: StatusCode, text: &str) -> Answer {
    typed(code, "text/plain; charset=utf-8", text.to_owned())
}

/// A request that is turned away before anybody looked at it, in plain text as the filters before
/// the API machinery write it.
pub(crate) fn turned_away(code: u16, retry_after: Option<u64>) -> Answer {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let words = match code {
        StatusCode::TOO_MANY_REQUESTS => "Too many requests, please try again later.\n",
        _ => "The apiserver is shutting down, please try again later.\n",
    };
    let mut answer = text(code, words);
    if let Some(seconds) = retry_after {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// What is no path of this server.
pub(crate) fn page_not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// An answer without a body or a type.
pub(crate) fn bare(code: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = code;
    answer
}

/// The answer to a watch: events for as long as something sends them.
pub(crate) fn events(receiver: mpsc::Receiver<Bytes>) -> Answer {
    let mut answer = Response::new(Body::Events(receiver));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn typed(code: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Body::Whole(Bytes::from(body)));
    *answer.status_mut() = code;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// A `metav1.Status` that says why something failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    /// Answered as text, by a handler before the API machinery.
    plain: bool,
}

impl Failure {
    pub(crate) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            plain: false,
        }
    }

    pub(crate) fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// A failure that is no Status but a line of text.
    pub(crate) fn plain(code: StatusCode, message: impl Into<String>) -> Self {
        Self {
            plain: true,
            ..Self::new(code, "", message)
        }
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn not_found(resource: &str, group: &str, name: &str) -> Self {
        let qualified = if group.is_empty() {
            resource.to_owned()
        } else {
            format!("{resource}.{group}")
        };
        let mut details = json!({"name": name, "kind": resource});
        if !group.is_empty() {
            details["group"] = json!(group);
        }
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("{qualified} \"{name}\" not found"),
        )
        .with_details(details)
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// Anything else, with the reason that belongs to the code.
    pub(crate) fn of_code(code: u16, message: &str) -> Self {
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let reason = match code.as_u16() {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Self::new(code, reason, message)
    }

    pub(crate) fn code(&self) -> StatusCode {
        self.code
    }

    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code.as_u16(),
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }

    pub(crate) fn answer(&self) -> Answer {
        if self.plain {
            return text(self.code, &format!("{}\n", self.message));
        }
        document(self.code, &self.status())
    }
}
