//! Bringing companions into a project.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::super::model::{Asked, Joined, Other, join, know, service_of};
use super::super::project::Project;
use super::super::{PROJECT, hash};
use super::listed::{Listed, list};
use super::{Companions, Served, Written};
use crate::run::container::ContainerError;
use crate::run::container::companion::warden::{Warden, Watched};
use crate::run::container::companion::{Holder, PROGRAM, archive};
use crate::run::container::engine::Engine;

/// The name of the companions' image, without its tag.
const IMAGE: &str = "kdev-companion";
/// How long another kdev may take from starting a companion to having a way to it, and how often is
/// looked.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
const SERVED_EVERY: Duration = Duration::from_millis(300);

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
            let image = format!("{IMAGE}:{}", hash(&program));
            import(engine, &image, &program).await.map_err(said)?;
            Ok(image)
        };
        let looking = async { self.others().await.map_err(said) };
        let (image, there) = tokio::try_join!(finding, looking)?;
        let others = there.iter().map(|(listed, served)| {
            let other = Other {
                session: listed.session.clone(),
                shape: listed.shape.clone(),
                served: *served,
            };
            (service_of(&listed.name).to_owned(), other)
        });
        let joined = self.join(session, &others.collect(), &image, outside)?;
        // Those that Compose would take for strays.
        know(
            &mut self.model,
            there.iter().map(|(listed, _)| listed.name.clone()),
        );
        let one_off = self.run.start.one_off.is_some();
        let run = self.run.clone();
        let written = Written::new(self.run, &self.model, session, self.directory)?;
        let warden = Warden::begin(&Watched {
            engine: &run.engine,
            follows: run.start.detached,
            session,
            // What one container leaves of the project's is as it is without kdev.
            project: if one_off { "" } else { &written.name },
            image: &image,
            folder: written.dir.path(),
        });
        let warden =
            warden.map_err(|why| format!("no process watches over its networks: {why}"))?;
        let companions = Companions {
            active: self.active,
            warden: Mutex::new(Some(warden)),
            written,
        };
        let begun = async {
            companions.written.write(&self.model)?;
            let stale = there.iter().filter(|(listed, _)| {
                let service = service_of(&listed.name);
                joined.stale.iter().any(|stale| stale == service)
            });
            for (listed, _) in stale {
                let args = ["rm", "-f", "-v", &listed.id];
                run.engine.ask(&args).await.map_err(said)?;
            }
            companions
                .begin(session, &joined.companions)
                .await
                .map_err(said)
        };
        match begun.await {
            Ok(served) => Ok((companions, served)),
            Err(error) => {
                companions.end().await;
                Err(error)
            }
        }
    }

    /// Writes companions into it, starts none, and leaves it to be printed.
    ///
    /// # Errors
    /// Why it can have none.
    pub fn printed(mut self, outside: impl Fn(&str, &str)) -> Result<Written, String> {
        let image = format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION"));
        self.join("SESSION", &BTreeMap::new(), &image, outside)?;
        let written = Written::new(self.run, &self.model, "SESSION", self.directory)?;
        written.write(&self.model)?;
        Ok(written)
    }

    fn join(
        &mut self,
        session: &str,
        others: &BTreeMap<String, Other>,
        image: &str,
        outside: impl Fn(&str, &str),
    ) -> Result<Joined, String> {
        let start = &self.run.start;
        let asked = Asked {
            active: &self.active,
            // What one container depends on goes on after it, and so has no network of this session's.
            only: match start.one_off {
                Some(_) => &start.services,
                None => &self.run.only,
            },
            one_off: start.one_off.as_ref(),
            scales: &start.scales,
            pull: start.pull.as_deref(),
            session,
            others,
            image,
        };
        let joined = join(&mut self.model, &asked)?;
        if joined.companions.is_empty() {
            let why = joined.outside.iter();
            let why: Vec<String> = why
                .map(|(service, why)| format!("{service}: {why}"))
                .collect();
            return Err(match why.is_empty() {
                true => "no service of the project starts".to_owned(),
                false => why.join(", "),
            });
        }
        for (service, why) in &joined.outside {
            outside(service, why);
        }
        Ok(joined)
    }

    /// The companions of this project that are there, and whether another kdev serves them.
    async fn others(&self) -> Result<Vec<(Listed, bool)>, ContainerError> {
        let engine = &self.run.engine;
        let project = self.model["name"].as_str().unwrap_or_default();
        let there = list(engine, &format!("{PROJECT}={project}")).await?;
        // All at once, since each that nobody serves takes its time.
        let looking = there.into_iter().map(async |one| {
            let starts = self
                .active
                .iter()
                .any(|active| active == service_of(&one.name));
            let served = starts && one.runs && is_served(&one.holder(engine, &one.name)).await?;
            Ok::<_, ContainerError>((one, served))
        });
        try_join_all(looking).await
    }
}

/// Whether a kdev serves a companion, or is about to.
async fn is_served(holder: &Holder) -> Result<bool, ContainerError> {
    let until = Instant::now() + SERVED_WITHIN;
    loop {
        match holder.is_served().await {
            Ok(true) => return Ok(true),
            Ok(false) if Instant::now() >= until => return Ok(false),
            Err(error) if Instant::now() >= until => {
                return match holder.stands().await {
                    true => Err(error),
                    false => Ok(false),
                };
            }
            Ok(false) | Err(_) => sleep(SERVED_EVERY).await,
        }
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
