//! A container that owns the network of the user's, and brings what programs there send to kdev.
//!
//! ```text
//! kdev ──engine's exec: one stream──▶ companion (the relay's program, NET_ADMIN there alone)
//!                                        │ one network
//!                                     the user's container, as it was written, unprivileged
//! ```
//!
//! It is made from the user's own image, so that nothing else is pulled, and gets its program by the
//! engine's `cp`: nothing is mounted, so the engine may be on another machine. It is there before the
//! user's container, and goes after it.

pub(super) mod archive;
mod holder;
pub mod warden;
mod way;

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

pub use self::holder::Holder;
pub use self::way::Way;

use self::warden::{Left, Warden, Watched};
use self::way::Closed;
use super::argv::Split;
use super::command::{self, Started};
use super::engine::{Engine, Kind};
use super::plan::client_proxies;
use super::{ContainerError, ContainerRun, argv};
use crate::addr::inside::{DNS, HOST_NAME, HOST_V4};
use crate::companion::HOLD;
use crate::run::child;

/// The label that marks the companion of a session.
pub(super) const LABEL: &str = "dev.kdev.companion";
/// Where its program lies in it.
pub(super) const PROGRAM: &str = "kdev-companion";

/// A container command whose network becomes a companion's.
#[derive(Clone, Debug)]
pub struct Joining {
    run: ContainerRun,
    split: Split,
    session: String,
}

/// A companion that stands.
#[derive(Debug)]
pub struct Companion {
    joining: Joining,
    holder: Holder,
    warden: Mutex<Option<Warden>>,
}

impl ContainerRun {
    /// The command with a companion, for `session`, which is unique among those that use the engine.
    ///
    /// # Errors
    /// Why it can have none, as the end of a sentence about the container.
    pub fn joining(&self, session: &str) -> Result<Joining, String> {
        if self.engine.kind == Kind::Docker && client_proxies(self).is_some() {
            // Its programs would ask that proxy for the cluster's names.
            return Err("gets the proxies of Docker's client configuration".to_owned());
        }
        let image_at = self.image_at;
        let split = argv::split(self.engine.kind, &self.args, self.flags_at, image_at)?;
        Ok(Joining {
            run: self.clone(),
            split,
            session: session.to_owned(),
        })
    }
}

impl Joining {
    /// The nameservers that the user wants asked for what is not the cluster's; none for those of this
    /// machine.
    #[must_use]
    pub fn resolvers(&self) -> &[String] {
        &self.split.resolvers
    }

    /// Makes the companion, with the program that `find` has for the engine's machine, and the way to
    /// it.
    ///
    /// # Errors
    /// Why there is none. Nothing of it is left then.
    pub async fn make<F>(self, find: impl FnOnce(String) -> F) -> Result<(Companion, Way), Failed>
    where
        F: Future<Output = Result<Vec<u8>, String>>,
    {
        let warden = Warden::begin(&Watched {
            engine: &self.run.engine,
            follows: self.run.detached(),
            session: &self.session,
            project: "",
            image: "",
            folder: Path::new(""),
        });
        let warden = warden.map_err(|error| {
            Failed::Uncaptured(format!("no process watches over its network: {error}"))
        })?;
        let mut companion = Companion {
            // Its id is known once it is created.
            holder: Holder::new(self.run.engine.clone(), String::new(), "the container"),
            joining: self,
            warden: Mutex::new(Some(warden)),
        };
        match companion.begin(find).await {
            Ok(way) => Ok((companion, way)),
            Err(why) => {
                companion.remove().await;
                Err(why)
            }
        }
    }
}

impl Companion {
    async fn begin<F>(&mut self, find: impl FnOnce(String) -> F) -> Result<Way, Failed>
    where
        F: Future<Output = Result<Vec<u8>, String>>,
    {
        let kind = self.engine().kind;
        let failed = |error: ContainerError| Failed::of(error, kind);
        let finding = async {
            let machine = self.engine().machine().await.map_err(failed)?;
            find(machine).await.map_err(Failed::Uncaptured)
        };
        let creating = async { self.create().await.map_err(failed) };
        // Both to their ends, so that what was created is removed.
        let (program, id) = tokio::join!(finding, creating);
        self.holder.id = id?;
        let archive = archive::of(PROGRAM, &program?);
        let to = format!("{}:/", self.holder.id);
        let engine = self.engine();
        let fed = engine.feed(&["cp", "-", &to], &archive).await;
        fed.map_err(|error| Failed::Uncaptured(error.to_string()))?;
        let args = ["start", "-a", "-i", &self.holder.id];
        let opened = Way::open(engine.question(args)).await;
        opened.map_err(|closed| match closed {
            Closed::Silent(said) => failed(engine.failed(&["start"], said)),
            Closed::Failed(why) => Failed::Uncaptured(why),
        })
    }

