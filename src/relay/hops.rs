//! Who called, for the app: the relay stands between, so the app sees only its address.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};

use crate::http::Failure;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// How relays call themselves (RFC 7239, 6.3).
const SELF: &str = "by=_kdev";
/// How many relays one request may pass. Services that call each other begin anew; only a request
/// that goes round in circles gets so far.
const MOST: usize = 16;
/// Lines of a head up to which some are added. Some servers take no more than 64, so that a request
/// with about as many, which they take from its caller, might be too much with ours.
const MOST_LINES: usize = 64;

/// Adds this hop to `Forwarded` (RFC 7239) and `X-Forwarded-For`, and says in `X-Forwarded-Host`
/// and `X-Forwarded-Proto` what was asked for where nobody has before. A request with very many
/// headers gets no further lines.
///
/// # Errors
/// When the request goes round in circles.
pub(super) fn add(headers: &mut HeaderMap, uri: &Uri, peer: SocketAddr) -> Result<(), Failure> {
    let before = headers.get_all(FORWARDED).iter();
    let relays: usize = before
        .map(|value| value.to_str().map_or(0, |text| text.matches(SELF).count()))
        .sum();
    if relays >= MOST {
        return Err(Failure {
            status: StatusCode::LOOP_DETECTED,
            word: "loop",
            text: format!("the request came through {relays} relays: it goes round in circles"),
        });
    }
    let ip = peer.ip().to_canonical();
    let host = uri.authority().map(|a| a.as_str().to_owned());
    let host = host.or_else(|| headers.get(HOST)?.to_str().ok().map(str::to_owned));
    let mut hop = match ip {
        IpAddr::V4(ip) => format!("for={ip}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
    };
    if let Some(host) = host.as_deref().filter(|host| !host.contains(['"', '\\'])) {
        // Writing to a String cannot fail.
        let _ = write!(hop, ";host=\"{host}\"");
    }
    let _ = write!(hop, ";proto=http;{SELF}");
    let ip = ip.to_string();
    for (name, item) in [(FORWARDED, &hop), (FORWARDED_FOR, &ip)] {
        if headers.contains_key(&name) || headers.len() < MOST_LINES {
            append(headers, name, item);
        }
    }
    let host = host.and_then(|host| HeaderValue::from_str(&host).ok());
    let proto = Some(HeaderValue::from_static("http"));
    for (name, value) in [(FORWARDED_HOST, host), (FORWARDED_PROTO, proto)] {
        if let Some(value) = value.filter(|_| headers.len() < MOST_LINES) {
            headers.entry(name).or_insert(value);
        }
    }
    Ok(())
}

/// Adds to a list, in the same line where there is one alone: many programs read no second line.
pub(super) fn append(headers: &mut HeaderMap, name: HeaderName, item: &str) {
    let mut lines = headers.get_all(&name).iter();
    let joined = match (lines.next(), lines.next()) {
        (Some(one), None) => [one.as_bytes(), b", ", item.as_bytes()].concat(),
        _ => item.as_bytes().to_vec(),
    };
    let several = headers.get_all(&name).iter().nth(1).is_some();
    let Ok(value) = HeaderValue::from_bytes(&joined) else {
        return;
    };
    if several {
        headers.append(name, value);
    } else {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[(&str, &str)], peer: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        add(&mut headers, &Uri::from_static("/"), peer.parse().unwrap()).unwrap();
        let shown = headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()));
        let mut shown: Vec<_> = shown.filter(|line| !line.starts_with("host:")).collect();
        shown.sort();
        shown
    }

    #[test]
    fn the_hop_is_added() {
        let first = after(&[("host", "web.shop:80")], "10.0.0.7:5000");
        assert_eq!(
            first,
            [
                "forwarded: for=10.0.0.7;host=\"web.shop:80\";proto=http;by=_kdev",
                "x-forwarded-for: 10.0.0.7",
                "x-forwarded-host: web.shop:80",
                "x-forwarded-proto: http",
            ]
        );
        let second = after(
            &[
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "shop.example"),
            ],
            "[::ffff:10.0.0.7]:5000",
        );
        assert_eq!(second[1], "x-forwarded-for: 1.2.3.4, 10.0.0.7");
        assert_eq!(second[2], "x-forwarded-host: shop.example");
        assert_eq!(second[3], "x-forwarded-proto: https");
        let sixth = after(&[("host", "a\"b")], "[fd00::7]:5000");
        assert_eq!(sixth[0], "forwarded: for=\"[fd00::7]\";proto=http;by=_kdev");
        let lines = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
        ];
        assert_eq!(after(&lines, "10.0.0.7:1").len(), 5);
    }

    #[test]
    fn one_with_many_headers_gets_no_more_than_servers_take() {
        let peer = "10.0.0.7:1".parse().unwrap();
        for (lines, after) in [(10, 14), (60, 64), (62, 64), (64, 64), (100, 100)] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("web"));
            for n in 1..lines {
                let name = format!("x-{n}").parse::<HeaderName>().unwrap();
                headers.insert(name, HeaderValue::from_static("1"));
            }
            add(&mut headers, &Uri::from_static("/"), peer).unwrap();
            assert_eq!(headers.len(), after, "{lines}");
        }
        // A line that is there already is made longer all the same.
        let mut headers = HeaderMap::new();
        for n in 0..99 {
            let name = format!("x-{n}").parse::<HeaderName>().unwrap();
            headers.insert(name, HeaderValue::from_static("1"));
        }
        headers.insert(FORWARDED_FOR, HeaderValue::from_static("1.2.3.4"));
        add(&mut headers, &Uri::from_static("/"), peer).unwrap();
        assert_eq!(headers.len(), 100);
        assert_eq!(headers[FORWARDED_FOR], "1.2.3.4, 10.0.0.7");
    }

    #[test]
    fn a_request_in_circles_ends() {
        let (mut headers, peer) = (HeaderMap::new(), "10.0.0.7:1".parse().unwrap());
        for _ in 0..MOST {
            add(&mut headers, &Uri::from_static("/"), peer).unwrap();
        }
        let failure = add(&mut headers, &Uri::from_static("/"), peer).unwrap_err();
        assert_eq!(failure.status, StatusCode::LOOP_DETECTED);
    }
}
