//! The intercepts that others have, and what they left: `kdev list`, `kdev restore`.

use crate::config::Config;
use crate::intercept::Claim;
use crate::k8s::redirect::list::{Intercepted, Scope};
use crate::k8s::redirect::sweep::Put;
use crate::k8s::redirect::{list, sweep};
use crate::k8s::{Client, discovery};
use crate::task::Tasks;

/// The intercepted Services of the session's namespace, or with `all` of all that the user may see.
///
/// # Errors
/// When the cluster cannot be asked, or the user may look nowhere.
pub async fn list(config: &Config, all: bool) -> anyhow::Result<Vec<Intercepted>> {
    let (client, _tasks) = connect(config).await?;
    Ok(list::list(&client, &scope(&client, all)).await?)
}

/// What to put back.
#[derive(Clone, Debug, Default)]
pub struct Restore {
    /// Only this Service.
    pub service: Option<String>,
    /// In all namespaces that the user may see.
    pub all: bool,
    /// Also what somebody still claims.
    pub force: bool,
}

/// Gives Services back that nobody claims any more, and cleans up after them. Calls `tell` after
/// each.
///
/// # Errors
/// When the cluster cannot be asked or refuses. What was done stays.
pub async fn restore(
    config: &Config,
    what: &Restore,
    tell: &mut (dyn FnMut(&Put) + Send),
) -> anyhow::Result<Vec<Put>> {
    let (client, _tasks) = connect(config).await?;
    let scope = scope(&client, what.all);
    let by = client.about().user.clone();
    let meant = |found: &Intercepted| what.service.as_ref().is_none_or(|s| *s == found.service);
    let ends = |_: &Intercepted, _: &Claim| what.force;
    Ok(sweep::put_back(&client, &scope, &by, false, &meant, &ends, tell).await?)
}

fn scope(client: &Client, all: bool) -> Scope {
    match all {
        true => Scope::All,
        false => Scope::Namespace(client.namespace().to_owned()),
    }
}

async fn connect(config: &Config) -> anyhow::Result<(Client, Tasks)> {
    let tasks = Tasks::new();
    let client = Client::connect_in(config.kube.clone(), config.environment(), &tasks).await?;
    // Anybody may ask for the version: tells a broken way from a missing permission.
    discovery::version(&client).await?;
    Ok((client, tasks))
}
