//! A container of no user's, for whoever wants to know what one would get.

use std::ffi::OsString;
use std::path::Path;

use super::{ContainerError, Detected, Plan, detect};

/// The engines that are looked for, the commonest first.
const PROGRAMS: [&str; 3] = ["docker", "podman", "nerdctl"];
/// The image in the command that the plan is made for; it is never started.
const NO_IMAGE: &str = "kdev-doctor/none";

/// The networks of containers that name none.
const DEFAULTS: [&str; 2] = ["bridge", "podman"];

/// The engine programs in `PATH`.
#[must_use]
pub fn installed() -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let is_there = |name: &&str| folders.iter().any(|f: &_| Path::join(f, name).is_file());
    PROGRAMS.into_iter().filter(is_there).collect()
}

/// An engine with the way its containers reach this machine.
#[derive(Debug)]
pub struct Trial {
    /// What a plain `run` of the engine would get.
    pub plan: Plan,
}

impl Trial {
    /// Asks the engine `program` what a plain `run` would need, or one on the network of that
    /// name; starts nothing.
    ///
    /// # Errors
    /// When the engine does not answer or cannot work with kdev.
    pub async fn prepare(program: &str, network: Option<&str>) -> Result<Self, ContainerError> {
        let mut argv = vec![program, "run"];
        argv.extend(network.into_iter().flat_map(|name| ["--network", name]));
        argv.push(NO_IMAGE);
        let argv: Vec<OsString> = argv.into_iter().map(OsString::from).collect();
        match detect(&argv)? {
            Detected::Container(run) => Ok(Self {
                plan: run.plan().await?,
            }),
            Detected::Command { .. } | Detected::Compose(_) | Detected::Plain => {
                Err(ContainerError::Engine {
                    command: program.to_owned(),
                    reason: "it is no container engine that kdev knows".to_owned(),
                })
            }
        }
    }

    /// The engine's command.
    #[must_use]
    pub fn engine(&self) -> String {
        self.plan.run.engine.name()
    }

    /// The networks of the user's that are bridges.
    ///
    /// # Errors
    /// When the engine does not say.
    pub async fn networks(&self) -> Result<Vec<String>, ContainerError> {
        let engine = &self.plan.run.engine;
        #[rustfmt::skip]
        let args = ["network", "ls", "--filter", "driver=bridge", "--format", "{{.Name}}"];
        let listed = engine.ask(&args).await?;
        let users = |name: &&str| !name.is_empty() && !DEFAULTS.contains(name);
        Ok(listed.lines().filter(users).map(str::to_owned).collect())
    }
}
