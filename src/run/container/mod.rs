//! `docker run`, `podman run` and `nerdctl run`: the container gets the variables and a listener
//! that it can reach.
//!
//! 1. [`detect`] reads the command line and says whether it starts a container.
//! 2. [`ContainerRun::plan`] asks the engine where it runs and how its containers reach this
//!    machine, and refuses what cannot work.
//! 3. The caller binds [`Plan::listen`], has a container try the way ([`Plan::probe`]), starts the
//!    proxy on it with a password, and [`Plan::watch`]es for the containers' addresses, which need
//!    no password.
//! 4. [`Plan::command`] is the user's command with three flags in front of its own: `--env-file`
//!    on an inherited descriptor, a label, and `--cidfile`. Whatever the user says wins.
//! 5. With `-d` the engine's command ends at once; [`Started::follow`] waits for the container.
//!
//! [`companion`] is the better way, which needs no variables; [`compose`] has it for a project.
//!
//! The password stands in no argument list and in no log. It is in the container's environment,
//! so `docker inspect` shows it to whoever may talk to the engine.

mod argv;
mod command;
pub mod companion;
pub mod compose;
mod detached;
mod engine;
mod error;
mod events;
mod firewall;
mod listen;
mod network;
mod plan;
mod probe;
mod reach;
pub mod trial;

use std::ffi::OsString;
use std::path::Path;

pub use command::Started;
pub use compose::ComposeRun;
pub use error::ContainerError;
pub use firewall::Unreached;
pub use listen::Listen;
pub use plan::{Peers, Plan};
pub use probe::Finding;

use engine::{Engine, Kind};

/// What a command line is.
#[derive(Debug)]
pub enum Detected {
    /// A command like any other.
    Command {
        /// What the user should know, for example that `docker exec` gets no variables.
        note: Option<String>,
    },
    /// It starts a container.
    Container(Box<ContainerRun>),
    /// It starts the containers of a project, or prints the project.
    Compose(Box<ComposeRun>),
    /// A command of Compose that needs nothing of kdev's.
    Plain,
}

/// A command line that starts a container.
#[derive(Clone, Debug)]
pub struct ContainerRun {
    engine: Engine,
    /// All arguments, the program excluded.
    args: Vec<OsString>,
    flags_at: usize,
    image_at: usize,
    image: String,
    flags: argv::RunFlags,
}

/// Says whether `argv` starts a container, or why it cannot be supported.
pub fn detect(argv: &[OsString]) -> Result<Detected, ContainerError> {
    let ordinary = Ok(Detected::Command { note: None });
    let Some((program, args)) = argv.split_first() else {
        return ordinary;
    };
    let name = base_name(program);
    match name.as_str() {
        "sudo" | "doas" => return detect_sudo(&name, args),
        "docker-compose" => {
            let engine = Engine::new(Kind::Docker, "docker".into(), Vec::new());
            let compose = Engine::new(Kind::Docker, program.clone(), Vec::new());
            return compose::detect(engine, compose, args);
        }
        "podman-compose" => {
            return Err(ContainerError::Compose {
                command: name,
                reason: "it prints no project that kdev could read; use `podman compose` with \
                         Docker's Compose"
                    .to_owned(),
            });
        }
        _ => {}
    }
    let Some(kind) = Kind::of_name(&name) else {
        return Ok(Detected::Command {
            note: hidden_engine(args),
        });
    };
    match argv::parse(kind, args) {
        argv::Parsed::Other => Ok(Detected::Command {
            note: note_on(&name, args),
        }),
        argv::Parsed::Create => Err(ContainerError::Create { engine: name }),
        argv::Parsed::Compose { at } => {
            let engine = Engine::new(kind, program.clone(), args[..at - 1].to_vec());
            let compose = Engine::new(kind, program.clone(), args[..at].to_vec());
            compose::detect(engine, compose, &args[at..])
        }
        argv::Parsed::Run {
            flags_at,
            image_at,
            flags,
        } => Ok(Detected::Container(Box::new(ContainerRun {
            // What stands between the program and `run` chooses the engine: every question to it
            // takes the same flags.
            engine: Engine::new(kind, program.clone(), globals(&args[..flags_at])),
            image: args[image_at].to_string_lossy().into_owned(),
            args: args.to_vec(),
            flags_at,
            image_at,
            flags,
        }))),
    }
}

impl ContainerRun {
    /// Whether the engine's command ends while the container goes on (`-d`).
    #[must_use]
    pub fn detached(&self) -> bool {
        self.flags.detach
    }
}

/// The arguments before `run` or `container run`.
fn globals(before_flags: &[OsString]) -> Vec<OsString> {
    let mut globals = before_flags.to_vec();
    globals.pop();
    if globals.last().is_some_and(|last| last == "container") {
        globals.pop();
    }
    globals
}

/// `/usr/bin/docker`, `docker.exe` → `docker`.
fn base_name(program: &OsString) -> String {
    let name = Path::new(program).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    name.strip_suffix(".exe").unwrap_or(&name).to_owned()
}

/// What to say of a command that seems to start a container by another program's hand
/// (`env docker run`, `sh -c 'docker run …'`): that container gets nothing.
fn hidden_engine(args: &[OsString]) -> Option<String> {
    let starts = |words: &[&str]| {
        words
            .windows(2)
            .any(|pair| Kind::of_name(&base_name(&pair[0].into())).is_some() && pair[1] == "run")
    };
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let split = words
        .iter()
        .flat_map(|word| word.split([' ', ';', '&', '|', '\n']));
    let parts: Vec<&str> = split.filter(|part| !part.is_empty()).collect();
    starts(&parts).then(|| {
        "a container that another program starts gets no way into the cluster; write `kdev run \
         -- docker run …` itself"
            .to_owned()
    })
}

fn detect_sudo(sudo: &str, args: &[OsString]) -> Result<Detected, ContainerError> {
    let engine = args
        .iter()
        .position(|arg| Kind::of_name(&base_name(arg)).is_some());
    match engine.map(|at| detect(&args[at..])) {
        Some(Ok(Detected::Container(_) | Detected::Compose(_))) => Err(ContainerError::Sudo {
            sudo: sudo.to_owned(),
            engine: engine.map_or_else(String::new, |at| base_name(&args[at])),
        }),
        _ => Ok(Detected::Command { note: None }),
    }
}

/// Subcommands that a user may expect to be handled.
fn note_on(engine: &str, args: &[OsString]) -> Option<String> {
    let subcommand = args
        .iter()
        .filter_map(|a| a.to_str())
        .find(|a| ["exec", "start", "restart", "build", "kube", "play"].contains(a))?;
    Some(match subcommand {
        "build" => format!(
            "`{engine} build` runs its steps in the engine, which does not get kdev's variables"
        ),
        _ => format!(
            "`{engine} {subcommand}` does not put its container into the cluster; only \
             `{engine} run` does"
        ),
    })
}
