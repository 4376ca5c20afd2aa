//! The sessions of this machine. Each listens on a socket in a folder that only its user may
//! enter, and answers whoever connects with one JSON document; a dead session's socket refuses,
//! and is swept away by the next look. Whoever stays is told of its connections, a [`Line`] of JSON
//! each: of failures, and after [`ASK_CONNECTIONS`] of all.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::feed::{Feed, Line};
use crate::task::Tasks;

/// How long a session may take to answer. It only formats counters.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer that is read.
const MAX_ANSWER: u64 = 1 << 20;
/// Commands that use one session at a time: each holds a file descriptor of it.
const MAX_LEASES: usize = 256;
/// Longest line that a session may say to a command which uses it.
pub(super) const MAX_LINE: usize = 32 << 10;
/// Asks a session to tell of each connection.
const ASK_CONNECTIONS: u8 = b'c';
/// Asks it what it has to tell until now, which [`Line::UntilNow`] ends.
const ASK_UNTIL_NOW: u8 = b'n';

/// What a session tells about itself.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Report {
    /// The process.
    pub pid: u32,
    /// The kdev command, for example `run`.
    pub command: String,
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// The kubeconfig's context.
    pub context: String,
    /// The API server's address.
    pub server: String,
    /// The namespace of bare Service names.
    pub namespace: String,
    /// How streams travel: the wire form of the port-forward, or `null` before the first one.
    pub transport: Option<String>,
    /// Why this form and no better one.
    pub transport_why: Option<String>,
    /// The relay; `null` where the session goes without one.
    #[serde(default)]
    pub relay: Option<RelayReport>,
    /// Addresses that it listens on, with what they are for.
    pub listening: Vec<Listening>,
    /// What it intercepts.
    #[serde(default)]
    pub intercepts: Vec<InterceptReport>,
    /// Connections of apps that are open.
    pub app_connections: u64,
    /// Connections of apps since it began, those that it refused included; `null` where others serve
    /// them.
    #[serde(default)]
    pub app_connections_total: Option<u64>,
    /// Streams into the cluster that are open.
    pub streams: usize,
    /// Streams into the cluster since it began.
    pub streams_total: u64,
    /// Connections to the API server that carry them.
    pub connections: usize,
    /// Bytes sent into the cluster.
    pub bytes_sent: u64,
    /// Bytes received from the cluster.
    pub bytes_received: u64,
    /// The newest round trip to the cluster, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// What it lends to other commands, for `connect`.
    pub lends: Option<Lends>,
    /// The process whose session it uses in place of one of its own.
    pub uses: Option<u32>,
}

/// What a session tells about its relay.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct RelayReport {
    /// Replicas that are ready.
    pub replicas: usize,
    /// Those of them that have a tunnel which takes streams.
    pub connected: usize,
    /// Why there is no tunnel, where there is none.
    pub trouble: Option<String>,
    /// The tunnels.
    pub tunnels: Vec<TunnelReport>,
}

/// What a session tells about one intercept.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct InterceptReport {
    /// The claim.
    pub id: String,
    /// The Service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// Its port.
    pub port: u16,
    /// Which requests.
    pub conditions: String,
    /// Whether the app gets copies.
    pub mirror: bool,
    /// The app.
    pub app: String,
    /// How many requests it was told of.
    pub requests: u64,
}

/// What a session tells about one tunnel.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct TunnelReport {
    /// The relay's pod.
    pub replica: String,
    /// How it travels.
    pub carrier: String,
    /// The version of the relay.
    pub version: String,
    /// When it was opened, in seconds since 1970.
    pub since: u64,
    /// `open`, `silent` or `draining`.
    pub state: String,
    /// Streams that are open.
    pub streams: usize,
    /// Whether bulk moves through it.
    pub bulk: bool,
    /// The newest round trip, in milliseconds.
    pub round_trip_ms: Option<f64>,
}

/// A session that other commands may use.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Lends {
    /// Equal for sessions that do the same: see `app::share`.
    pub key: String,
    /// Where its proxy for this user's programs listens.
    pub proxy: SocketAddr,
    /// The cluster's DNS domain.
    pub domain: String,
}

/// A session that answered, and tells what it says until its end.
#[derive(Debug)]
pub struct Lease {
    /// What it said.
    pub report: Report,
    stream: BufReader<UnixStream>,
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl Lease {
    /// What the session says of itself now; `None` where it does not answer.
    pub async fn look(&self) -> Option<Report> {
        let path = folder().ok()?.join(format!("{}.sock", self.report.pid));
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask(&path)).await;
        Some(answer.ok()?.ok()?.report)
    }

    /// Has the session tell of each connection, from now on.
    pub async fn show_connections(&mut self) {
        // One that is gone is noticed by its silence.
        let _ = self.stream.write_all(&[ASK_CONNECTIONS]).await;
    }

