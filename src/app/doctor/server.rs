//! The API server: its name, TCP, TLS, HTTP, and whether it knows the user.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::board::{Board, Section};
use super::check::Check;
use super::{CLUSTER_LIMIT, millis, within};
use crate::k8s::access::{self, Permission};
use crate::k8s::identity::{ANONYMOUS, Identity, whoami};
use crate::k8s::kubeconfig::Loaded;
use crate::k8s::{Client, ClientError, KubeOptions, discovery};
use crate::task::Tasks;

/// How long the look-up of the server's name may take.
const DNS_LIMIT: Duration = Duration::from_secs(4);
/// How long a TCP connection may take: three lost packets at the start, which are sent again
/// after 1 s and 2 s.
const TCP_LIMIT: Duration = Duration::from_secs(4);
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
    loaded: &Loaded,
    board: &Board<'_>,
    tasks: &Tasks,
) -> Result<Reached, &'static str> {
    let show = |server: Check, login: Check| {
        board.put(Section::ApiServer, vec![server]);
        board.put(Section::Login, vec![login]);
    };
    let connected = match connect(loaded).await {
        Ok(connected) => connected,
        Err(check) => {
            show(check, skipped_login(UNREACHED));
            return Err(UNREACHED);
        }
    };
    let client = match Client::connect(options.clone(), tasks).await {
        Ok(client) => client,
        Err(error) => {
            let reached = format!("{connected}; not asked, since there are no credentials");
            let server = Check::ok(SERVER.0, SERVER.1, reached).needed();
            show(server, failure(LOGIN, &error, loaded));
            return Err("the credentials cannot be used");
        }
    };
    let until = Instant::now() + CLUSTER_LIMIT;
    let answer = within(ANSWER_LIMIT, until, discovery::version(&client)).await;
    let answer = answer.unwrap_or_else(|_| Err(silent(&client)));
    let reached = match &answer {
        Ok(version) => format!("{} at {connected}", version.git_version),
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
    let login = match answer {
        Err(error @ ClientError::Unauthorized { .. }) => Err(error),
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
        until,
    })
}

/// Looks the name up and opens a TCP connection, where no proxy does both. Gives what to show.
async fn connect(loaded: &Loaded) -> Result<String, Check> {
    let server = &loaded.server;
    if let Some(proxy) = loaded.proxy() {
        return Ok(format!("{server}, through the proxy {proxy}"));
    }
    let host = server.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let plain = server.scheme_str() == Some("http");
    let port = server.port_u16().unwrap_or(if plain { 80 } else { 443 });
    let addresses = look_up(host, port).await?;
    let began = Instant::now();
    let dial = tokio::time::timeout(TCP_LIMIT, TcpStream::connect(&*addresses));
    let address = match dial.await {
        Ok(Ok(stream)) => stream.peer_addr().ok(),
        Ok(Err(error)) => return Err(no_tcp(server, &addresses, &error)),
        Err(_) => {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            return Err(no_tcp(server, &addresses, &error));
        }
    };
    let took = millis(began.elapsed());
    let address = address.map_or_else(String::new, |a| format!("{} ", a.ip()));
    Ok(format!("{server} ({address}connected in {took})"))
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, Check> {
    let unknown = |reason: &str| {
        Check::fail(
            SERVER.0,
            SERVER.1,
            format!("this machine cannot resolve the API server's name {host}: {reason}"),
        )
        .fix("is the VPN up? Otherwise correct `server` of the cluster in the kubeconfig")
    };
    let asked = tokio::time::timeout(DNS_LIMIT, tokio::net::lookup_host((host, port))).await;
    match asked {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                Err(unknown("it has no address"))
            } else {
                Ok(found)
            }
        }
        Ok(Err(error)) => Err(unknown(&error.to_string())),
        Err(_) => Err(unknown(&format!(
            "no answer within {} s",
            DNS_LIMIT.as_secs()
        ))),
    }
}

