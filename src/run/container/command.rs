//! The user's command with kdev's flags in front of the user's own.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ContainerError, ContainerRun, Plan};
use crate::run::child;

/// The label that marks a session's containers.
pub(super) const LABEL: &str = "dev.kdev.session";

/// The variables that Docker's client takes from its configuration's `proxies`.
const CLIENT_PROXY_NAMES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Largest env-file that goes through a pipe: what a pipe takes at once everywhere (16 KiB on
/// macOS, 64 KiB on Linux), since all of it is written before anybody reads. A list of variables
/// has about 2 KiB.
const PIPE_ROOM: usize = 16 << 10;

/// How long the engine may take to kill a container.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A container command that was, or is about to be, started.
#[derive(Debug)]
pub struct Started {
    pub(super) run: ContainerRun,
    /// Whether its network is a companion's.
    pub(super) joined: bool,
    pub(super) cidfile: PathBuf,
    /// When it was made, in seconds since 1970, for the engine's record of events.
    pub(super) since: u64,
    _dir: PrivateDir,
}

impl Plan {
    /// The label by which the containers of `session` are found.
    pub(super) fn label(session: &str) -> String {
        format!("{LABEL}={session}")
    }

    /// The command to start, for [`child::Child::spawn`], and the handle to what it starts, which
    /// must be kept until the command has ended. `session` is unique among the sessions that use
    /// the engine.
    ///
    /// The engine's own process gets no proxy variables: it pulls images as the user set it up.
    pub fn command(
        &self,
        session: &str,
        variables: &[(String, String)],
    ) -> Result<(child::Command, Started), ContainerError> {
        let names: &[&str] = match self.client_proxies {
            Some(_) => &CLIENT_PROXY_NAMES,
            None => &[],
        };
        of(&self.run, session, variables, names)
    }
}

/// The command that `run` is, as [`Plan::command`]; of its `variables` the client takes those of
/// `names` from its own environment.
pub(super) fn of(
    run: &ContainerRun,
    session: &str,
    variables: &[(String, String)],
    names: &[&str],
) -> Result<(child::Command, Started), ContainerError> {
    let dir = PrivateDir::create(session)?;
    let mut out = child::Command {
        program: run.engine.program.clone(),
        ..child::Command::default()
    };
    let env_file = hand_over(variables, &dir, &mut out)?;
    let mut ours: Vec<OsString> = vec!["--env-file".into(), env_file];
    ours.extend(["--label".into(), Plan::label(session).into()]);
    let cidfile = match &run.flags.cidfile {
        Some(theirs) => PathBuf::from(theirs),
        None => {
            let file = dir.0.join("cid");
            ours.extend(["--cidfile".into(), file.clone().into()]);
            file
        }
    };
    // Names only: the client takes the values from its own environment.
    for (name, value) in variables {
        if names.contains(&name.as_str()) {
            ours.extend(["--env".into(), name.into()]);
            out.env.push((name.clone(), value.clone()));
        }
    }
    let (before, after) = run.args.split_at(run.flags_at);
    out.args = [before, &ours, after].concat();
    let started = Started {
        run: run.clone(),
        joined: false,
        cidfile,
        since: std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |elapsed| elapsed.as_secs()),
        _dir: dir,
    };
    Ok((out, started))
}

/// Puts the variables where the engine can read them as a file, and gives its path.
fn hand_over(
    variables: &[(String, String)],
    dir: &PrivateDir,
    command: &mut child::Command,
) -> io::Result<OsString> {
    let mut text = String::new();
    for (name, value) in variables {
        // The format has no way to write a line break; a value with one is left out rather than
        // cut in two variables.
        if !value.contains(['\n', '\r']) {
            text.extend([name, "=", value, "\n"]);
        }
    }
    #[cfg(unix)]
    if text.len() <= PIPE_ROOM {
        use std::io::Write as _;
        use std::os::fd::{AsRawFd as _, OwnedFd};
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(text.as_bytes())?;
        let reader = OwnedFd::from(reader);
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        command.inherit.push(reader);
        return Ok(path.into());
    }
    let _ = (&command, PIPE_ROOM);
    let file = dir.0.join("env");
    fs::write(&file, text)?;
    Ok(file.into())
}

/// A directory that only this user may enter, removed with this value.
#[derive(Debug)]
pub(super) struct PrivateDir(PathBuf);

impl PrivateDir {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes one, with the name of `session` in its own.
    pub(super) fn create(session: &str) -> io::Result<Self> {
        let unique: u64 = rand::random();
        let path = std::env::temp_dir().join(format!("kdev-{}-{unique:016x}", file_name(session)));
        #[allow(unused_mut)] // only Unix has a mode
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // Fails where the name exists, so nobody can have prepared it.
        builder.create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(dir = %self.0.display(), %error, "directory stays");
        }
    }
}

/// What of `text` is harmless in a file name.
fn file_name(text: &str) -> String {
    let safe = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    text.chars().filter(safe).take(32).collect()
}

impl Started {
    /// Kills the container. Where the engine cannot, its own command is left to be killed.
    pub async fn kill(&self) {
        let killed = async {
            let id = self.container_id()?;
            let engine = &self.run.engine;
            match tokio::time::timeout(KILL_LIMIT, engine.ask(&["kill", &id])).await {
                Ok(answer) => answer.map(drop),
                Err(_) => Err(ContainerError::Timeout {
                    command: format!("{} kill", engine.name()),
                    after: KILL_LIMIT,
                }),
            }
        };
        if let Err(error) = killed.await {
            tracing::debug!(%error, "the container is not killed");
        }
    }

    /// The id of the container, once the engine has written it.
    pub(super) fn container_id(&self) -> io::Result<String> {
        read_id(&self.cidfile)
    }
}

fn read_id(cidfile: &Path) -> io::Result<String> {
    let id = fs::read_to_string(cidfile)?;
    Ok(id.trim().to_owned())
}
