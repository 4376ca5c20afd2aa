//! Credential plugins: a program that prints a token or a client certificate.
//!
//! kube would run the plugin blocking, three times per client, and never again after a 401; here
//! it is an ordinary child process, awaited. Who runs it when, and never twice at once, is
//! [`super::client`]'s business.

#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::config::{ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// How long a plugin may take that asks nobody: cloud CLIs start an interpreter and ask a
/// service, which takes seconds; a minute is a hang.
pub const PLUGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a plugin may take that asks the user: finding the phone with the second factor.
pub const INTERACTIVE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a plugin may take until the user is told what it is waited for: cloud CLIs take about
/// a second.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Most that is read from a plugin: a certificate chain with its key is some 10 KiB.
const MAX_OUTPUT: u64 = 1 << 20;
/// How much of what a failed plugin said is shown.
const SHOWN_STDERR: usize = 2000;

/// What a plugin handed out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credential {
    /// A bearer token.
    pub token: Option<String>,
    /// A client certificate and its key, PEM.
    pub identity: Option<(String, String)>,
    /// When it ends, if the plugin said so.
    pub expires: Option<SystemTime>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("token", &self.token.is_some())
            .field("identity", &self.identity.is_some())
            .field("expires", &self.expires)
            .finish()
    }
}

/// Why a plugin gave no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// The kubeconfig's `exec` section cannot be followed.
    #[error("the kubeconfig's credential plugin is misconfigured: {0}")]
    Config(String),
    /// The program is not there.
    #[error("the credential plugin {command:?} is not installed{}", hint_suffix(.hint))]
    NotInstalled {
        /// The program.
        command: String,
        /// The kubeconfig's own advice; may be empty.
        hint: String,
    },
    /// The program did not start.
    #[error("the credential plugin {command:?} did not start: {reason}")]
    Start {
        /// The program.
        command: String,
        /// Why.
        reason: String,
    },
    /// The program failed.
    #[error("the credential plugin {command:?} failed with {status}{}", said_suffix(.stderr))]
    Failed {
        /// The program.
        command: String,
        /// Its exit status in words.
        status: String,
        /// What it said last.
        stderr: String,
    },
    /// The program did not end.
    #[error(
        "the credential plugin {command:?} did not end within {} s and was killed; run it by hand to see what it waits for",
        .after.as_secs()
    )]
    TimedOut {
        /// The program.
        command: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The program wants to ask and there is nobody.
    #[error(
        "the credential plugin {command:?} has to ask you something and there is no terminal to ask on; log in with kubectl in a terminal first"
    )]
    NeedsTerminal {
        /// The program.
        command: String,
    },
    /// The program printed something else than a credential.
    #[error("the credential plugin {command:?} printed no usable credential: {reason}")]
    Output {
        /// The program.
        command: String,
        /// What is wrong.
        reason: String,
    },
}

fn hint_suffix(hint: &str) -> String {
    if hint.is_empty() {
        "; install it or correct the kubeconfig".to_owned()
    } else {
        format!("; the kubeconfig says: {}", hint.trim())
    }
}

fn said_suffix(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!(": {stderr}")
    }
}

/// `KUBERNETES_EXEC_INFO`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    kind: &'static str,
    api_version: &'a str,
    spec: InfoSpec<'a>,
}

#[derive(Serialize)]
struct InfoSpec<'a> {
    interactive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a ExecAuthCluster>,
}

/// What the plugin prints.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    api_version: Option<String>,
    kind: Option<String>,
    status: Option<PrintedStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrintedStatus {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

/// Runs the plugin once, for `timeout` or the limits above. `may_ask` says whether the terminal is kdev's to lend: not once a child
/// of the user's has it. Dropping the future kills the plugin.
///
/// # Errors
/// When it gave no credential.
pub async fn run(
    config: &ExecConfig,
    may_ask: bool,
    timeout: Option<Duration>,
) -> Result<Credential, ExecError> {
    let limit = |interactive| match timeout {
        Some(timeout) => timeout,
        None if interactive => INTERACTIVE_TIMEOUT,
        None => PLUGIN_TIMEOUT,
    };
    let running = run_within(config, may_ask && std::io::stdin().is_terminal(), limit);
    if !may_ask {
        return running.await;
    }
    let mut running = std::pin::pin!(running);
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut running).await {
        return done;
    }
    // At the level of warnings, since it must be seen: a browser may have opened behind the
    // terminal, and the user wonders what hangs.
    tracing::warn!(
        "waiting for the login: the credential plugin {:?} has not finished yet",
        config.command.as_deref().unwrap_or_default()
    );
    running.await
}

async fn run_within(
    config: &ExecConfig,
    terminal: bool,
    limit: impl Fn(bool) -> Duration,
) -> Result<Credential, ExecError> {
    let name = config.command.clone().unwrap_or_default();
    let version = version(config)?;
    let interactive = interactive(config, version, terminal)?;
    let mut command = command(config, version, interactive)?;
    let after = limit(interactive);
    match tokio::time::timeout(after, output(&mut command)).await {
        Err(_) => Err(ExecError::TimedOut {
            command: name,
            after,
        }),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => Err(ExecError::NotInstalled {
            command: name,
            hint: config.install_hint.clone().unwrap_or_default(),
        }),
        Ok(Err(e)) => Err(ExecError::Start {
            command: name,
            reason: e.to_string(),
        }),
        Ok(Ok(output)) if !output.status.success() => Err(ExecError::Failed {
            command: name,
            status: output.status.to_string(),
            stderr: tail(&output.stderr),
        }),
        Ok(Ok(output)) => parse(&output.stdout, version).map_err(|reason| ExecError::Output {
            command: name,
            reason,
        }),
    }
}

