//! The API server: its name, TCP, TLS, HTTP, and whether it knows the user.

mod explain;
mod tcp;

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub(super) use self::explain::proxy_fix;
use self::explain::{failure, span};
use super::board::{Board, Section};
use super::check::Check;
use super::{BUSY_LIMIT, CLUSTER_LIMIT, within};
use crate::k8s::access::{self, Permission};
use crate::k8s::discovery::{self, Version, refuses_impersonation};
use crate::k8s::identity::{ANONYMOUS, Identity, whoami};
use crate::k8s::kubeconfig::{Environment, Loaded};
use crate::k8s::{Client, ClientError, KubeOptions};
use crate::task::Tasks;

/// How long the first answer may take, TLS included.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

const SERVER: (&str, &str) = ("api-server", "API server");
const LOGIN: (&str, &str) = ("login", "credentials");

/// Why the rest is skipped.
const UNREACHED: &str = "the API server cannot be reached";
const UNKNOWN_USER: &str = "the credentials are not accepted";

/// A cluster that answers.
pub(super) struct Reached {
    pub(super) client: Client,
    /// Who the user is, where the server says it.
    pub(super) identity: Option<Identity>,
    /// The minor number of its version, where it tells it.
    pub(super) minor: Option<u32>,
    /// When all questions to the cluster must have ended.
    pub(super) until: Instant,
}

pub(super) fn skipped_server(why: &str) -> Check {
    Check::skipped(SERVER.0, SERVER.1, why).needed()
}

pub(super) fn skipped_login(why: &str) -> Check {
    Check::skipped(LOGIN.0, LOGIN.1, why).needed()
}

/// Goes to the API server step by step; the error says why the rest is skipped.
pub(super) async fn reach(
    options: &KubeOptions,
    environment: &Environment,
    loaded: &Loaded,
    board: &Board,
    tasks: &Tasks,
) -> Result<Reached, &'static str> {
    let show = |server: Check, login: Check| {
        board.put(Section::ApiServer, vec![server]);
        board.put(Section::Login, vec![login]);
    };
    let connected = match tcp::connect(loaded).await {
        Ok(connected) => connected,
        Err(check) => {
            show(check, skipped_login(UNREACHED));
            return Err(UNREACHED);
        }
    };
    let client = Client::connect_in(options.clone(), environment.clone(), tasks);
    let client = match client.await {
        Ok(client) => client,
        Err(error) => {
            let reached = format!("{connected}; not asked, since there are no credentials");
            let server = Check::ok(SERVER.0, SERVER.1, reached).needed();
            show(server, failure(LOGIN, &error, loaded));
            return Err("the credentials cannot be used");
        }
    };
    let client = client.patient_for(BUSY_LIMIT);
    let until = Instant::now() + CLUSTER_LIMIT;
    let answer = within(ANSWER_LIMIT, until, discovery::version(&client)).await;
    let answer = answer.unwrap_or_else(|_| Err(silent(&client)));
    let reached = match &answer {
        Ok(Some(version)) => format!("{} at {connected}", version.git_version),
        Ok(None) => format!("{connected}; it does not tell its version to this user"),
        // It is there, and speaks Kubernetes.
        Err(ClientError::Unauthorized { .. } | ClientError::Status { code: 403, .. }) => connected,
        Err(error) if is_login(error) => {
            show(
                Check::ok(SERVER.0, SERVER.1, connected).needed(),
                failure(LOGIN, error, loaded),
            );
            return Err("the credentials cannot be used");
        }
        Err(error) => {
            show(failure(SERVER, error, loaded), skipped_login(UNREACHED));
            return Err(UNREACHED);
        }
    };
    board.put(
        Section::ApiServer,
        vec![Check::ok(SERVER.0, SERVER.1, reached).needed()],
    );
    let version = answer.as_ref().ok().and_then(Option::as_ref);
    let minor = version.and_then(Version::minor);
    let login = match answer {
        Err(error @ ClientError::Unauthorized { .. }) => Err(error),
        // Who may not act as somebody else may do nothing in their name.
        Err(error) if refuses_impersonation(&error) => Err(error),
        _ => within(ANSWER_LIMIT, until, log_in(&client))
            .await
            .unwrap_or_else(|_| Err(silent(&client))),
    };
    let (check, result) = match login {
        Ok(identity) if identity.as_ref().is_some_and(|i| i.username == ANONYMOUS) => (
            Check::fail(
                LOGIN.0,
                LOGIN.1,
                format!(
                    "the API server sees nobody ({ANONYMOUS}): user {:?} of the kubeconfig \
                     carries no credentials",
                    loaded.user
                ),
            )
            .fix("log in, or get a kubeconfig with a token, a certificate or a plugin"),
            Err(UNKNOWN_USER),
        ),
        Ok(identity) => (
            Check::ok(LOGIN.0, LOGIN.1, accepted(identity.as_ref(), loaded)).needed(),
            Ok(identity),
        ),
        Err(error) => (failure(LOGIN, &error, loaded), Err(UNKNOWN_USER)),
    };
    board.put(Section::Login, vec![check]);
    Ok(Reached {
        client,
        identity: result?,
        minor,
        until,
    })
}

/// Asks who the user is. Servers that cannot say are asked what only somebody may ask. One that
/// answers neither question to this user knows them all the same.
async fn log_in(client: &Client) -> Result<Option<Identity>, ClientError> {
    match whoami(client).await {
        Ok(Some(identity)) => return Ok(Some(identity)),
        Err(error) if !is_answer(&error) => return Err(error),
        Ok(None) | Err(_) => {}
    }
    let any = Permission::core("get", "pods", client.namespace());
    match access::review(client, vec![any]).await.pop() {
        Some(Err(ClientError::Status {
            code: 403, message, ..
        })) if message.contains(ANONYMOUS) => Ok(Some(Identity {
            username: ANONYMOUS.to_owned(),
            groups: Vec::new(),
        })),
        Some(Err(error)) if !is_answer(&error) => Err(error),
        _ => Ok(None),
    }
}

/// Whether an API server that knows the user said it.
fn is_answer(error: &ClientError) -> bool {
    matches!(error, ClientError::Status { .. } | ClientError::Busy { .. })
}

fn accepted(identity: Option<&Identity>, loaded: &Loaded) -> String {
    let mut text = match identity {
        Some(identity) => format!("accepted, as {}", identity.username),
        None => "accepted".to_owned(),
    };
    if let Some(left) = left(loaded) {
        text.push_str(&format!("; they end in {}", span(left)));
    }
    text
}

fn left(loaded: &Loaded) -> Option<Duration> {
    loaded.expires()?.duration_since(SystemTime::now()).ok()
}

fn silent(client: &Client) -> ClientError {
    ClientError::Unreachable {
        server: client.server().to_owned(),
        reason: format!("it did not answer within {} s", ANSWER_LIMIT.as_secs()),
    }
}

/// Whether `error` is about the user rather than about the server.
fn is_login(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Plugin(_)
            | ClientError::Login(_)
            | ClientError::Credentials { .. }
            | ClientError::Kubeconfig(_)
    )
}
