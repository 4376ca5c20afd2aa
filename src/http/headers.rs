//! Which headers belong to one hop, and which go through to the other end (RFC 9110, 7.6).

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};

/// Headers of one hop whether `Connection` names them or not, besides all that begin with
/// `proxy-`. `Trailer` is not among them: it tells the other end what to expect.
const HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Prepares a request's headers for the origin. `host` is the authority of the request's URI, where
/// there is one. Returns whether the request asks for an upgrade.
pub(super) fn clean_request(headers: &mut HeaderMap, host: Option<HeaderValue>) -> bool {
    let upgrade = upgrade_of(headers);
    let trailers = has_token(headers, &TE, "trailers");
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    remove_hop_by_hop(headers);
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    if chunked {
        // Said explicitly, or hyper would send a GET without its body.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.remove(CONTENT_LENGTH);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
        return true;
    }
    if trailers {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    false
}

/// Prepares a response's headers for the app. `keep_upgrade` is set where the status means
/// something only together with `Upgrade` (101 and 426).
pub(super) fn clean_response(headers: &mut HeaderMap, keep_upgrade: bool) {
    let upgrade = headers.get(UPGRADE).cloned().filter(|_| keep_upgrade);
    if headers.contains_key(TRANSFER_ENCODING) {
        // The chunks decided where the body ended, so a length beside them is a lie that the
        // next hop might believe (RFC 9112, 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// What the request wants to upgrade to, if it really does: both headers must say so.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    has_token(headers, &CONNECTION, "upgrade").then(|| upgrade.clone())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    let for_proxies: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("proxy-"))
        .cloned()
        .collect();
    for name in for_proxies {
        headers.remove(name);
    }
}

/// Whether a list header holds `token`, in any case and without regard to parameters.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().flat_map(tokens).any(|t| {
        let bare = t.split(';').next().unwrap_or(t).trim_end();
        bare.eq_ignore_ascii_case(token)
    })
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .to_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn cleaned(lines: &[(&str, &str)]) -> (HeaderMap, bool) {
        let mut headers = map(lines);
        let upgrade = clean_request(&mut headers, Some(HeaderValue::from_static("web.shop")));
        (headers, upgrade)
    }

    #[test]
    fn what_belongs_to_the_hop_stays_behind() {
        let host = ("host", "web.shop");
        for (sent, passed) in [
            (vec![("connection", "close")], vec![]),
            (
                vec![("connection", "close, X-Mine"), ("x-mine", "1")],
                vec![],
            ),
            (vec![("keep-alive", "timeout=5")], vec![]),
            (vec![("proxy-connection", "keep-alive")], vec![]),
            (vec![("proxy-authorization", "Basic x")], vec![]),
            (vec![("te", "gzip")], vec![]),
            (
                vec![("te", "gzip, trailers;q=1")],
                vec![("te", "trailers"), ("connection", "te")],
            ),
            (vec![("upgrade", "websocket")], vec![]),
            (
                vec![
                    ("upgrade", "h2c"),
                    ("connection", "http2-settings"),
                    ("http2-settings", "x"),
                ],
                vec![],
            ),
            (vec![("host", "other")], vec![]),
            (vec![("trailer", "x-sum")], vec![("trailer", "x-sum")]),
            (vec![("via", "1.1 me")], vec![("via", "1.1 me")]),
            (
                vec![("transfer-encoding", "chunked"), ("content-length", "3")],
                vec![("transfer-encoding", "chunked")],
            ),
        ] {
            let (headers, upgrade) = cleaned(&sent);
            assert!(!upgrade, "{sent:?}");
            let expected = map(&[passed.as_slice(), &[host]].concat());
            assert_eq!(headers, expected, "{sent:?}");
        }
    }

    #[test]
    fn a_real_upgrade_goes_through() {
        let (headers, upgrade) = cleaned(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "x"),
            ("te", "trailers"),
        ]);
        assert!(upgrade);
        let expected = map(&[
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "x"),
            ("host", "web.shop"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_response_keeps_its_length_unless_it_was_chunked() {
        let mut headers = map(&[("content-length", "3"), ("connection", "close")]);
        clean_response(&mut headers, false);
        assert_eq!(headers, map(&[("content-length", "3")]));
        let mut headers = map(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        clean_response(&mut headers, false);
        assert!(headers.is_empty());
        let mut headers = map(&[("upgrade", "h2c"), ("connection", "upgrade")]);
        clean_response(&mut headers, true);
        assert_eq!(headers.len(), 2);
    }

    proptest! {
        #[test]
        fn nothing_that_connection_names_survives(
            names in proptest::collection::vec("[a-z][a-z0-9-]{0,12}", 1..6),
            kept in "x-kept-[a-z]{1,8}",
        ) {
            prop_assume!(!names.contains(&kept));
            let mut headers = HeaderMap::new();
            for name in &names {
                headers.append(name.parse::<HeaderName>().unwrap(), "v".parse().unwrap());
            }
            headers.insert(kept.parse::<HeaderName>().unwrap(), "v".parse().unwrap());
            headers.insert(CONNECTION, names.join(" , ").parse().unwrap());
            clean_response(&mut headers, false);
            prop_assert_eq!(headers.len(), 1);
            prop_assert!(headers.contains_key(kept.as_str()));
            // Cleaning what is clean changes nothing.
            let once = headers.clone();
            clean_response(&mut headers, false);
            prop_assert_eq!(headers, once);
        }
    }
}
