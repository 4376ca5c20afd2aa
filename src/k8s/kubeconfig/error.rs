//! Why a kubeconfig cannot be used, with what to do about it.

use std::path::{Path, PathBuf};

use kube::config::{KubeconfigError as Kube, LoadDataError};

use crate::upstream::ProxyError;

/// Why a kubeconfig cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubeconfigError {
    /// There is none.
    #[error("no kubeconfig found: looked for {}; set KUBECONFIG, pass --kubeconfig FILE, or get one from whoever runs the cluster", list(.looked))]
    Missing {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {reason}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file that is no kubeconfig.
    #[error("{}{} is not a kubeconfig: {reason}", .file.display(), line_suffix(*.line))]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Where in it.
        line: Option<u64>,
        /// What is wrong.
        reason: String,
    },
    /// No context is current and none was asked for.
    #[error("no current context in {}: pass --context NAME (there is {})", list(.files), names(.available))]
    NoContext {
        /// The files.
        files: Vec<PathBuf>,
        /// The contexts in them.
        available: Vec<String>,
    },
    /// The context does not exist.
    #[error("no context {name:?} in the kubeconfig: there is {}", names(.available))]
    UnknownContext {
        /// What was asked for.
        name: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The context names something that is not there.
    #[error("context {context:?} names the {kind} {name:?}, which the kubeconfig does not contain")]
    Dangling {
        /// The context.
        context: String,
        /// `cluster` or `user`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A certificate, key or token that cannot be used.
    #[error("the {what} of context {context:?} cannot be used: {reason}")]
    Material {
        /// The context.
        context: String,
        /// What it is.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// A proxy that kdev cannot speak to.
    #[error("cannot reach the API server: {0}")]
    Proxy(ProxyError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl KubeconfigError {
    /// What went wrong with one file.
    pub(super) fn of_file(file: &Path, error: Kube) -> Self {
        let file = file.to_owned();
        match error {
            Kube::ReadConfig(e, _) => Self::Unreadable {
                file,
                reason: e.to_string(),
            },
            Kube::Parse(e) => Self::Malformed {
                file,
                line: e.location().map(|l| l.line()),
                reason: without_place(&e.to_string()),
            },
            other => Self::Malformed {
                file,
                line: None,
                reason: other.to_string(),
            },
        }
    }

    /// What went wrong with what a context names.
    pub(crate) fn of_context(context: &str, error: Kube) -> Self {
        let material = |what, reason: String| Self::Material {
            context: context.to_owned(),
            what,
            reason,
        };
        match error {
            Kube::LoadCertificateAuthority(e) => material("certificate authority", data(e)),
            Kube::ParseCertificates(e) => material("certificate authority", e.to_string()),
            Kube::LoadClientCertificate(e) => material("client certificate", data(e)),
            Kube::LoadClientKey(e) => material("client key", data(e)),
            Kube::MissingClusterUrl => material("cluster", "it has no server address".to_owned()),
            Kube::ParseClusterUrl(e) => material("server address", e.to_string()),
            other => Self::Other(format!("context {context:?}: {other}")),
        }
    }
}

fn data(error: LoadDataError) -> String {
    match error {
        LoadDataError::ReadFile(e, path) => format!("{}: {e}", path.display()),
        LoadDataError::DecodeBase64(e) => format!("its data is not base64: {e}"),
        LoadDataError::NoBase64DataOrFile => "neither data nor a file is given for it".to_owned(),
    }
}

/// The parser's first line without `error: line 5 column 1:`, which is said before.
fn without_place(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let place = line.strip_prefix("error: line ");
    let reason = place.and_then(|rest| rest.split_once(": "));
    reason.map_or(line, |(_, reason)| reason).to_owned()
}

fn line_suffix(line: Option<u64>) -> String {
    line.map(|line| format!(", line {line},"))
        .unwrap_or_default()
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    if shown.is_empty() {
        "~/.kube/config".to_owned()
    } else {
        shown.join(", ")
    }
}

fn names(available: &[String]) -> String {
    /// More names than this help nobody on a terminal.
    const SHOWN: usize = 20;
    if available.is_empty() {
        return "none".to_owned();
    }
    let mut text = available
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if available.len() > SHOWN {
        text.push_str(", …");
    }
    text
}
