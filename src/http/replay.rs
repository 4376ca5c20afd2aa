//! What may be sent again when it was not answered.

use hyper::Request;
use hyper::client::conn::TrySendError;
use hyper::http::request::Parts;
use tracing::debug;

use super::Failure;
use super::failure::{is_unserved, late_refusal};
use super::request::RequestBody;
use crate::addr::Target;
use crate::dial::DialError;

/// Whether a request may be sent again although it may have been served: it is idempotent, and its
/// body will be at hand.
pub(super) fn may_be_sent_twice(request: &Request<RequestBody>) -> bool {
    request.method().is_idempotent() && request.body().is_kept()
}

/// A request that has no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    /// The request, where nobody served it, or where that does no harm: it may be sent elsewhere.
    pub(super) again: Option<Request<RequestBody>>,
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.failure
    }
}

/// Whether a stream was refused late, by a pod that may have better neighbours.
fn is_of_one_pod(error: &hyper::Error) -> bool {
    late_refusal(error).is_some_and(DialError::is_of_one_pod)
}

/// What is needed to send a request again.
pub(super) struct Replay(Parts, RequestBody);

impl Replay {
    pub(super) fn of(request: &Request<RequestBody>) -> Self {
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Self(copy.into_parts().0, request.body().handle())
    }

    /// The request, if it may be sent again after `error`.
    ///
    /// It may when nobody served it: a stream that was refused late carried nothing. Otherwise
    /// only what may be sent twice, and only when the connection had been idle before: then the
    /// likely cause is that the origin closed it at the same moment. What may not gets no connection
    /// that had been idle, see [`Pool`](super::pool::Pool).
    fn after(&self, reused: bool, error: &hyper::Error) -> Option<Request<RequestBody>> {
        let may = match late_refusal(error) {
            Some(_) => is_of_one_pod(error),
            None => is_unserved(error) || reused && self.may_be_sent_twice(error),
        };
        may.then(|| self.request())?
    }

    /// The request once more after a failure on a connection to `target`, where that is safe;
    /// `reused` is whether the connection had served others, `repeated` whether this was the second
    /// time already.
    #[allow(clippy::result_large_err)] // Made for requests that fail, and moved once.
    pub(super) fn again(
        &self,
        target: &Target,
        mut error: TrySendError<Request<RequestBody>>,
        reused: bool,
        repeated: bool,
    ) -> Result<Request<RequestBody>, Unanswered> {
        let unsent = error.take_message();
        let error = error.into_error();
        let again = match unsent {
            Some(unsent) if reused || !repeated && is_of_one_pod(&error) => Some(unsent),
            Some(unsent) => return Err(Unanswered::unsent(target, &error, unsent)),
            None if repeated => None,
            None => self.after(reused, &error),
        };
        let Some(again) = again else {
            return Err(self.elsewhere(target, &error));
        };
        debug!(%target, %error, reused, "sending the request again on another connection");
        Ok(again)
    }

    /// What is left to say of a request that failed.
    fn elsewhere(&self, target: &Target, error: &hyper::Error) -> Unanswered {
        let unserved = late_refusal(error).is_some() || is_unserved(error);
        let may = unserved || self.may_be_sent_twice(error);
        Unanswered {
            failure: Failure::exchange(target, error),
            again: may.then(|| self.request()).flatten(),
        }
    }

    /// Its body has to be at hand as well, which is seen when it is asked for.
    fn may_be_sent_twice(&self, error: &hyper::Error) -> bool {
        self.0.method.is_idempotent() && !error.is_parse()
    }

    /// The request, if its body is still at hand.
    pub(super) fn request(&self) -> Option<Request<RequestBody>> {
        let body = self.1.again()?;
        Some(Request::from_parts(self.0.clone(), body))
    }
}

impl Unanswered {
    /// Not for want of trying.
    pub(super) fn for_good(failure: Failure) -> Self {
        Self {
            failure,
            again: None,
        }
    }

    /// Nothing of it was sent.
    pub(super) fn unsent(
        target: &Target,
        error: &hyper::Error,
        request: Request<RequestBody>,
    ) -> Self {
        Self {
            failure: Failure::exchange(target, error),
            again: Some(request),
        }
    }
}
