//! The wire forms of a port-forward, which one a cluster speaks, and how each is asked for.

use std::fmt;
use std::sync::Mutex;

use base64::Engine as _;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Method, Request};

use super::lock;
use super::websocket;
use crate::addr::Namespaced;
use crate::dial::DialError;
use crate::k8s::access;

/// How the bytes of a port-forward travel between kdev and the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// SPDY/3.1 inside a WebSocket (KEP-4006): servers from 1.31, and every proxy that lets
    /// WebSockets pass.
    Tunnel,
    /// SPDY/3.1 after an upgrade by POST: every server.
    Spdy,
    /// The same by GET, which asks for the verb `get` instead of `create`.
    SpdyGet,
    /// `v4.channel.k8s.io`: a WebSocket per stream.
    V4,
}

impl Form {
    /// All forms, the best first.
    pub const ALL: [Self; 4] = [Self::Tunnel, Self::Spdy, Self::SpdyGet, Self::V4];

    /// A short, stable name for files and `--json`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Tunnel => "websocket-spdy",
            Self::Spdy => "spdy",
            Self::SpdyGet => "spdy-get",
            Self::V4 => "websocket-v4",
        }
    }

    /// The form of an [`Form::id`].
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.id() == id)
    }

    /// The error for a 403 to this form in `namespace`, with the API server's `message`.
    #[must_use]
    pub fn denied(self, message: &str, namespace: &str) -> DialError {
        let (message, verb) = match access::is_unexplained(message) {
            true => (message.trim_end().trim_end_matches(':'), CREATE),
            false => (message, self.verb()),
        };
        access::denied(message, verb, "pods/portforward", namespace)
    }

    /// The RBAC verb on `pods/portforward` that the request is checked for. Servers from 1.35 ask
    /// for `create` whatever the method.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Spdy => CREATE,
            Self::Tunnel | Self::SpdyGet | Self::V4 => "get",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tunnel => "SPDY/3.1 in a WebSocket",
            Self::Spdy => "SPDY/3.1",
            Self::SpdyGet => "SPDY/3.1 by GET",
            Self::V4 => "v4.channel.k8s.io, a WebSocket per stream",
        })
    }
}

/// The verb that servers from 1.35 on check whatever the method.
pub(super) const CREATE: &str = "create";

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const SEC_WEBSOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const SEC_WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// The subprotocol of [`Form::Tunnel`].
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// The subprotocol of [`Form::V4`].
const V4_PROTOCOL: &str = "v4.channel.k8s.io";

/// A request for one form, and what its answer must hold.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) request: Request<()>,
    form: Form,
    accept: Option<String>,
}

impl Handshake {
    /// Asks for a port-forward to `pod`; `port` matters to [`Form::V4`] only.
    pub(super) fn new(form: Form, pod: &Namespaced, port: u16) -> Self {
        let Namespaced { namespace, name } = pod;
        let mut uri = format!("/api/v1/namespaces/{namespace}/pods/{name}/portforward");
        if form == Form::V4 {
            uri.push_str(&format!("?ports={port}"));
        }
        let mut request = Request::new(());
        // Names come from the API server, which admits DNS labels only.
        *request.uri_mut() = uri.parse().expect("object names are valid in a path");
        *request.method_mut() = if form == Form::Spdy {
            Method::POST
        } else {
            Method::GET
        };
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let accept = match form {
            Form::Spdy | Form::SpdyGet => {
                headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                headers.insert(
                    STREAM_PROTOCOL,
                    HeaderValue::from_static("portforward.k8s.io"),
                );
                None
            }
            Form::Tunnel | Form::V4 => {
                let protocol = if form == Form::Tunnel {
                    TUNNEL_PROTOCOL
                } else {
                    V4_PROTOCOL
                };
                let key =
                    base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
                let accept = websocket::accept_for(&key);
                let key = HeaderValue::try_from(key).expect("base64 is a valid header");
                headers.insert(SEC_WEBSOCKET_KEY, key);
                Some(accept)
            }
        };
        Self {
            request,
            form,
            accept,
        }
    }

    /// Whether a 101 with these headers is the answer to this request; what is wrong otherwise.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), String> {
        let Some(accept) = &self.accept else {
            return Ok(());
        };
        let value = |name| {
            headers
                .get(name)
                .and_then(|v: &HeaderValue| v.to_str().ok())
        };
        if value(SEC_WEBSOCKET_ACCEPT) != Some(accept) {
            return Err("the answer's Sec-WebSocket-Accept is wrong".to_owned());
        }
        match (self.form, value(SEC_WEBSOCKET_PROTOCOL)) {
            (Form::Tunnel, Some(TUNNEL_PROTOCOL)) | (Form::V4, Some(V4_PROTOCOL)) => Ok(()),
            (_, protocol) => Err(format!("the server chose the subprotocol {protocol:?}")),
        }
    }
}

