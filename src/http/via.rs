//! Requests that go to an HTTP proxy instead of to the origin: their form, their login, and the
//! end of proxies that lead back to where they began.

use hyper::body::Incoming;
use hyper::header::{
    HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Uri};

use super::Failure;
use super::request::RequestBody;
use crate::dial::HttpProxy;

/// Counts how many kdevs a request went through on its way to a proxy of this machine.
const HOPS: HeaderName = HeaderName::from_static("kdev-hops");

/// How many kdevs may stand one behind the other: `kdev run` inside `kdev run` is two.
const MAX_HOPS: u8 = 8;

/// The kdevs that a request went through, this one included.
#[derive(Clone, Copy, Debug)]
struct Hops(u8);

/// Takes the count out of the headers, since no origin is to see it.
pub(super) fn count_hops(parts: &mut Parts) -> Result<(), Failure> {
    let before = take_hops(&mut parts.headers);
    if before >= MAX_HOPS {
        return Err(Failure {
            status: StatusCode::LOOP_DETECTED,
            word: "loop",
            text: format!(
                "the request went through {MAX_HOPS} kdevs, each the proxy of another; set \
                 HTTP_PROXY to the proxy of your network before kdev starts, or unset it"
            ),
        });
    }
    parts.extensions.insert(Hops(before + 1));
    Ok(())
}

fn take_hops(headers: &mut HeaderMap) -> u8 {
    let value = headers.remove(HOPS);
    let text = value.as_ref().and_then(|value| value.to_str().ok());
    // What is no small number was not written by kdev.
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Gives `request` the form for where it goes: absolute and with a login to a proxy, else as the
/// origin takes it.
pub(super) fn form(
    request: &mut Request<RequestBody>,
    via: Option<&HttpProxy>,
) -> Result<(), Failure> {
    if via.is_none() && request.uri().authority().is_none() {
        return Ok(());
    }
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    let uri: Uri = match via {
        Some(_) => format!("http://{}{path}", host.unwrap_or_default()).parse(),
        None => path.parse(),
    }
    .map_err(|e| Failure::bad_request(format!("{path:?} is no path: {e}")))?;
    *request.uri_mut() = uri;
    let hops = request.extensions().get::<Hops>().copied();
    let headers = request.headers_mut();
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(HOPS);
    let Some(via) = via else { return Ok(()) };
    if let Some(Ok(mut value)) = via.authorization.as_deref().map(HeaderValue::from_str) {
        value.set_sensitive(true);
        headers.insert(PROXY_AUTHORIZATION, value);
    }
    if via.own_machine
        && let Some(Hops(hops)) = hops
    {
        headers.insert(HOPS, HeaderValue::from(u16::from(hops)));
    }
    Ok(())
}

/// What the app is told when the proxy does not accept the login. An origin's own 407 is not
/// meant: it came from the origin.
pub(super) fn login_refused(
    response: &Response<Incoming>,
    via: Option<&HttpProxy>,
) -> Option<Failure> {
    let via = via.filter(|_| response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED)?;
    let challenges = response.headers().get_all(PROXY_AUTHENTICATE).iter();
    let challenges: Vec<String> = challenges
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    Some(Failure {
        status: StatusCode::BAD_GATEWAY,
        word: "proxy-login",
        text: (via.refused)(&challenges),
    })
}
