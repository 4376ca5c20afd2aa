//! The sessions of this machine. Each listens on a socket in a folder that only its user may
//! enter, and answers whoever connects with one JSON document; a dead session's socket refuses,
//! and is swept away by the next look.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::task::Tasks;

/// How long a session may take to answer. It only formats counters.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer that is read.
const MAX_ANSWER: u64 = 1 << 20;

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
    /// Addresses that it listens on, with what they are for.
    pub listening: Vec<Listening>,
    /// Connections of apps that are open.
    pub app_connections: u64,
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

/// Makes this session visible to `kdev status`; `report` is called for each look.
///
/// # Errors
/// When the folder or the socket cannot be made. A session works without.
pub fn register(
    report: impl Fn() -> Report + Send + Sync + 'static,
    tasks: &Tasks,
) -> io::Result<Registration> {
    let path = folder()?.join(format!("{}.sock", std::process::id()));
    // A process of the same number may have died here.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    let report = Arc::new(report);
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let report = report.clone();
            connections.spawn(async move {
                // A peer that does not read its answer loses it.
                if let Ok(text) = serde_json::to_vec(&report()) {
                    let _ = tokio::time::timeout(ANSWER_TIMEOUT, peer.write_all(&text)).await;
                }
            });
        }
    });
    Ok(Registration { path })
}

/// Asks every session of this user, the oldest first.
///
/// # Errors
/// When the registry's folder cannot be read.
pub async fn sessions() -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder()?)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "sock") {
            continue;
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, ask(&path)).await {
            Ok(Ok(report)) => found.push(Found::Answers(Box::new(report))),
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = std::fs::remove_file(&path);
            }
            // One that is stopped (SIGSTOP) is alive and cannot say so.
            Ok(Err(_)) | Err(_) => {
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

async fn ask(path: &Path) -> io::Result<Report> {
    let mut text = Vec::new();
    UnixStream::connect(path)
        .await?
        .take(MAX_ANSWER)
        .read_to_end(&mut text)
        .await?;
    serde_json::from_slice(&text).map_err(io::Error::from)
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
    if meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0 {
        Ok(path)
    } else {
        Err(io::Error::other(format!(
            "{} is not a folder of this user alone",
            path.display()
        )))
    }
}
