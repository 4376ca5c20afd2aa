//! What to start, and why it did not start.

use std::ffi::OsString;
use std::io;
#[cfg(unix)]
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A program with its arguments, extra variables, and descriptors.
#[derive(Debug, Default)]
pub struct Command {
    /// The program as the user named it; looked up in `PATH` where it has no slash.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables on top of kdev's own environment.
    pub env: Vec<(String, String)>,
    /// Descriptors that the child gets under the same numbers, without close-on-exec. kdev's
    /// copies are closed once the child is started.
    #[cfg(unix)]
    pub inherit: Vec<OwnedFd>,
}

impl Command {
    /// `argv` with `env`; `None` where `argv` is empty.
    #[must_use]
    pub fn new(argv: &[OsString], env: Vec<(String, String)>) -> Option<Self> {
        let (program, args) = argv.split_first()?;
        Some(Self {
            program: program.clone(),
            args: args.to_vec(),
            env,
            ..Self::default()
        })
    }

    pub(super) fn spawn(self) -> Result<tokio::process::Child, SpawnError> {
        #[cfg(unix)]
        self.keep_open_for_child()?;
        let result = tokio::process::Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .spawn();
        result.map_err(|error| SpawnError::from_io(&self.program, error))
    }

    /// Takes close-on-exec off, as late as possible: a child that another thread starts in
    /// between would get the descriptors too.
    #[cfg(unix)]
    fn keep_open_for_child(&self) -> Result<(), SpawnError> {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        for fd in &self.inherit {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| SpawnError::Failed {
                program: self.program.to_string_lossy().into_owned(),
                source: error.into(),
            })?;
        }
        Ok(())
    }
}

/// Why the program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no such program.
    #[error("{0}: command not found")]
    NotFound(String),
    /// It exists and cannot be executed.
    #[error("{program}: cannot be executed: {reason}")]
    NotExecutable {
        /// The program.
        program: String,
        /// Why.
        reason: String,
    },
    /// The system had no room for another process, or the like.
    #[error("{program}: could not be started: {source}")]
    Failed {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// kdev's own signal handlers.
    #[error("signals cannot be received: {0}")]
    Signals(#[source] io::Error),
}

impl SpawnError {
    /// The exit code that a shell would end with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable { .. } => 126,
            Self::Failed { .. } | Self::Signals(_) => 1,
        }
    }

    /// Why `program` did not start, from what the system said.
    #[must_use]
    pub fn from_io(program: &OsString, error: io::Error) -> Self {
        let name = program.to_string_lossy().into_owned();
        let not_executable = |reason: &str| Self::NotExecutable {
            program: name.clone(),
            reason: reason.to_owned(),
        };
        /// `ENOEXEC`, for which std has no kind: neither a binary of this machine nor a script
        /// with a `#!` line.
        const NO_EXEC: i32 = 8;
        match error.kind() {
            io::ErrorKind::NotFound if program.is_empty() => {
                Self::NotFound("the empty name".to_owned())
            }
            io::ErrorKind::NotFound => match look_up(program) {
                // The file is there, so what was not found is what it needs to run.
                Some(_) => not_executable(
                    "the interpreter or loader that it names does not exist (look at its #! \
                     line, or at the architecture it was built for)",
                ),
                None => Self::NotFound(name),
            },
            io::ErrorKind::PermissionDenied => match look_up(program) {
                Some(path) if path.is_dir() => not_executable("it is a directory"),
                // Some folder of PATH is closed to this user, which is what was said last.
                None => Self::NotFound(name),
                Some(_) => not_executable("permission denied (chmod +x makes a file executable)"),
            },
            _ if cfg!(unix) && error.raw_os_error() == Some(NO_EXEC) => {
                not_executable("it is no program of this machine, and a script without a #! line")
            }
            _ => Self::Failed {
                program: name,
                source: error,
            },
        }
    }
}

/// The file that `program` names, as the system looks it up, executable or not.
#[must_use]
pub fn look_up(program: &OsString) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.components().count() > 1 || path.is_absolute() {
        return path.exists().then(|| path.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(path))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_folder_of_the_path_hides_no_program_that_is_not_there() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let of = |program: &str| SpawnError::from_io(&program.into(), denied());
        assert_eq!(of("no-such-program-anywhere").exit_code(), 127);
        assert_eq!(of("/dev/null").exit_code(), 126);
        assert_eq!(of("/").exit_code(), 126);
    }
}
