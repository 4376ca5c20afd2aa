//! Whether an install would go through, asked without the relay's program, which nothing that refuses
//! objects looks at.

use super::{Plan, Request, settings};
use crate::k8s::Client;
use crate::k8s::install::shape;
use crate::k8s::install::site::Site;
use crate::task::Tasks;

/// What is known of an install before anybody asks for it.
#[derive(Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// There is a relay already, of this version where it says so.
    Installed(Option<String>),
    /// The cluster takes all objects and a pod; what the user should know about them.
    Accepted(Vec<String>),
}

/// Has the API server say in a dry run whether it would take the relay's objects and one of its pods, with
/// what `shape` asks for. Nothing is changed.
///
/// # Errors
/// What would be refused, and what to do about it.
pub async fn foresee(client: &Client, shape: &shape::Asked) -> anyhow::Result<Foreseen> {
    let site = Site {
        client: client.clone(),
        namespace: client.namespace().to_owned(),
    };
    let found = site.look().await?;
    found.check_owner(&site.namespace)?;
    if found.deployment.is_some() {
        return Ok(Foreseen::Installed(found.version().map(str::to_owned)));
    }
    let request = Request {
        shape: shape.clone(),
        ..Request::default()
    };
    let settings = settings(&request, &found)?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let plan = Plan::of((site, Tasks::new()), found, settings, version, Vec::new()).await?;
    let more = plan.rehearse(&request).await?;
    Ok(Foreseen::Accepted(
        plan.notes.into_iter().chain(more).collect(),
    ))
}