    /// What the session has to tell until now; nothing, where that takes longer than `limit`.
    pub async fn until_now(&mut self, limit: Duration) -> Vec<Line> {
        let mut told = Vec::new();
        let asked = async {
            self.stream.write_all(&[ASK_UNTIL_NOW]).await.ok()?;
            loop {
                match self.next().await? {
                    Line::UntilNow => return Some(()),
                    line => told.push(line),
                }
            }
        };
        // What came in time is worth telling all the same.
        let _ = tokio::time::timeout(limit, asked).await;
        told
    }

    /// What the session tells next, or `None` once it has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Line> {
        loop {
            let read = self
                .stream
                .fill_buf()
                .await
                .ok()
                .filter(|b| !b.is_empty())?;
            let end = read.iter().position(|b| *b == b'\n');
            let part = &read[..end.unwrap_or(read.len())];
            let room = MAX_LINE.saturating_sub(self.begun.len());
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.stream.consume(used);
            if end.is_some() {
                let line = std::mem::take(&mut self.begun);
                // What this version does not know is left out.
                if let Ok(line) = serde_json::from_slice(&line) {
                    return Some(line);
                }
            }
        }
    }
}

/// A session that was found.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(untagged)]
pub enum Found {
    /// What it says of itself.
    Answers(Box<Report>),
    /// It is alive and says nothing: stopped, or too busy.
    Silent {
        /// The process.
        pid: u32,
        /// Always true; tells the two apart in JSON.
        silent: bool,
    },
}

impl Found {
    /// By age; those that do not say come last.
    fn order(&self) -> (u64, u32) {
        match self {
            Self::Answers(report) => (report.since, report.pid),
            Self::Silent { pid, .. } => (u64::MAX, *pid),
        }
    }
}

/// One address of a session.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Listening {
    /// What it is for, for example `proxy`.
    pub purpose: String,
    /// The address.
    pub address: String,
    /// Where it leads, for a forwarded port.
    pub target: Option<String>,
}

/// This session's place in the registry; leaves it when dropped.
#[derive(Debug)]
pub struct Registration {
    path: PathBuf,
}

impl Drop for Registration {
    fn drop(&mut self) {
        // What is left behind is swept by the next `kdev status`.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes this session visible to `kdev status`; `report` is called for each look. Commands that use
/// the session follow its `feed`.
///
/// # Errors
/// When the folder or the socket cannot be made. A session works without.
pub fn register(
    report: impl Fn() -> Report + Send + Sync + 'static,
    feed: Arc<Feed>,
    tasks: &Tasks,
) -> io::Result<Registration> {
    let path = folder()?.join(format!("{}.sock", std::process::id()));
    // A process of the same number may have died here.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    let report = Arc::new(report);
    let leases = Arc::new(Semaphore::new(MAX_LEASES));
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let (report, leases, feed) = (report.clone(), leases.clone(), feed.clone());
            connections.spawn(async move {
                let Ok(mut text) = serde_json::to_vec(&report()) else {
                    return;
                };
                text.push(b'\n');
                let answer = peer.write_all(&text);
                // A peer that does not read its answer loses it.
                if !matches!(
                    tokio::time::timeout(ANSWER_TIMEOUT, answer).await,
                    Ok(Ok(()))
                ) {
                    return;
                }
                // One that stays hears what the session tells, and sees by the end of the
                // connection that it ended.
                if let Ok(_lease) = leases.try_acquire() {
                    tell(&mut peer, &feed).await;
                }
            });
        }
    });
    Ok(Registration { path })
}

