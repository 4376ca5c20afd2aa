//! Requests that say whose they are, on connections to those who ask for it.

use hyper::Request;
use hyper::header::HeaderMap;

use super::request::RequestBody;
use crate::dial::Mark;

/// The headers of a request as they were before it was marked.
#[derive(Clone, Debug)]
struct Before(HeaderMap);

/// Marks `request` for the connection that it is about to be sent on; for one that wants no `mark` it
/// has none, also where it was sent on another one before.
pub(super) fn put(request: &mut Request<RequestBody>, mark: Option<&Mark>) {
    if let Some(Before(headers)) = request.extensions_mut().remove() {
        *request.headers_mut() = headers;
    }
    if let Some(mark) = mark {
        let before = Before(request.headers().clone());
        mark.add(request.headers_mut());
        request.extensions_mut().insert(before);
    }
}
