//! `docker compose up` and `run`: services of a project see the cluster, each by a companion of its own.
//!
//! ```text
//! files of the project ──compose config──▶ one model ──join──▶ with companions ──▶ compose up
//!    web: networks, ports                                kdev-web: networks, ports, kdev's image
//!                                                        web: network_mode service:kdev-web
//! ```
//!
//! 1. [`detect`] reads the command line.
//! 2. [`ComposeRun::read`] has Compose itself read the project, so that every rule of its language
//!    holds: interpolation, `extends`, `include`, profiles. Nothing is written into the project.
//! 3. [`Project::make`] starts the companions and gives a way to each, before anything of the user's
//!    starts. Their image is kdev's program alone, which the engine gets by `import`: nothing is
//!    pulled or mounted.
//! 4. [`Companions::command`] is the user's command with the model in place of the files. It names the
//!    services that it starts, so that Compose shows and recreates those and not their companions.

mod argv;
mod companions;
mod model;
mod project;

use std::ffi::OsString;

pub use companions::{Companions, Served, Written};
pub use project::{Project, Read};

use sha2::{Digest as _, Sha256};

use super::engine::{Engine, Kind};
use super::{ContainerError, Detected};

/// The label by which a service says whether it shall see the cluster.
const CAPTURE: &str = "dev.kdev.capture";
/// The label with what a companion was made from, by which it is seen whether that has changed.
const SHAPE: &str = "dev.kdev.shape";
/// A profile that nobody enables, and an image that nobody has.
const NOBODYS: &str = "kdev-not-started";
/// The label by which Compose finds what belongs to a project.
pub(super) const PROJECT: &str = "com.docker.compose.project";

/// A command of Compose that starts a project, or prints it.
#[derive(Clone, Debug)]
pub struct ComposeRun {
    engine: Engine,
    /// Compose itself, a plugin of the engine's program or another program.
    compose: Engine,
    line: argv::Line,
    start: argv::Start,
    /// The services that shall see the cluster; all, where none is named.
    only: Vec<String>,
}

/// Says what a command of Compose is: `args` stand behind it, and `engine` is where it runs.
pub(super) fn detect(
    engine: Engine,
    compose: Engine,
    args: &[OsString],
) -> Result<Detected, ContainerError> {
    let command = compose.name();
    let refused = |what: &str, reason: &str| {
        Err(ContainerError::Compose {
            command: format!("{command}{what}"),
            reason: reason.to_owned(),
        })
    };
    if engine.kind == Kind::Nerdctl {
        return refused(
            "",
            "it cannot tell what it made of a project; use `docker compose`",
        );
    }
    let line = argv::parse(args);
    let plain = Ok(Detected::Plain);
    let start = match line.subcommand.as_str() {
        "up" => match argv::up(&line.rest) {
            Some(up) => up,
            None => return plain,
        },
        "config" => argv::Start {
            flags: line.rest.clone(),
            ..argv::Start::default()
        },
        "run" => match argv::run(&line.rest) {
            Some(run) if run.detached => {
                return refused(" run -d", "leave out -d, or start the service with `up -d`");
            }
            Some(run) => run,
            None => return plain,
        },
        "create" => {
            return refused(
                " create",
                "the containers would start later, without kdev and its way to the cluster; use \
                 `up`",
            );
        }
        "watch" => return refused(" watch", "use `up --watch`"),
        _ => return plain,
    };
    if start.idle {
        return refused(
            " up --no-start",
            "the containers would start later, without kdev and its way to the cluster",
        );
    }
    if start.renews {
        return refused(
            " up --always-recreate-deps",
            "it would end the networks that kdev has made for the services; --force-recreate \
             makes all services anew",
        );
    }
    if start.keeps {
        return refused(
            " up --no-recreate",
            "a container that stays as it is has no network of kdev's; leave it out",
        );
    }
    if line.files.iter().any(|file| file == "-") {
        return refused(
            " -f -",
            "the project is read more than once; write it to a file",
        );
    }
    Ok(Detected::Compose(Box::new(ComposeRun {
        engine,
        compose,
        line,
        start,
        only: Vec::new(),
    })))
}

/// What tells one text from another, in twelve letters.
fn hash(text: &[u8]) -> String {
    let digest = Sha256::digest(text);
    let digest = digest.iter().take(6);
    digest.map(|byte| format!("{byte:02x}")).collect()
}

impl ComposeRun {
    /// The same for those services alone, or for all where there are none.
    #[must_use]
    pub fn only(mut self, services: &[String]) -> Self {
        self.only = services.to_vec();
        self
    }

    /// Whether the project is only printed.
    #[must_use]
    pub fn prints(&self) -> bool {
        self.line.subcommand == "config"
    }
}
