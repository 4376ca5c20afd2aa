//! The engine's command-line program: the user's own, with the user's own choice of daemon.
//!
//! kdev asks through the program and not through a socket, because the program knows contexts,
//! TLS, SSH and machines, and because it is what the user's command will be run by.

use std::ffi::{OsStr, OsString};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;

use super::ContainerError;

/// Longest time that a question may take. A daemon that was just started by its socket needs some
/// seconds; a dead one never answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The engine's plugin for projects of many containers.
pub(super) const COMPOSE: &str = "compose";

/// Which family of flags and answers a program belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Docker's own, also against Docker Desktop, Colima and the like.
    Docker,
    /// podman.
    Podman,
    /// nerdctl, for containerd.
    Nerdctl,
}

impl Kind {
    pub(super) fn of_name(name: &str) -> Option<Self> {
        match name {
            "docker" => Some(Self::Docker),
            "podman" | "podman-remote" => Some(Self::Podman),
            "nerdctl" => Some(Self::Nerdctl),
            _ => None,
        }
    }
}

/// A program and the flags that choose the daemon.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) kind: Kind,
    pub(super) program: OsString,
    pub(super) globals: Vec<OsString>,
}

impl Engine {
    pub(super) fn new(kind: Kind, program: OsString, globals: Vec<OsString>) -> Self {
        Self {
            kind,
            program,
            globals,
        }
    }

    /// What its machine is, as `uname -m` or Kubernetes call it.
    pub(super) async fn machine(&self) -> Result<String, ContainerError> {
        let format = match self.kind {
            Kind::Docker | Kind::Nerdctl => "{{.Architecture}}",
            Kind::Podman => "{{.Host.Arch}}",
        };
        self.ask(&["info", "--format", format]).await
    }

    /// The name for messages.
    pub(super) fn name(&self) -> String {
        let name = super::base_name(&self.program);
        match self.globals.last().is_some_and(|last| last == COMPOSE) {
            true => format!("{name} {COMPOSE}"),
            false => name,
        }
    }

    /// A question to the engine. In a process group of its own: Ctrl-C at the terminal is for the
    /// user's container. Dropped with its future.
    pub(super) fn question<I>(&self, args: I) -> tokio::process::Command
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.globals)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        command
    }

    /// The answer to a question: what the engine prints.
    pub(super) async fn ask(&self, args: &[&str]) -> Result<String, ContainerError> {
        let timeout = |_| ContainerError::Timeout {
            command: self.shown(args),
            after: ANSWER_TIMEOUT,
        };
        self.ask_long(args, ANSWER_TIMEOUT).await.map_err(timeout)?
    }

    async fn ask_long(
        &self,
        args: &[&str],
        limit: Duration,
    ) -> Result<Result<String, ContainerError>, tokio::time::error::Elapsed> {
        tokio::time::timeout(limit, self.ask_unbounded(args)).await
    }

    /// As [`Engine::ask`], for questions that take as long as a container lives.
    pub(super) async fn ask_unbounded(&self, args: &[&str]) -> Result<String, ContainerError> {
        let output = self.question(args).output().await;
        let output = output.map_err(|e| self.failed(args, e.to_string()))?;
        self.read(args, &output)
    }

    /// What `command`, which does `what`, prints, however long that takes.
    pub(super) async fn answer(
        &self,
        command: tokio::process::Command,
        what: &str,
    ) -> Result<String, ContainerError> {
        let output = Self::output(command).await;
        let output = output.map_err(|e| self.failed(&[what], e.to_string()))?;
        self.read(&[what], &output)
    }

    /// How a question ends. What it says on standard error goes where `command` leads it, whereas
    /// tokio's own `output` takes that, too.
    pub(super) async fn output(mut command: tokio::process::Command) -> std::io::Result<Output> {
        command.spawn()?.wait_with_output().await
    }

    /// As [`Engine::ask_unbounded`], with `input` for it to read.
    pub(super) async fn feed(&self, args: &[&str], input: &[u8]) -> Result<String, ContainerError> {
        let broken = |error: std::io::Error| self.failed(args, error.to_string());
        let mut command = self.question(args);
        let mut child = command.stdin(Stdio::piped()).spawn().map_err(broken)?;
        if let Some(mut stdin) = child.stdin.take() {
            // What it thinks of it, it says itself.
            let _ = stdin.write_all(input).await;
        }
        let output = child.wait_with_output().await.map_err(broken)?;
        self.read(args, &output)
    }

    /// The answer in what a question printed.
    pub(super) fn read(&self, args: &[&str], output: &Output) -> Result<String, ContainerError> {
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // The last line is the error; warnings come before it.
        let said = said.lines().rev().find(|line| !line.trim().is_empty());
        let reason = said.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned());
        Err(self.failed(args, reason))
    }

    /// The answer as JSON.
    pub(super) async fn ask_json<T: DeserializeOwned>(
        &self,
        args: &[&str],
    ) -> Result<T, ContainerError> {
        let text = self.ask(args).await?;
        serde_json::from_str(&text)
            .map_err(|e| self.failed(args, format!("an answer that is not understood: {e}")))
    }

    pub(super) fn failed(&self, args: &[&str], reason: String) -> ContainerError {
        ContainerError::Engine {
            command: self.shown(args),
            reason,
        }
    }

    fn shown(&self, args: &[&str]) -> String {
        format!("{} {}", self.name(), args.join(" "))
    }
}
