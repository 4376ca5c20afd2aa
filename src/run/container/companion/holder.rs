//! The container that holds a network, and how kdev gets into it.

use super::PROGRAM;
use super::way::{Closed, Way};
use crate::companion::COMPANION;
use crate::run::container::ContainerError;
use crate::run::container::engine::Engine;

/// A companion as it is reached, any number of times. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Holder {
    pub(super) engine: Engine,
    pub(super) id: String,
    what: String,
}

impl Holder {
    /// That container; `what` is the name for messages of that whose network it holds.
    pub(in crate::run::container) fn new(engine: Engine, id: String, what: &str) -> Self {
        Self {
            engine,
            id,
            what: what.to_owned(),
        }
    }

    /// What has the network, for messages.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// A way to it. There is one at a time: the one that was before has to be gone.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self) -> Result<Way, String> {
        let program = format!("/{PROGRAM}");
        #[rustfmt::skip]
        let args = ["exec", "-i", "-u", "0", &self.id, &program, COMPANION];
        let opened = Way::open(self.engine.question(args)).await;
        opened.map_err(|closed| match closed {
            Closed::Silent(why) | Closed::Failed(why) => why,
        })
    }

    /// Whether a kdev has a way to it. Looks only, so that no other kdev is disturbed.
    ///
    /// # Errors
    /// When the engine cannot tell.
    pub(in crate::run::container) async fn is_served(&self) -> Result<bool, ContainerError> {
        let program = format!("{PROGRAM} {COMPANION}");
        let processes = self.engine.ask(&["top", &self.id]).await?;
        Ok(processes.contains(&program))
    }

    /// Whether it runs. Where it does not, its network is gone, and what joined it has none.
    pub async fn stands(&self) -> bool {
        let asked = ["inspect", "--format", "{{.State.Running}}", &self.id];
        // An engine that does not answer is asked again.
        match self.engine.ask(&asked).await {
            Ok(running) => running == "true",
            Err(ContainerError::Engine { reason, .. }) => {
                !reason.to_lowercase().contains("no such")
            }
            Err(_) => true,
        }
    }
}