/// Which form works with one cluster, and why not a better one.
#[derive(Debug, Default)]
pub struct KnownForm {
    state: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    form: Form,
    why: String,
    /// It worked in this session, not just in an earlier one.
    confirmed: bool,
}

impl KnownForm {
    /// Starts from what an earlier run found.
    #[must_use]
    pub fn remembered(form: Form) -> Self {
        Self {
            state: Mutex::new(Some(Known {
                form,
                why: "worked the last time".to_owned(),
                confirmed: false,
            })),
        }
    }

    /// Whether each stream needs a connection of its own.
    pub(super) fn is_single(&self) -> bool {
        lock(&self.state)
            .as_ref()
            .is_some_and(|known| known.form == Form::V4)
    }

    /// The form that works and why it was taken; `None` before the first connection.
    pub fn current(&self) -> Option<(Form, String)> {
        let state = lock(&self.state);
        state.as_ref().map(|known| (known.form, known.why.clone()))
    }

    /// The forms in the order in which to try them.
    pub(super) fn order(&self) -> Vec<Form> {
        let known = lock(&self.state).as_ref().map(|known| known.form);
        known
            .into_iter()
            .chain(Form::ALL.into_iter().filter(|form| Some(*form) != known))
            .collect()
    }

    /// Notes that `form` worked, after the others named in `refused` had not.
    ///
    /// A form that worked before in this session stays the known one: servers do not change, and
    /// what refused it this once will pass, while a worse form would stay for good.
    pub(super) fn worked(&self, form: Form, refused: &[(Form, String)]) {
        let mut state = lock(&self.state);
        if let Some(known) = state.as_mut() {
            if known.form == form {
                known.confirmed = true;
                return;
            }
            if known.confirmed {
                return;
            }
        }
        let why = match refused {
            [] => "the first choice".to_owned(),
            refused => refused
                .iter()
                .map(|(form, why)| format!("{}: {why}", form.id()))
                .collect::<Vec<_>>()
                .join("; "),
        };
        *state = Some(Known {
            form,
            why,
            confirmed: true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_that_worked_is_tried_first() {
        let known = KnownForm::default();
        assert_eq!(known.order(), Form::ALL);
        known.worked(
            Form::SpdyGet,
            &[(Form::Tunnel, "403".into()), (Form::Spdy, "no".into())],
        );
        assert_eq!(
            known.order(),
            [Form::SpdyGet, Form::Tunnel, Form::Spdy, Form::V4]
        );
        let (form, why) = known.current().unwrap();
        assert_eq!(
            (form, why.as_str()),
            (Form::SpdyGet, "websocket-spdy: 403; spdy: no")
        );
    }

    #[test]
    fn one_refusal_costs_no_form_that_worked() {
        let known = KnownForm::remembered(Form::Tunnel);
        // What an earlier run knew may be over.
        known.worked(Form::Spdy, &[(Form::Tunnel, "403".into())]);
        assert_eq!(known.current().unwrap().0, Form::Spdy);
        known.worked(Form::V4, &[(Form::Spdy, "404".into())]);
        assert_eq!(known.current().unwrap().0, Form::Spdy);
    }

    #[test]
    fn a_denial_names_the_verb_that_is_missing() {
        let verb = |form: Form, message: &str| match form.denied(message, "shop") {
            DialError::Denied { verb, .. } => verb,
            other => other.to_string(),
        };
        // The words of 1.37 to who may `get` alone, by GET.
        let own = "pods \"web-0\" is forbidden: ";
        assert_eq!(verb(Form::Tunnel, own), "create");
        let rbac = "pods \"web-0\" is forbidden: User \"dev\" cannot get resource \
                    \"pods/portforward\" in API group \"\" in the namespace \"shop\"";
        assert_eq!(verb(Form::Tunnel, rbac), "get");
        assert_eq!(verb(Form::V4, "a webhook says no"), "get");
    }

    #[test]
    fn ids_round_trip() {
        for form in Form::ALL {
            assert_eq!(Form::from_id(form.id()), Some(form));
        }
        assert_eq!(Form::from_id("carrier-pigeon"), None);
    }

    #[test]
    fn a_websocket_answer_is_checked() {
        let handshake = Handshake::new(Form::Tunnel, &Namespaced::new("shop", "web-0"), 80);
        assert_eq!(
            handshake.request.uri(),
            "/api/v1/namespaces/shop/pods/web-0/portforward"
        );
        let key = handshake.request.headers()[SEC_WEBSOCKET_KEY]
            .to_str()
            .unwrap();
        let mut answer = HeaderMap::new();
        assert!(handshake.check(&answer).is_err());
        answer.insert(
            SEC_WEBSOCKET_ACCEPT,
            websocket::accept_for(key).parse().unwrap(),
        );
        assert!(handshake.check(&answer).is_err());
        answer.insert(SEC_WEBSOCKET_PROTOCOL, TUNNEL_PROTOCOL.parse().unwrap());
        handshake.check(&answer).unwrap();
    }
}
