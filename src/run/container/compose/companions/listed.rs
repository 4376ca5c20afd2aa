//! The companions that an engine has.

use super::super::SHAPE;
use crate::run::container::ContainerError;
use crate::run::container::companion::{Holder, LABEL};
use crate::run::container::engine::Engine;

/// The label with a container's service.
const SERVICE: &str = "com.docker.compose.service";

/// A companion that is there.
pub(super) struct Listed {
    pub(super) id: String,
    /// Its own service.
    pub(super) name: String,
    /// What its labels say.
    pub(super) session: String,
    pub(super) shape: String,
    /// Whether it runs, or is about to again.
    pub(super) runs: bool,
}

impl Listed {
    pub(super) fn holder(&self, engine: &Engine, what: &str) -> Holder {
        Holder::new(engine.clone(), self.id.clone(), what)
    }
}

/// The companions that have that label.
pub(super) async fn list(engine: &Engine, label: &str) -> Result<Vec<Listed>, ContainerError> {
    let filter = format!("label={label}");
    let own = format!("label={LABEL}");
    let labels = [SERVICE, LABEL, SHAPE].map(|label| format!("{{{{.Label \"{label}\"}}}}"));
    let format = format!("{{{{.ID}}}}\t{{{{.State}}}}\t{}", labels.join("\t"));
    #[rustfmt::skip]
    let args = [
        "ps", "-a", "--no-trunc", "--filter", &filter, "--filter", &own, "--format", &format,
    ];
    let said = engine.ask(&args).await?;
    let of = |line: &str| {
        let mut words = line.split('\t');
        let (id, state) = (words.next()?.to_owned(), words.next()?);
        let mut label = || words.next().unwrap_or_default().trim().to_owned();
        Some(Listed {
            id,
            runs: ["running", "restarting"].contains(&state),
            name: label(),
            session: label(),
            shape: label(),
        })
    };
    Ok(said.lines().filter_map(of).collect())
}
