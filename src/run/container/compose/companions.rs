//! The companions of a project.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::argv::Start;
use super::model::{Asked, Joined, Placed, join, service_of};
use super::project::Project;
use super::{ComposeRun, PROJECT};
use crate::run::child;
use crate::run::container::command::PrivateDir;
use crate::run::container::companion::warden::{Left, Warden, Watched};
use crate::run::container::companion::{Holder, LABEL, PROGRAM, Way, archive, label};
use crate::run::container::engine::Engine;
use crate::run::container::{ContainerError, Plan};

/// The label with a container's service.
const SERVICE: &str = "com.docker.compose.service";
/// The name of the companions' image, without its tag.
const IMAGE: &str = "kdev-companion";
/// How long one that was about to restart may be away.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long another kdev may take from starting a companion to having a way to it, and how often is
/// looked.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
const SERVED_EVERY: Duration = Duration::from_millis(300);
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

impl Project {
    /// Writes companions into it, with `session` for their label, and starts them, with the program
    /// that `find` has for the engine's machine. `outside` gets the services that stay outside, and why.
    ///
    /// # Errors
    /// Why that cannot be. Nothing of it is left then.
    pub async fn make<F>(
        mut self,
        session: &str,
        find: impl FnOnce(String) -> F,
        outside: impl Fn(&str, &str),
    ) -> Result<(Companions, Vec<Served>), String>
    where
        F: Future<Output = Result<Vec<u8>, String>>,
    {
        let finding = async {
            let engine = &self.run.engine;
            let machine = engine.machine().await.map_err(said)?;
            let program = find(machine).await?;
            let image = format!("{IMAGE}:{}", tag(&program));
            import(engine, &image, &program).await.map_err(said)?;
            Ok(image)
        };
        let looking = async { self.others().await.map_err(said) };
        let (image, others) = tokio::try_join!(finding, looking)?;
        let (written, placed) = self.write(session, &others, &image, outside)?;
        let warden = Warden::begin(&Watched {
            engine: &self.run.engine,
            follows: self.run.start.detached,
            own: label(session),
            users: written.users.clone(),
            project: &written.name,
            image: &image,
        });
        let warden =
            warden.map_err(|why| format!("no process watches over its networks: {why}"))?;
        let companions = Companions {
            written,
            active: self.active,
            warden: Mutex::new(Some(warden)),
        };
        match companions.begin(session, &placed, &others).await {
            Ok(served) => Ok((companions, served)),
            Err(error) => {
                companions.end().await;
                Err(said(error))
            }
        }
    }

    /// Writes companions into it, starts none, and leaves it to be printed.
    ///
    /// # Errors
    /// Why it can have none.
    pub fn printed(mut self, outside: impl Fn(&str, &str)) -> Result<Written, String> {
        let image = format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION"));
        let (written, _) = self.write("SESSION", &BTreeMap::new(), &image, outside)?;
        Ok(written)
    }

    fn write(
        &mut self,
        session: &str,
        others: &BTreeMap<String, String>,
        image: &str,
        outside: impl Fn(&str, &str),
    ) -> Result<(Written, Vec<Placed>), String> {
        let model = &mut self.model;
        let name = model["name"].as_str().unwrap_or_default().to_owned();
        let Start {
            services, one_off, ..
        } = &self.run.start;
        let mut only = self.run.only.clone();
        if one_off.is_some() {
            // What it depends on goes on after it, and so has no network of this session's.
            only.clone_from(services);
            let served =
                |service: &&String| others.contains_key(*service) && !services.contains(service);
            only.extend(self.active.iter().filter(served).cloned());
        }
        let asked = Asked {
            active: &self.active,
            only: &only,
            one_off: one_off.as_ref(),
            scales: &self.run.start.scales,
            pull: self.run.start.pull.as_deref(),
            session,
            others,
            image,
        };
        let Joined {
            companions,
            outside: left,
        } = join(model, &asked)?;
        if companions.is_empty() {
            let why = left
                .iter()
                .map(|(service, why)| format!("{service}: {why}"));
            let why: Vec<String> = why.collect();
            return Err(match why.is_empty() {
                true => "no service of the project starts".to_owned(),
                false => why.join(", "),
            });
        }
        for (service, why) in &left {
            outside(service, why);
        }
        let dir = PrivateDir::create(session).map_err(|error| error.to_string())?;
        let file = dir.path().join(MODEL);
        std::fs::write(file, model.to_string()).map_err(|error| error.to_string())?;
        let written = Written {
            run: self.run.clone(),
            name,
            users: Plan::label(session),
            directory: self.directory.clone(),
            dir,
        };
        Ok((written, companions))
    }

