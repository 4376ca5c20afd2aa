//! `kdev env`: the variables by which programs of a shell use a running `kdev connect`.

use std::collections::BTreeMap;

use anyhow::bail;

use super::registry;
use super::share::{self, before};
pub use super::share::{Inherited, inherited};
use crate::config::Config;
use crate::run::environment::{self, AllProxy, ProxyAddress, Settings};
use crate::upstream::BEFORE;

/// Changes to an environment: a value to set, or `None` to remove the variable.
pub type Changes = BTreeMap<String, Option<String>>;

/// The variables that `kdev run` would set beside the running `kdev connect` of `config`, and one
/// more that keeps what they replace.
///
/// # Errors
/// When no such `kdev connect` runs.
pub async fn set(config: &Config, inherited: &Inherited) -> anyhow::Result<Changes> {
    let Some((lease, lends)) = share::borrow(config).await else {
        bail!("{}", nothing_runs().await);
    };
    // Refused here, where it can be said; elsewhere it counts as nothing.
    before(inherited)?;
    let settings = share::settings(config, &lease.report, &lends);
    let variables = share::variables(config, &settings, inherited);
    let set = variables.set.into_iter();
    Ok(set.map(|(name, value)| (name, Some(value))).collect())
}

/// What takes those variables back, whether or not a `kdev connect` runs.
///
/// # Errors
/// When what was kept of the environment is broken.
pub fn unset(inherited: &Inherited) -> anyhow::Result<Changes> {
    let before = before(inherited)?.unwrap_or_default();
    // The names are the same for all sessions; values do not matter.
    let any = Settings {
        proxy: ProxyAddress::new("127.0.0.1", 1),
        direct: Vec::new(),
        domain: String::new(),
        context: Some(String::new()),
        namespace: Some(String::new()),
        all_proxy: AllProxy::default(),
    };
    let names = environment::variables(&any, |_| None).set.into_iter();
    let inside = ["KDEV_KUBECONFIG", "KDEV_AS", "KDEV_AS_GROUP", BEFORE];
    let names = names.map(|(name, _)| name).chain(inside.map(str::to_owned));
    Ok(names
        .map(|name| {
            let value = before.get(&name).cloned();
            (name, value)
        })
        .collect())
}

async fn nothing_runs() -> String {
    let running = registry::lenders().await.unwrap_or_default();
    let running: Vec<String> = running
        .iter()
        .map(|lease| &lease.report)
        .map(|r| {
            format!(
                "context {} namespace {} (pid {})",
                r.context, r.namespace, r.pid
            )
        })
        .collect();
    let others = match running.as_slice() {
        [] => String::new(),
        list => format!(", only others, of {}", list.join(", ")),
    };
    format!(
        "no `kdev connect` with the same settings and proxy variables runs{others}; start `kdev \
         connect` in another terminal"
    )
}
