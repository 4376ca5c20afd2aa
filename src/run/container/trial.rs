//! Whether a container really reaches a listener of this machine: one is started that asks.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::{ContainerError, Detected, Plan, detect};

/// The engines that are looked for, the commonest first.
const PROGRAMS: [&str; 3] = ["docker", "podman", "nerdctl"];
/// How long the engine may take to say which images it has.
const LIST_LIMIT: Duration = Duration::from_secs(3);
/// How long removing a container may take that did not end by itself.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);
/// Parts of the names of images that mostly have a shell and something to ask with.
const LIKELY: [&str; 8] = [
    "busybox", "alpine", "curl", "tools", "debian", "ubuntu", "python", "nginx",
];
/// The image in the command that the plan is made for; it is never started.
const NO_IMAGE: &str = "kdev-doctor/none";
/// The exit code of [`SCRIPT`] where the image has nothing to ask with.
const NOTHING_TO_ASK_WITH: i32 = 97;
/// Asks `http://$1:$2/$3` with whatever the image has, in a few seconds, and never through a proxy
/// that the engine's configuration puts into containers.
const SCRIPT: &str = r#"
unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
has() { command -v "$1" >/dev/null 2>&1; }
if has curl; then curl -sS -m 5 "http://$1:$2/$3"
elif has wget; then
  once=; case $(wget --help 2>&1) in *--tries*) once='-t 1';; esac
  wget -q $once -T 5 -O - "http://$1:$2/$3"
elif has nc; then printf 'GET /%s HTTP/1.0\r\n\r\n' "$3" | nc -w 5 "$1" "$2"
elif has bash; then
  bash -c 'exec 3<>"/dev/tcp/$1/$2" && printf "GET /%s HTTP/1.0\r\n\r\n" "$3" >&3 && read -r -t 5 -u 3 line' bash "$@"
elif has python3; then
  python3 -c 'import sys, urllib.request as u; u.urlopen("http://%s:%s/%s" % tuple(sys.argv[1:]), timeout=5)' "$@"
else exit 97
fi
"#;

/// The engine programs in `PATH`.
#[must_use]
pub fn installed() -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let is_there = |name: &&str| folders.iter().any(|f: &_| Path::join(f, name).is_file());
    PROGRAMS.into_iter().filter(is_there).collect()
}

/// What came of a container that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It had an answer.
    Answered,
    /// It had none; the last line that it printed.
    Failed(String),
    /// The image has no shell, or nothing to ask with.
    Unable,
}

/// An engine with the way its containers reach this machine.
#[derive(Debug)]
pub struct Trial {
    /// What a plain `run` of the engine would get.
    pub plan: Plan,
}

impl Trial {
    /// Asks the engine `program` what a plain `run` would need; starts nothing.
    ///
    /// # Errors
    /// When the engine does not answer or cannot work with kdev.
    pub async fn prepare(program: &str) -> Result<Self, ContainerError> {
        let argv: Vec<OsString> = [program, "run", NO_IMAGE].map(OsString::from).to_vec();
        match detect(&argv)? {
            Detected::Container(run) => Ok(Self {
                plan: run.plan().await?,
            }),
            Detected::Command { .. } => Err(ContainerError::Engine {
                command: program.to_owned(),
                reason: "it is no container engine that kdev knows".to_owned(),
            }),
        }
    }

    /// The engine's command.
    #[must_use]
    pub fn engine(&self) -> String {
        self.plan.run.engine.name()
    }

    /// The images that are here, those that will likely do first.
    ///
    /// # Errors
    /// When the engine does not say.
    pub async fn images(&self) -> Result<Vec<String>, ContainerError> {
        let engine = &self.plan.run.engine;
        let args = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"];
        let Ok(listed) = tokio::time::timeout(LIST_LIMIT, engine.ask(&args)).await else {
            return Err(ContainerError::Timeout {
                command: format!("{} image ls", engine.name()),
                after: LIST_LIMIT,
            });
        };
        let listed = listed?;
        let named = |name: &&str| !name.is_empty() && !name.contains("<none>");
        let mut images: Vec<String> = listed.lines().filter(named).map(str::to_owned).collect();
        let rank = |name: &String| LIKELY.iter().position(|part| name.contains(part));
        images.sort_by_key(|name| rank(name).unwrap_or(LIKELY.len()));
        images.dedup();
        Ok(images)
    }

    /// Starts a container of `image`, which must be here already, that asks for
    /// `http://HOST:port/token` at the host that the plan advertises, and removes it.
    ///
    /// # Errors
    /// When the container does not end within `limit`, or the engine cannot be run.
    pub async fn ask(
        &self,
        image: &str,
        port: u16,
        token: &str,
        limit: Duration,
    ) -> Result<Asked, ContainerError> {
        let engine = &self.plan.run.engine;
        let name = format!("kdev-doctor-{:08x}", rand::random::<u32>());
        let port = port.to_string();
        let args = [
            "run",
            "--rm",
            "--pull",
            "never",
            "--name",
            &name,
            "--entrypoint",
            "sh",
            image,
            "-c",
            SCRIPT,
            "sh",
            &self.plan.advertised_host,
            &port,
            token,
        ];
        let shown = format!("{} run {image}", engine.name());
        let ran = tokio::time::timeout(limit, engine.question(args).output()).await;
        let Ok(output) = ran else {
            // Its own `--rm` comes too late for whoever looks now.
            let remove = engine.question(["rm", "--force", &name]).output();
            if let Ok(Err(error)) = tokio::time::timeout(REMOVE_LIMIT, remove).await {
                tracing::debug!(%error, name, "the container is left to --rm");
            }
            return Err(ContainerError::Timeout {
                command: shown,
                after: limit,
            });
        };
        let output = output.map_err(|e| ContainerError::Engine {
            command: shown,
            reason: e.to_string(),
        })?;
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().rev().find(|line| !line.trim().is_empty());
        Ok(match output.status.code() {
            Some(0) => Asked::Answered,
            // 125: the engine did not start it; 126 and 127: there is no shell.
            Some(NOTHING_TO_ASK_WITH | 125..=127) => Asked::Unable,
            _ => Asked::Failed(said.unwrap_or("nothing").trim().to_owned()),
        })
    }
}