    /// The companions of this project that another kdev serves: their labels, by their services. Those
    /// that nobody serves any more are removed.
    async fn others(&self) -> Result<BTreeMap<String, String>, ContainerError> {
        let engine = &self.run.engine;
        let project = self.model["name"].as_str().unwrap_or_default();
        let there = list(engine, &format!("{PROJECT}={project}")).await?;
        // All at once, since each that nobody serves takes its time.
        let looking = there.into_iter().map(async |one| {
            let holder = one.holder(engine, &one.name);
            let until = Instant::now() + SERVED_WITHIN;
            while !holder.is_served().await {
                if Instant::now() >= until {
                    engine.ask(&["rm", "-f", "-v", &one.id]).await?;
                    return Ok(None);
                }
                sleep(SERVED_EVERY).await;
            }
            Ok::<_, ContainerError>(Some((service_of(&one.name).to_owned(), one.session)))
        });
        let others = try_join_all(looking).await?;
        Ok(others.into_iter().flatten().collect())
    }
}

/// A companion that runs.
struct Listed {
    id: String,
    /// Its own service.
    name: String,
    /// Its label's value.
    session: String,
}

impl Listed {
    fn holder(&self, engine: &Engine, what: &str) -> Holder {
        Holder::new(engine.clone(), self.id.clone(), what)
    }
}

fn said(error: ContainerError) -> String {
    error.to_string()
}

/// Makes sure that the engine has the image of that name.
async fn import(engine: &Engine, image: &str, program: &[u8]) -> Result<(), ContainerError> {
    let asked = ["image", "inspect", "--format", "{{.Id}}", image];
    if engine.ask(&asked).await.is_ok() {
        return Ok(());
    }
    let entry = format!("ENTRYPOINT [\"/{PROGRAM}\"]");
    let args = ["import", "--change", &entry, "-", image];
    engine.feed(&args, &archive::of(PROGRAM, program)).await?;
    Ok(())
}

/// The companions that run and have that label.
async fn list(engine: &Engine, label: &str) -> Result<Vec<Listed>, ContainerError> {
    let filter = format!("label={label}");
    let own = format!("label={LABEL}");
    let format = format!("{{{{.ID}}}} {{{{.Label \"{SERVICE}\"}}}} {{{{.Label \"{LABEL}\"}}}}");
    #[rustfmt::skip]
    let args = [
        "ps", "--no-trunc", "--filter", &filter, "--filter", &own, "--format", &format,
    ];
    let said = engine.ask(&args).await?;
    let of = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some(Listed {
            id: words.next()?,
            name: words.next()?,
            session: words.next()?,
        })
    };
    Ok(said.lines().filter_map(of).collect())
}

/// What tells one program from another.
fn tag(program: &[u8]) -> String {
    let digest = Sha256::digest(program);
    let digest = digest.iter().take(6);
    digest.map(|byte| format!("{byte:02x}")).collect()
}

impl Companions {
    /// Starts the companions of `placed` that no `others` serve.
    async fn begin(
        &self,
        session: &str,
        placed: &[Placed],
        others: &BTreeMap<String, String>,
    ) -> Result<Vec<Served>, ContainerError> {
        let ours = placed
            .iter()
            .filter(|placed| !others.contains_key(&placed.service));
        let ours: Vec<&Placed> = ours.collect();
        if ours.is_empty() {
            return Ok(Vec::new());
        }
        let mut args = self.written.args(&["--progress", "quiet"]);
        args.extend(["up", "-d", "--"].map(OsString::from));
        args.extend(ours.iter().map(|placed| OsString::from(&placed.name)));
        let compose = &self.written.run.compose;
        compose.answer(compose.question(&args), "up").await?;
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

    /// Whether any of the user's containers runs.
    pub async fn goes_on(&self) -> bool {
        self.running()
            .await
            .is_ok_and(|running| !running.is_empty())
    }

    /// Waits until none of the user's containers runs. Cancel-safe.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn follow(&self) -> Result<(), ContainerError> {
        let mut ended = false;
        loop {
            let running = self.running().await?;
            if running.is_empty() {
                if ended {
                    return Ok(());
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
