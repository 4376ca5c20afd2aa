//! The companions of a project.

mod listed;
mod making;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::time::sleep;

use self::listed::list;
use super::ComposeRun;
use super::argv::Start;
use super::model::Placed;
use crate::run::child;
use crate::run::container::command::PrivateDir;
use crate::run::container::companion::warden::{Left, Warden};
use crate::run::container::companion::{Holder, Way, label};
use crate::run::container::engine::Engine;
use crate::run::container::{ContainerError, Plan};

/// How long one that was about to restart may be away.
const PATIENCE: Duration = Duration::from_secs(2);
/// The name of the model's file.
const MODEL: &str = "compose.json";

/// A companion that kdev serves.
#[derive(Debug)]
pub struct Served {
    /// How it is reached.
    pub holder: Holder,
    /// The way that stands.
    pub way: Way,
    /// The nameservers that the user wants asked for what is not the cluster's; none for those of this
    /// machine.
    pub resolvers: Vec<String>,
}

/// A project with companions that stand.
#[derive(Debug)]
pub struct Companions {
    written: Written,
    active: Vec<String>,
    warden: Mutex<Option<Warden>>,
}

/// A model in a file of kdev's own.
#[derive(Debug)]
pub struct Written {
    run: ComposeRun,
    name: String,
    /// The label of those that join a companion of this session.
    users: String,
    directory: PathBuf,
    dir: PrivateDir,
}

impl Companions {
    /// Starts the companions of `placed` that are not there already.
    async fn begin(&self, session: &str, placed: &[Placed]) -> Result<Vec<Served>, ContainerError> {
        let ours: Vec<&Placed> = placed.iter().filter(|placed| !placed.kept).collect();
        if ours.is_empty() {
            return Ok(Vec::new());
        }
        let mut args = self.written.args(&["--progress", "quiet"]);
        args.extend(["up", "-d", "--"].map(OsString::from));
        args.extend(ours.iter().map(|placed| OsString::from(&placed.name)));
        let compose = &self.written.run.compose;
        let mut up = compose.question(&args);
        // Whatever is a stray is the user's to remove.
        up.env("COMPOSE_REMOVE_ORPHANS", "0");
        compose.answer(up, "up").await?;
        let engine = self.engine();
        let listed = list(engine, &label(session)).await?;
        let serving = ours.into_iter().map(|placed| {
            let found = listed.iter().find(|one| one.name == placed.name);
            async move {
                let missing = || engine.failed(&["ps"], format!("{} does not run", placed.name));
                let found = found.ok_or_else(missing)?;
                let holder = found.holder(engine, &format!("service {}", placed.service));
                let way = holder.connect().await;
                let way = way.map_err(|why| {
                    engine.failed(
                        &["exec"],
                        format!("the network of {}: {why}", placed.service),
                    )
                })?;
                Ok::<_, ContainerError>(Served {
                    holder,
                    way,
                    resolvers: placed.resolvers.clone(),
                })
            }
        });
        try_join_all(serving).await
    }

    /// The user's command, for [`child::Child::spawn`].
    #[must_use]
    pub fn command(&self) -> child::Command {
        let Start {
            services, one_off, ..
        } = &self.written.run.start;
        let named = if services.is_empty() {
            &self.active
        } else {
            services
        };
        let named = named.iter().map(OsString::from);
        match one_off {
            None => self.written.command("up", named),
            Some(one_off) => {
                let words = named.chain(one_off.command.iter().cloned());
                self.written.command("run", words)
            }
        }
    }

    /// The program that the command runs.
    #[must_use]
    pub fn program(&self) -> OsString {
        self.written.run.compose.program.clone()
    }

    /// Whether the command ends while the containers go on.
    #[must_use]
    pub fn detached(&self) -> bool {
        self.written.run.start.detached
    }