fn no_tcp(server: &hyper::Uri, addresses: &[SocketAddr], error: &io::Error) -> Check {
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let (reason, fix) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            "nothing listens there".to_owned(),
            "start the cluster (kind, minikube, k3d, Docker Desktop: is it running?), or correct \
             `server` of the cluster in the kubeconfig",
        ),
        io::ErrorKind::TimedOut => (
            format!("no connection within {} s", TCP_LIMIT.as_secs()),
            "is the VPN up? A firewall drops it otherwise; where only a proxy leads out, set \
             proxy-url in the kubeconfig or HTTPS_PROXY",
        ),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            (error.to_string(), "is this machine online, and the VPN up?")
        }
        _ => (error.to_string(), "is the VPN up?"),
    };
    let detail = format!(
        "no TCP connection to {server} ({}): {reason}",
        shown.join(", ")
    );
    Check::fail(SERVER.0, SERVER.1, detail).fix(fix)
}

/// Asks who the user is. Servers that cannot say are asked what only somebody may ask.
async fn log_in(client: &Client) -> Result<Option<Identity>, ClientError> {
    if let Some(identity) = whoami(client).await? {
        return Ok(Some(identity));
    }
    let any = Permission::core("get", "pods", client.namespace());
    match access::review(client, vec![any]).await.pop() {
        Some(Err(ClientError::Status {
            code: 403, message, ..
        })) if message.contains(ANONYMOUS) => Ok(Some(Identity {
            username: ANONYMOUS.to_owned(),
            groups: Vec::new(),
        })),
        // A server that keeps reviews from its users knows them all the same.
        Some(Err(error)) if error.code() != Some(403) => Err(error),
        _ => Ok(None),
    }
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

/// A time of minutes to years.
fn span(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
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
        ClientError::Plugin(_) | ClientError::Credentials { .. } | ClientError::Kubeconfig(_)
    )
}

fn failure((id, title): (&str, &str), error: &ClientError, loaded: &Loaded) -> Check {
    let text = error.to_string();
    let fix = match error {
        ClientError::Kubeconfig(_) | ClientError::Credentials { .. } => {
            "log in again, or get a new kubeconfig".to_owned()
        }
        ClientError::Plugin(_) => match loaded.plugin() {
            Some(plugin) => format!("log in again; `{plugin}` by hand shows what it wants"),
            None => "log in again".to_owned(),
        },
        ClientError::Unreachable { .. } if loaded.proxy().is_some() => {
            "is the proxy right? NO_PROXY with the server's host goes past it".to_owned()
        }
        ClientError::Unreachable { .. } => {
            "something accepts connections there and is no API server, or one that is overloaded: \
             `kubectl version` should say the same"
                .to_owned()
        }
        ClientError::Certificate {
            reason,
            fix,
            server,
        } => {
            let detail = format!("no trust between kdev and {server}: {reason}");
            return Check::fail(id, title, detail).fix(fix);
        }
        ClientError::Unauthorized { context, user, .. } => {
            return refused(id, title, context, user, loaded);
        }
        ClientError::Status { code: 500.., .. } => {
            "the API server is there and not well: tell whoever runs the cluster".to_owned()
        }
        ClientError::Status { .. } | ClientError::Answer { .. } => {
            "is `server` in the kubeconfig a Kubernetes API server? A login page of a proxy \
             answers like this"
                .to_owned()
        }
    };
    Check::fail(id, title, text).fix(fix)
}

/// A 401, with the reason that the credentials themselves give.
fn refused(id: &str, title: &str, context: &str, user: &str, loaded: &Loaded) -> Check {
    let mut detail = format!(
        "the API server does not accept the credentials of user {user:?} (context {context:?})"
    );
    let ended = loaded
        .expires()
        .and_then(|end| SystemTime::now().duration_since(end).ok());
    if let Some(ago) = ended {
        detail.push_str(&format!(": they expired {} ago", span(ago)));
    }
    let fix = match loaded.plugin() {
        Some(plugin) => format!("log in again with what {plugin} belongs to"),
        None if ended.is_some() => "get a new kubeconfig, or a new token for it".to_owned(),
        None => "log in again, get a new kubeconfig, or choose another context".to_owned(),
    };
    Check::fail(id, title, detail).fix(fix)
}