/// Tells `peer` of the connections until it leaves, or does not read of them.
async fn tell(peer: &mut UnixStream, feed: &Arc<Feed>) {
    let (mut asks, mut to) = peer.split();
    let mut follower = feed.follow();
    loop {
        let lines = tokio::select! {
            ask = asks.read_u8() => match ask {
                Ok(ASK_CONNECTIONS) => {
                    follower.show_connections();
                    continue;
                }
                Ok(ASK_UNTIL_NOW) => follower.until_now(),
                Ok(_) => continue,
                Err(_) => return,
            },
            line = follower.next() => match line {
                Some(line) => vec![line],
                None => return,
            },
        };
        let mut text = Vec::new();
        for line in lines {
            // A text of JSON has no line ends.
            let Ok(line) = serde_json::to_vec(&line) else {
                continue;
            };
            text.extend(line);
            text.push(b'\n');
        }
        let told = tokio::time::timeout(ANSWER_TIMEOUT, to.write_all(&text));
        if !matches!(told.await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Makes a command visible that uses the session of `lender`. Without a place to do so it goes on
/// unseen.
pub fn register_borrower(command: &str, lender: &Report, tasks: &Tasks) -> Option<Registration> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let report = Report {
        pid: std::process::id(),
        command: command.to_owned(),
        since: since.unwrap_or_default().as_secs(),
        context: lender.context.clone(),
        server: lender.server.clone(),
        namespace: lender.namespace.clone(),
        transport: None,
        transport_why: None,
        relay: None,
        listening: Vec::new(),
        intercepts: Vec::new(),
        app_connections: 0,
        app_connections_total: None,
        streams: 0,
        streams_total: 0,
        connections: 0,
        bytes_sent: 0,
        bytes_received: 0,
        round_trip_ms: None,
        lends: None,
        uses: Some(lender.pid),
    };
    // It has no connections of its own.
    register(move || report.clone(), Arc::default(), tasks).ok()
}

/// Asks every session of this user, the oldest first.
///
/// # Errors
/// When the registry's folder cannot be read.
pub async fn sessions() -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for (path, answer) in ask_all().await? {
        match answer {
            Some(lease) => found.push(Found::Answers(Box::new(lease.report))),
            // One that is stopped (SIGSTOP) is alive and cannot say so.
            None => {
                let pid = path
                    .file_stem()
                    .and_then(|name| name.to_str()?.parse().ok());
                found.extend(pid.map(|pid| Found::Silent { pid, silent: true }));
            }
        }
    }
    found.sort_by_key(Found::order);
    Ok(found)
}

/// The sessions of this user that lend themselves, the oldest first.
///
/// # Errors
/// When the registry's folder cannot be read.
pub async fn lenders() -> io::Result<Vec<Lease>> {
    let answers = ask_all().await?.into_iter();
    let mut lenders: Vec<Lease> = answers
        .filter_map(|(_, lease)| lease.filter(|l| l.report.lends.is_some()))
        .collect();
    lenders.sort_by_key(|lease| (lease.report.since, lease.report.pid));
    Ok(lenders)
}

/// What every session that is alive answers, `None` for one that does not. Sweeps dead ones away.
async fn ask_all() -> io::Result<Vec<(PathBuf, Option<Lease>)>> {
    let mut asked = Vec::new();
    for entry in std::fs::read_dir(folder()?)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "sock") {
            asked.push(async move {
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask(&path)).await;
                (path, answer)
            });
        }
    }
    let mut alive = Vec::new();
    for (path, answer) in futures_util::future::join_all(asked).await {
        match answer {
            Ok(Ok(lease)) => alive.push((path, Some(lease))),
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = std::fs::remove_file(&path);
            }
            Ok(Err(_)) | Err(_) => alive.push((path, None)),
        }
    }
    Ok(alive)
}

/// The folder, after a socket could be made in it.
///
/// # Errors
/// When sessions cannot be shown: the folder is not ours, not writable, or its path too long for
/// a socket.
pub fn try_folder() -> io::Result<PathBuf> {
    let folder = folder()?;
    // Not `.sock`: nobody shall take it for a session.
    let path = folder.join(format!("{}.probe", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let bound = std::os::unix::net::UnixListener::bind(&path);
    let _ = std::fs::remove_file(&path);
    bound.map(|_| folder)
}

async fn ask(path: &Path) -> io::Result<Lease> {
    let mut stream = BufReader::new(UnixStream::connect(path).await?);
    let mut text = Vec::new();
    (&mut stream)
        .take(MAX_ANSWER)
        .read_until(b'\n', &mut text)
        .await?;
    let report = serde_json::from_slice(&text)?;
    Ok(Lease {
        report,
        stream,
        begun: Vec::new(),
    })
}

/// The registry's folder, made where it is missing, and ours alone.
fn folder() -> io::Result<PathBuf> {
    let uid = nix::unistd::getuid().as_raw();
    let path = match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_dir()) {
        Some(dir) => PathBuf::from(dir).join("kdev"),
        None => std::env::temp_dir().join(format!("kdev-{uid}")),
    };
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    // In a shared /tmp somebody else may have been there first.
    let meta = std::fs::symlink_metadata(&path)?;
    let shown = path.display();
    let wrong = match (meta.is_dir(), meta.uid()) {
        (true, owner) if owner == uid && meta.mode() & 0o077 == 0 => return Ok(path),
        (true, owner) if owner == uid => {
            format!("the runtime folder {shown} can be entered by others; run `chmod 700 {shown}`")
        }
        (true, owner) => format!(
            "the runtime folder {shown} belongs to another user (uid {owner}), who could answer in \
             kdev's place; set XDG_RUNTIME_DIR to a folder that only you may enter, or have that one \
             removed"
        ),
        (false, _) => format!("{shown}, the runtime folder, is no folder; remove it"),
    };
    Err(io::Error::other(Unsafe(wrong)))
}

/// The runtime folder is not this user's alone.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unsafe(String);

/// Makes sure that nobody else has the runtime folder. That there is none is no error: sessions are
/// then not shown.
///
/// # Errors
/// Whose it is, and what to do.
pub fn check_folder() -> io::Result<()> {
    match folder() {
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<Unsafe>()) => Err(error),
        _ => Ok(()),
    }
}