    /// How it is reached.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    fn engine(&self) -> &Engine {
        &self.joining.run.engine
    }

    async fn create(&self) -> Result<String, ContainerError> {
        let Joining {
            run,
            split,
            session,
        } = &self.joining;
        let mut args = vec!["create".to_owned()];
        let mut flag = |name: &str, value: &str| args.push(format!("--{name}={value}"));
        // Beside the container in a list, and in what its address is called.
        let name = run.flags.name.as_ref().map(|name| format!("{name}-"));
        flag(
            "name",
            &format!("kdev-{}{session}", name.unwrap_or_default()),
        );
        flag("label", &label(session));
        flag("cap-drop", "ALL");
        // For rules and sockets in its own network, and the port for names there.
        flag("cap-add", "NET_ADMIN");
        flag("cap-add", "NET_BIND_SERVICE");
        // Its input and output are the way to kdev, and nothing for a log.
        flag("interactive", "true");
        flag("log-driver", "none");
        flag("user", "0:0");
        flag("entrypoint", &format!("/{PROGRAM}"));
        flag("dns", &DNS.to_string());
        flag("add-host", &format!("{HOST_NAME}:{HOST_V4}"));
        if !split.searches {
            // kdev knows short names, and those of the user's network go before the cluster's.
            flag("dns-search", ".");
        }
        if run.engine.kind != Kind::Nerdctl {
            // What its image checks does not run in it.
            args.push("--no-healthcheck".to_owned());
        }
        if !split.moved.iter().any(|flag| flag.starts_with("--restart")) {
            args.push("--rm".to_owned());
        }
        args.extend(split.moved.iter().cloned());
        args.extend([run.image.clone(), HOLD.to_owned()]);
        let pulls = split.moved.iter().any(|flag| flag.starts_with("--pull"));
        let mut now = args.clone();
        if !pulls {
            now.insert(1, "--pull=never".to_owned());
            let created = run.engine.answer(run.engine.question(&now), "create").await;
            let missing = |error: &ContainerError| {
                let said = error.to_string().to_lowercase();
                said.contains("no such image")
                    || said.contains("not known")
                    || said.contains("not found")
            };
            match created {
                Err(error) if missing(&error) => {}
                created => return created,
            }
        }
        run.engine
            .answer(run.engine.question(&args), "create")
            .await
    }

    /// The user's command in its network, and the handle to what it starts, as
    /// [`Plan::command`](super::Plan::command) has them.
    ///
    /// # Errors
    /// When the variables cannot be handed over.
    pub fn command(
        &self,
        variables: &[(String, String)],
    ) -> Result<(child::Command, Started), ContainerError> {
        let Joining {
            run,
            split,
            session,
        } = &self.joining;
        let before = &run.args[..run.flags_at];
        let network: OsString = format!("--network=container:{}", self.holder.id).into();
        let mut run = run.clone();
        run.args = [before, &[network], &split.kept].concat();
        let (command, mut started) = command::of(&run, session, variables, &[])?;
        started.joined = true;
        Ok((command, started))
    }

    /// Ends it. It is gone when this returns where that can be seen: where it has ports or a network of
    /// the user's.
    pub async fn end(&self) {
        let seen = ["-p=", "-P", "--publish", "--net", "--ip", "--link"];
        let mut moved = self.joining.split.moved.iter();
        if moved.any(|flag| seen.iter().any(|seen| flag.starts_with(seen))) {
            self.remove().await;
        } else if let Some(warden) = self.take() {
            warden.dismiss(Left::Remove);
        }
    }

    async fn remove(&self) {
        if let Some(warden) = self.take() {
            warden.remove().await;
        }
    }

    fn take(&self) -> Option<Warden> {
        let mut warden = self.warden.lock().unwrap_or_else(PoisonError::into_inner);
        warden.take()
    }
}

/// Why there is no companion.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The engine refuses what the user asks, and would without kdev.
    #[error(transparent)]
    Refused(ContainerError),
    /// The network cannot be had like this.
    #[error("{0}")]
    Uncaptured(String),
}

impl Failed {
    /// An error of the engine's, about a container that differs from the user's in what it may.
    fn of(error: ContainerError, kind: Kind) -> Self {
        let said = error.to_string().to_lowercase();
        let about_rights = [
            "net_admin",
            "capabilit",
            "not permitted",
            "denied",
            "seccomp",
        ];
        match kind {
            Kind::Docker if !about_rights.iter().any(|word| said.contains(word)) => {
                Self::Refused(error)
            }
            _ => Self::Uncaptured(error.to_string()),
        }
    }
}

pub(super) fn label(session: &str) -> String {
    format!("{LABEL}={session}")
}
