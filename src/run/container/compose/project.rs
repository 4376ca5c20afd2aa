//! The project of a command, as Compose reads it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::ComposeRun;
use super::model::know;
use crate::run::container::ContainerError;
use crate::run::container::engine::Engine;

/// What Compose says of a project.
#[derive(Debug)]
pub enum Read {
    /// What it is.
    Project(Box<Project>),
    /// Compose has said what is wrong with it; its exit code.
    Wrong(u8),
}

/// A project, all of whose files are one model.
#[derive(Debug)]
pub struct Project {
    pub(super) run: ComposeRun,
    /// As `compose config` prints it.
    pub(super) model: Value,
    /// The services that the command starts.
    pub(super) active: Vec<String>,
    /// Where its relative paths begin.
    pub(super) directory: PathBuf,
}

/// The files that Compose looks for, the first that is there (Compose specification, "Compose file").
const FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];

impl ComposeRun {
    /// Has Compose read the project.
    ///
    /// # Errors
    /// When Compose cannot be run, or prints what is no project.
    pub async fn read(&self) -> Result<Read, ContainerError> {
        let whole = async {
            let args = ["config", "--format", "json"];
            let mut command = self.ask(&[], &args);
            // What it warns of is said now, and not when it reads its own words again.
            command.stderr(Stdio::inherit());
            Engine::output(command).await
        };
        // Those of all profiles, so that the containers of none are taken for strays.
        let names = async {
            let mut command = self.ask(&["--profile", "*"], &["config", "--services"]);
            self.compose
                .read(&["config"], &command.output().await.ok()?)
                .ok()
        };
        // Those that are named, their dependencies, and whatever profiles that enables.
        let selected = async {
            let services = self.start.services.iter().map(String::as_str);
            let args: Vec<&str> = ["config", "--format", "json"]
                .into_iter()
                .chain(services)
                .collect();
            match self.start.services.is_empty() {
                true => None,
                false => Some(self.ask(&[], &args).output().await),
            }
        };
        let (whole, names, selected, directory) =
            tokio::join!(whole, names, selected, self.directory());
        let failed = |error: std::io::Error| self.compose.failed(&["config"], error.to_string());
        let whole = whole.map_err(failed)?;
        if !whole.status.success() {
            return Ok(Read::Wrong(exit_code(&whole)));
        }
        let mut model = self.model(&whole)?;
        let mut active = services(&model);
        if let Some(selected) = selected {
            let selected = selected.map_err(failed)?;
            let selected = self.model(&selected)?;
            active = match self.start.alone {
                true => self.start.services.clone(),
                false => services(&selected),
            };
            add_what_is_not_there(&mut model, &selected);
        }
        let names = names.unwrap_or_default();
        know(&mut model, names.split_whitespace().map(str::to_owned));
        Ok(Read::Project(Box::new(Project {
            run: self.clone(),
            model,
            active,
            directory,
        })))
    }

    /// Compose with the files of the user.
    fn ask(&self, flags: &[&str], args: &[&str]) -> tokio::process::Command {
        let mut command = self.compose.question(flags);
        command.args(&self.line.written).args(args);
        command
    }

    fn model(&self, output: &std::process::Output) -> Result<Value, ContainerError> {
        let said = self.compose.read(&["config"], output)?;
        let model: Option<Value> = serde_json::from_str(&said).ok();
        let model = model.filter(|model| model["services"].is_object());
        model.ok_or_else(|| {
            let reason = "it printed no project in JSON; kdev needs Compose 2";
            self.compose.failed(&["config"], reason.to_owned())
        })
    }

    /// Where relative paths of the project begin, as Compose finds out.
    async fn directory(&self) -> PathBuf {
        if let Some(directory) = &self.line.directory {
            return directory.into();
        }
        let here = std::env::current_dir().unwrap_or_default();
        let folder = |file: &str| {
            let folder = Path::new(file).parent();
            here.join(folder.unwrap_or_else(|| Path::new("")))
        };
        if let Some(file) = self.line.files.first() {
            return folder(file);
        }
        let set = std::env::var("COMPOSE_FILE").ok();
        let set = match set {
            // The file may name others.
            None if here.join(".env").exists() => self.variable("COMPOSE_FILE").await,
            set => set,
        };
        if let Some(files) = set.filter(|files| !files.is_empty()) {
            let separator = std::env::var("COMPOSE_PATH_SEPARATOR").ok();
            let separator = separator.filter(|separator| !separator.is_empty());
            let separator = separator
                .as_deref()
                .unwrap_or(if cfg!(windows) { ";" } else { ":" });
            return folder(files.split(separator).next().unwrap_or_default());
        }
        let has_one = |folder: &&Path| FILES.iter().any(|file| folder.join(file).exists());
        let found = here.ancestors().find(has_one).map(Path::to_owned);
        found.unwrap_or(here)
    }

    /// A variable as Compose knows it.
    async fn variable(&self, name: &str) -> Option<String> {
        let output = self.ask(&[], &["config", "--environment"]).output().await;
        let said = self.compose.read(&["config"], &output.ok()?).ok()?;
        let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        said.lines().find_map(of)
    }
}

fn exit_code(output: &std::process::Output) -> u8 {
    let code = output.status.code();
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn services(model: &Value) -> Vec<String> {
    let services = model["services"].as_object();
    services
        .into_iter()
        .flat_map(|all| all.keys().cloned())
        .collect()
}

/// Adds services that start only where they are named, and what they alone use.
fn add_what_is_not_there(model: &mut Value, selected: &Value) {
    for kind in [
        "services", "networks", "volumes", "secrets", "configs", "models",
    ] {
        for (name, value) in selected[kind].as_object().into_iter().flatten() {
            if model[kind][name].is_null() {
                model[kind][name] = value.clone();
            }
        }
    }
}
