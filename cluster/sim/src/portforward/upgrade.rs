//! Which form a request asks for, and what is answered before the bytes begin.

use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Response, StatusCode};

use super::v4::Coding;
use super::ws;
use crate::api::query::Query;
use crate::http::{self, Answer, Body, Failure};
use crate::options::Habits;

const SPDY: &str = "SPDY/3.1";
const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL_PREFIX: &str = "SPDY/3.1+";
const TUNNEL_SUFFIX: &str = ".k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const WS_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// A form that both sides can speak.
pub(super) enum Accepted {
    Spdy,
    Tunnel {
        key: String,
    },
    V4 {
        key: String,
        protocol: &'static str,
        coding: Coding,
        ports: Vec<u16>,
    },
}

/// Decides the form. The outer error is the API server's (a Status), the inner one comes from
/// further down the road and is no Status.
pub(super) fn negotiate(
    headers: &HeaderMap,
    query: &Query,
    habits: &Habits,
) -> Result<Result<Accepted, Answer>, Failure> {
    let connection = tokens(headers, &CONNECTION);
    if !connection
        .iter()
        .any(|token| token.to_ascii_lowercase().contains("upgrade"))
    {
        return Err(Failure::bad_request("Upgrade request required"));
    }
    let upgrade = tokens(headers, &UPGRADE);
    if upgrade
        .iter()
        .any(|token| token.eq_ignore_ascii_case("websocket"))
    {
        return websocket(headers, query, habits);
    }
    if !habits.spdy {
        // A proxy that drops the header leaves the API server with a plain request.
        return Err(Failure::bad_request("Upgrade request required"));
    }
    let is_spdy = upgrade
        .iter()
        .any(|token| token.to_ascii_lowercase().contains("spdy/3.1"));
    if !is_spdy {
        let text = "unable to upgrade: missing upgrade headers in request\n";
        return Ok(Err(http::text(StatusCode::BAD_REQUEST, text)));
    }
    if !headers.contains_key(&STREAM_PROTOCOL) {
        let text = format!(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with \
             {} headers\n",
            headers.len()
        );
        return Ok(Err(http::text(StatusCode::BAD_REQUEST, &text)));
    }
    let offered = tokens(headers, &STREAM_PROTOCOL);
    if offered.contains(&PROTOCOL) {
        Ok(Ok(Accepted::Spdy))
    } else {
        Ok(Err(unknown(&offered)))
    }
}

fn websocket(
    headers: &HeaderMap,
    query: &Query,
    habits: &Habits,
) -> Result<Result<Accepted, Answer>, Failure> {
    let offered = tokens(headers, &WS_PROTOCOL);
    let key = headers
        .get(&WS_KEY)
        .and_then(|key| key.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let usable = !key.is_empty() && headers.get(&WS_VERSION).is_some_and(|v| v == "13");
    let tunnelled: Vec<&str> = offered
        .iter()
        .filter_map(|protocol| protocol.strip_prefix(TUNNEL_PREFIX))
        .filter(|protocol| protocol.ends_with(TUNNEL_SUFFIX))
        .collect();
    if habits.tunnel && !tunnelled.is_empty() {
        return Ok(match (tunnelled.contains(&PROTOCOL), usable) {
            (false, _) => Err(unknown(&tunnelled)),
            (true, false) => Err(http::text(StatusCode::BAD_REQUEST, "Bad Request\n")),
            (true, true) => Ok(Accepted::Tunnel { key }),
        });
    }
    let ports = match ports(query)? {
        Ok(ports) => ports,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let chosen = if offered.is_empty() {
        Some(("", Coding::Binary))
    } else {
        offered.iter().find_map(|protocol| match *protocol {
            V4 => Some((V4, Coding::Binary)),
            V4_BASE64 => Some((V4_BASE64, Coding::Base64)),
            _ => None,
        })
    };
    Ok(match chosen {
        Some((protocol, coding)) if habits.v4 && usable => Ok(Accepted::V4 {
            key,
            protocol,
            coding,
            ports,
        }),
        Some(_) if habits.v4 => Err(hung_up(StatusCode::BAD_REQUEST)),
        _ => Err(hung_up(StatusCode::FORBIDDEN)),
    })
}

/// The ports of a v4 request: a list, repeated, or both. What is no number fails in the API
/// server, the rest in the kubelet, which answers in plain text.
fn ports(query: &Query) -> Result<Result<Vec<u16>, Answer>, Failure> {
    let mut ports = Vec::new();
    for port in query.all("ports").flat_map(|list| list.split(',')) {
        let number: u16 = port.parse().map_err(|_| {
            Failure::bad_request(format!(
                "cannot convert to []int32: strconv.ParseUint: parsing \"{port}\": invalid syntax"
            ))
        })?;
        if number == 0 {
            let text = "port \"0\" must be > 0";
            return Ok(Err(http::text(StatusCode::BAD_REQUEST, text)));
        }
        ports.push(number);
    }
    if ports.is_empty() {
        let text = "query parameter \"port\" is required";
        return Ok(Err(http::text(StatusCode::BAD_REQUEST, text)));
    }
    Ok(Ok(ports))
}

/// How the runtime's WebSocket library refuses: no body, no type, connection closed.
fn hung_up(code: StatusCode) -> Answer {
    let mut answer = http::bare(code);
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn unknown(offered: &[&str]) -> Answer {
    let text = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts \
         [{PROTOCOL}]\n",
        offered.join(" ")
    );
    let mut answer = http::text(StatusCode::FORBIDDEN, &text);
    answer
        .headers_mut()
        .insert(ACCEPTED_PROTOCOLS, HeaderValue::from_static(PROTOCOL));
    answer
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let tokens = values.flat_map(|value| value.split(',')).map(str::trim);
    tokens.filter(|token| !token.is_empty()).collect()
}

impl Accepted {
    /// The 101 that starts the bytes.
    pub(super) fn answer(&self) -> Answer {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::Spdy => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(PROTOCOL));
            }
            Self::Tunnel { key } => {
                websocket_headers(headers, key);
                let protocol = HeaderValue::from_static("SPDY/3.1+portforward.k8s.io");
                headers.insert(WS_PROTOCOL, protocol);
            }
            Self::V4 { key, protocol, .. } => {
                websocket_headers(headers, key);
                // Present and empty when the client offered none.
                headers.insert(WS_PROTOCOL, HeaderValue::from_static(protocol));
            }
        }
        answer
    }
}

fn websocket_headers(headers: &mut HeaderMap, key: &str) {
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&ws::accept(key)) {
        headers.insert(WS_ACCEPT, accept);
    }
}
