//! The few plain requests that a proxy answers itself.

use std::net::IpAddr;

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::{Config, access::Trust};
use crate::addr::split_port;
use crate::http::{Body, Failure};

/// Answers a request that was sent to the proxy itself rather than through it.
///
/// # Errors
/// Where it is for none of the proxy's pages.
pub(super) fn answer<B>(
    config: &Config,
    request: &Request<B>,
    trust: Trust,
) -> Result<Response<Body>, Failure> {
    Ok(match request.uri().path() {
        "/healthz" if is_read(request) => page("text/plain", "ok\n".to_owned()),
        "/proxy.pac" if is_read(request) => pac(config, request, trust),
        "/healthz" | "/proxy.pac" => {
            let failure = Failure {
                status: StatusCode::METHOD_NOT_ALLOWED,
                word: "bad-request",
                text: "only GET is of use here".to_owned(),
            };
            let mut response = failure.response();
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        _ => {
            return Err(Failure::bad_request(
                "this is kdev's proxy, not a web server; set it as HTTP proxy \
                 (http_proxy=http://ADDRESS) or as SOCKS proxy (socks5h://ADDRESS)",
            ));
        }
    })
}

fn is_read<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

/// The PAC file names the cluster's domains. It is for browsers that were told this address, so
/// not for a web page whose own name points here (DNS rebinding), nor for whoever lacks the
/// password.
fn pac<B>(config: &Config, request: &Request<B>, trust: Trust) -> Response<Body> {
    let Some(pac) = &config.pac else {
        return not_found("this proxy has no PAC file");
    };
    if trust != Trust::Full || !names_this_machine(request) {
        return not_found("the PAC file is for http://127.0.0.1 or http://localhost alone");
    }
    if is_for_a_page(request) {
        return not_found("the PAC file is for a browser's settings, not for a web page");
    }
    page("application/x-ns-proxy-autoconfig", pac.text())
}

/// Whether the app used an address or `localhost`, neither of which a web page can redefine.
fn names_this_machine<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    host.is_some_and(|host| {
        let (name, _) = split_port(host);
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

/// Whether a web page asks for it, to learn from it what the cluster's domains are: as a script, say.
/// Where browsers fetch their own PAC file they send none of these (Fetch Metadata, 2), or that it is
/// for nobody; somebody who looks at it comes by a navigation of the whole window.
fn is_for_a_page<B>(request: &Request<B>) -> bool {
    let said = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let navigates = said("sec-fetch-mode") == Some(b"navigate")
        && matches!(said("sec-fetch-dest"), None | Some(b"document"));
    let site = said("sec-fetch-site").or_else(|| said("sec-fetch-mode"));
    !navigates && !matches!(site, None | Some(b"none" | b"same-origin"))
}

fn page(content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::text(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Nor may a page of a browser that says nothing include it.
    for (name, value) in [
        ("cross-origin-resource-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn not_found(text: &str) -> Response<Body> {
    Failure {
        status: StatusCode::NOT_FOUND,
        word: "not-found",
        text: text.to_owned(),
    }
    .response()
}