    /// The project's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.written.name
    }

    /// What to tell the user once it runs in the background: the prompt that they expect does not come.
    #[must_use]
    pub fn stays(&self) -> String {
        format!(
            "project {} runs in the background, and kdev stays in this terminal as its way to the \
             cluster until it ends; Ctrl-C leaves it without",
            self.written.name
        )
    }

    /// What to tell the user when kdev ends before the project.
    #[must_use]
    pub fn farewell(&self) -> String {
        format!(
            "project {} keeps running, without its way to the cluster and without names; `{} stop` \
             ends it",
            self.written.name,
            self.written.run.compose.name()
        )
    }

    /// The user's containers that run, of those that have their network from this session.
    async fn running(&self) -> Result<Vec<String>, ContainerError> {
        let filter = format!("label={}", self.written.users);
        let said = self
            .engine()
            .ask(&["ps", "-q", "--filter", &filter])
            .await?;
        Ok(said.split_whitespace().map(str::to_owned).collect())
    }

    /// Whether any of the user's containers runs, as far as is known.
    pub async fn goes_on(&self) -> bool {
        self.running()
            .await
            .map_or(true, |running| !running.is_empty())
    }

    /// Waits until none of the user's containers runs. Cancel-safe.
    pub async fn follow(&self) {
        let mut ended = false;
        loop {
            let running = match self.running().await {
                Ok(running) => running,
                Err(error) => {
                    // It may be restarting.
                    tracing::warn!(%error, "is the project still there?");
                    sleep(PATIENCE).await;
                    continue;
                }
            };
            if running.is_empty() {
                if ended {
                    return;
                }
                // They may be about to restart.
                ended = true;
                sleep(PATIENCE).await;
                continue;
            }
            ended = false;
            let ids = running.iter().map(String::as_str);
            let args: Vec<&str> = ["wait"].into_iter().chain(ids).collect();
            // One that is gone already is no reason to complain.
            if self.engine().ask_unbounded(&args).await.is_err() {
                sleep(PATIENCE).await;
            }
        }
    }

    /// Ends what still runs of the user's, whose networks are about to go.
    pub async fn stop(&self) {
        if let Ok(running) = self.running().await
            && !running.is_empty()
        {
            let ids = running.iter().map(String::as_str);
            let args: Vec<&str> = ["stop"].into_iter().chain(ids).collect();
            if let Err(error) = self.engine().ask_unbounded(&args).await {
                tracing::debug!(%error, "containers of the project");
            }
        }
    }

    /// Removes the companions, and waits for that.
    pub async fn end(&self) {
        if let Some(warden) = self.take() {
            warden.remove().await;
        }
    }

    /// Leaves all to the warden, which ends what runs and removes the companions.
    pub fn abandon(&self) {
        drop(self.take());
    }

    /// Leaves the companions to the warden, which removes them after the user's containers.
    pub fn leave(&self) {
        if let Some(warden) = self.take() {
            warden.dismiss(Left::Follow);
        }
    }

    fn engine(&self) -> &Engine {
        &self.written.run.engine
    }

    fn take(&self) -> Option<Warden> {
        let mut warden = self.warden.lock().unwrap_or_else(PoisonError::into_inner);
        warden.take()
    }
}

impl Written {
    fn new(
        run: ComposeRun,
        model: &Value,
        session: &str,
        directory: PathBuf,
    ) -> Result<Self, String> {
        Ok(Self {
            run,
            name: model["name"].as_str().unwrap_or_default().to_owned(),
            users: Plan::label(session),
            directory,
            dir: PrivateDir::create(session).map_err(|error| error.to_string())?,
        })
    }

    /// Writes the file. It has the project's secrets, so a warden that removes it has to be there.
    fn write(&self, model: &Value) -> Result<(), String> {
        let file = self.dir.path().join(MODEL);
        std::fs::write(file, model.to_string()).map_err(|error| error.to_string())
    }

    /// What stands before the subcommand, with the model in place of the user's files.
    fn args(&self, more: &[&str]) -> Vec<OsString> {
        let mut args = self.run.line.flags.clone();
        args.extend(more.iter().map(OsString::from));
        if self.run.line.directory.is_none() {
            args.extend(["--project-directory".into(), self.directory.clone().into()]);
        }
        args.extend(["-p".into(), OsString::from(&self.name), "-f".into()]);
        args.push(self.dir.path().join(MODEL).into());
        args
    }

    fn command(
        &self,
        subcommand: &str,
        words: impl IntoIterator<Item = OsString>,
    ) -> child::Command {
        let compose = &self.run.compose;
        let mut args = compose.globals.clone();
        args.extend(self.args(&[]));
        args.push(subcommand.into());
        args.extend(self.run.start.flags.iter().cloned());
        args.extend(words);
        child::Command {
            program: compose.program.clone(),
            args,
            ..child::Command::default()
        }
    }

    /// The command that prints it. This has to be kept until that has ended.
    #[must_use]
    pub fn printing(&self) -> child::Command {
        self.command("config", [])
    }
}
