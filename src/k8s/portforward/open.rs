//! Making one connection: the forms are tried in order until one works.

use std::sync::Arc;

use super::connection::Connection;
use super::counters::Counters;
use super::form::{CREATE, Form, Handshake, KnownForm};
use super::outgoing::Framing;
use super::stream::PodStream;
use crate::dial::{DialError, PodPort};
use crate::k8s::{Client, UpgradeError};
use crate::task::Tasks;

/// What a kubelet answers that does not know a pod (`getPortForward` in its server.go).
const KUBELET_KNOWS_NO_POD: &str = "pod does not exist";

/// What a successful attempt gives.
pub(super) enum Opened {
    /// A connection that takes many streams.
    Connection(Connection),
    /// With [`Form::V4`], the stream itself.
    Stream(PodStream),
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub(super) struct OpenError {
    pub(super) error: DialError,
    /// Whether the same attempt may succeed in a moment.
    pub(super) passing: bool,
    /// Whether the API server asked to wait for longer than a dial does.
    pub(super) busy: bool,
}

impl OpenError {
    /// What another attempt will not mend.
    pub(super) fn lasting(error: DialError) -> Self {
        Self {
            error,
            passing: false,
            busy: false,
        }
    }
}

/// Connects to the pod of `at` by the first of `forms` that works, and which that was.
pub(super) async fn open(
    client: &Client,
    known: &KnownForm,
    forms: &[Form],
    at: &PodPort,
    target: &str,
    counters: &Arc<Counters>,
    tasks: &Tasks,
) -> Result<(Opened, Form), OpenError> {
    let mut refused = Vec::new();
    let mut denied = None;
    // What the API server denied: other forms that ask for the same are denied too.
    let mut verbs: Vec<String> = Vec::new();
    for form in known
        .order()
        .into_iter()
        .filter(|form| forms.contains(form))
    {
        if verbs.iter().any(|verb| verb == form.verb()) {
            continue;
        }
        let handshake = Handshake::new(form, &at.pod, at.port);
        let why = match client.upgrade(handshake.request.clone()).await {
            Ok(upgrade) => match handshake.check(&upgrade.headers) {
                Ok(()) => {
                    tracing::debug!(pod = %at.pod, %form, "connected");
                    // Where better forms were left out, it says nothing about the cluster.
                    if form != Form::V4 || forms.len() == Form::ALL.len() {
                        known.worked(form, &refused);
                    }
                    let opened = start(form, upgrade.io, target, counters.clone(), tasks);
                    return Ok((opened, form));
                }
                Err(why) => why,
            },
            Err(error) => {
                if let Some(end) = judge(&error, at, target) {
                    return Err(end);
                }
                if let UpgradeError::Status {
                    code: 403, message, ..
                } = &error
                {
                    let namespace = &at.pod.namespace;
                    let error = form.denied(message, namespace);
                    if let DialError::Denied { verb, .. } = &error {
                        // A server that asks for `create` on GET does so in every form.
                        if verb == CREATE && form.verb() != CREATE {
                            verbs.extend(forms.iter().map(|form| form.verb().to_owned()));
                        }
                        verbs.push(verb.clone());
                    }
                    denied.get_or_insert(error);
                }
                error.to_string()
            }
        };
        tracing::debug!(pod = %at.pod, %form, why, "form refused");
        refused.push((form, why));
    }
    // A missing permission is what the user can do something about.
    let error = denied.unwrap_or_else(|| no_form(target, &refused));
    Err(OpenError::lasting(error))
}

/// Speaks `form` over an upgraded `io`.
pub(super) fn start<T>(
    form: Form,
    io: T,
    target: &str,
    counters: Arc<Counters>,
    tasks: &Tasks,
) -> Opened
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    let framing = match form {
        Form::Tunnel => Framing::WebSocket,
        Form::Spdy | Form::SpdyGet => Framing::Plain,
        Form::V4 => return Opened::Stream(Connection::start_v4(io, target, counters, tasks)),
    };
    Opened::Connection(Connection::start(io, framing, counters, tasks))
}

/// Whether a refusal ends the attempt, since no other form would do better.
fn judge(refusal: &UpgradeError, at: &PodPort, target: &str) -> Option<OpenError> {
    let end = |error, passing| {
        Some(OpenError {
            error,
            passing,
            busy: matches!(refusal, UpgradeError::Busy(_)),
        })
    };
    match refusal {
        UpgradeError::Network(reason) => end(
            DialError::Cluster {
                reason: reason.clone(),
                fix: String::new(),
            },
            true,
        ),
        // The API server's own word, whichever pod it is.
        UpgradeError::Busy(reason) => end(
            DialError::Cluster {
                reason: reason.clone(),
                fix: String::new(),
            },
            true,
        ),
        UpgradeError::Credentials(reason) => end(
            DialError::Cluster {
                reason: reason.clone(),
                fix: String::new(),
            },
            false,
        ),
        UpgradeError::Status { code: 404, .. } => end(
            DialError::NotFound {
                what: format!("pod {} in namespace {}", at.pod.name, at.pod.namespace),
                fix: String::new(),
            },
            true,
        ),
        // The API server is there and its way to the node is not: the kubelet restarts, or the
        // node is gone.
        UpgradeError::Status { code, message, .. } if *code == 429 || *code >= 500 => end(
            DialError::Unreachable {
                target: target.to_owned(),
                reason: message.clone(),
                fix: String::new(),
            },
            true,
        ),
        UpgradeError::Bare { code, text } if matches!(code, 429 | 500 | 502 | 503 | 504) => end(
            DialError::Unreachable {
                target: target.to_owned(),
                reason: format!("the upgrade was answered {code} {text}")
                    .trim_end()
                    .to_owned(),
                fix: String::new(),
            },
            true,
        ),
        // The kubelet's words. One that has just started does not know its pods yet, and would
        // refuse every form alike.
        UpgradeError::Bare { code: 404, text } if text.contains(KUBELET_KNOWS_NO_POD) => end(
            DialError::NotFound {
                what: format!(
                    "pod {} in namespace {}, by its node,",
                    at.pod.name, at.pod.namespace
                ),
                fix: String::new(),
            },
            true,
        ),
        // 400, 403, 405, 426 and the like: this form is not for this server or this user.
        UpgradeError::Status { .. } | UpgradeError::Bare { .. } => None,
    }
}

fn no_form(target: &str, refused: &[(Form, String)]) -> DialError {
    let answers: Vec<_> = refused
        .iter()
        .map(|(form, why)| format!("{}: {why}", form.id()))
        .collect();
    DialError::Unreachable {
        target: target.to_owned(),
        reason: format!(
            "the API server forwards no port in any form that kdev speaks ({})",
            answers.join("; ")
        ),
        fix: "`kdev doctor` tries each form and shows the answers".to_owned(),
    }
}