/// The API version that the plugin is spoken to in.
fn version(config: &ExecConfig) -> Result<&str, ExecError> {
    match config.api_version.as_deref() {
        Some(v @ ("client.authentication.k8s.io/v1" | "client.authentication.k8s.io/v1beta1")) => {
            Ok(v)
        }
        Some(other) => Err(ExecError::Config(format!(
            "its apiVersion is {other:?}; client.authentication.k8s.io/v1 and v1beta1 exist (update the tool that wrote the kubeconfig)"
        ))),
        None => Err(ExecError::Config("it has no apiVersion".to_owned())),
    }
}

/// Whether the plugin gets the terminal.
fn interactive(config: &ExecConfig, version: &str, terminal: bool) -> Result<bool, ExecError> {
    match &config.interactive_mode {
        Some(ExecInteractiveMode::Never) => Ok(false),
        Some(ExecInteractiveMode::IfAvailable) => Ok(terminal),
        Some(ExecInteractiveMode::Always) if terminal => Ok(true),
        Some(ExecInteractiveMode::Always) => Err(ExecError::NeedsTerminal {
            command: config.command.clone().unwrap_or_default(),
        }),
        None if version.ends_with("/v1") => Err(ExecError::Config(
            "it has no interactiveMode, which v1 requires".to_owned(),
        )),
        None => Ok(terminal),
    }
}

fn command(config: &ExecConfig, version: &str, interactive: bool) -> Result<Command, ExecError> {
    let program = config.command.as_deref().filter(|c| !c.is_empty());
    let program = program.ok_or_else(|| ExecError::Config("it has no command".to_owned()))?;
    if config.provide_cluster_info && config.cluster.is_none() {
        return Err(ExecError::Config(
            "the cluster's data is missing".to_owned(),
        ));
    }
    let info = Info {
        kind: "ExecCredential",
        api_version: version,
        spec: InfoSpec {
            interactive,
            cluster: config
                .cluster
                .as_ref()
                .filter(|_| config.provide_cluster_info),
        },
    };
    let info = serde_json::to_string(&info).map_err(|e| ExecError::Config(e.to_string()))?;
    let mut command = Command::new(program);
    command
        .args(config.args.iter().flatten())
        .env("KUBERNETES_EXEC_INFO", info)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    for variable in config.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            command.env(name, value);
        }
    }
    if interactive {
        // Its questions go to stderr.
        command.stdin(Stdio::inherit()).stderr(Stdio::inherit());
    } else {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
    }
    Ok(command)
}

/// As [`Command::output`], but with a bound on what is kept.
async fn output(command: &mut Command) -> std::io::Result<Output> {
    let mut child = command.spawn()?;
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let (stdout, stderr, status) = tokio::join!(stdout, stderr, child.wait());
    Ok(Output {
        status: status?,
        stdout: stdout?,
        stderr: stderr?,
    })
}

async fn read_all<R: tokio::io::AsyncRead + Unpin>(pipe: Option<R>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = pipe.take(MAX_OUTPUT);
        pipe.read_to_end(&mut bytes).await?;
        // What is beyond the bound is read too: a plugin that writes must not stall on us.
        tokio::io::copy(&mut pipe.into_inner(), &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

/// The last of what a program said, as one text.
fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(SHOWN_STDERR);
    text.chars().skip(skipped).collect()
}

fn parse(stdout: &[u8], version: &str) -> Result<Credential, String> {
    // Some plugins print YAML; kubectl takes both, and JSON is YAML too.
    let text = std::str::from_utf8(stdout).map_err(|e| e.to_string())?;
    let printed: Printed = match serde_json::from_str(text) {
        Ok(printed) => printed,
        Err(json) => serde_saphyr::from_str(text).map_err(|_| json.to_string())?,
    };
    if printed
        .kind
        .as_deref()
        .is_some_and(|k| k != "ExecCredential")
    {
        return Err(format!(
            "its kind is {:?}",
            printed.kind.unwrap_or_default()
        ));
    }
    if let Some(other) = printed.api_version.filter(|v| v != version) {
        return Err(format!("it answered in {other} to a question in {version}"));
    }
    let status = printed.status.ok_or("it has no status")?;
    let token = status.token.filter(|t| !t.is_empty());
    let certificate = status.client_certificate_data.filter(|c| !c.is_empty());
    let key = status.client_key_data.filter(|k| !k.is_empty());
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("it has only one of client certificate and key".to_owned()),
    };
    if token.is_none() && identity.is_none() {
        return Err("it has neither a token nor a client certificate".to_owned());
    }
    let expires = status
        .expiration_timestamp
        .map(|text| text.parse::<Timestamp>().map(SystemTime::from))
        .transpose()
        .map_err(|e| format!("its expirationTimestamp is no time: {e}"))?;
    Ok(Credential {
        token: token.map(|t| t.trim().to_owned()),
        identity,
        expires,
    })
}
