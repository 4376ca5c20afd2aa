//! `kdev env`: the variables by which programs of a shell use a running `kdev connect`.

use std::collections::BTreeMap;

use anyhow::bail;

use super::registry::{self, Report};
use super::share::{self, before};
pub use super::share::{Inherited, inherited};
use crate::config::Config;
use crate::run::environment::{self, AllProxy, ProxyAddress, Settings};
use crate::upstream::BEFORE;

/// Changes to an environment: a value to set, or `None` to remove the variable.
pub type Changes = BTreeMap<String, Option<String>>;

/// The variables that `kdev run` would set beside the running `kdev connect` of `config`, and one
/// more that keeps what they replace. Where the user said nothing of it (`any`), the only one that
/// runs will do, and `note` says which that is.
///
/// # Errors
/// When no such `kdev connect` runs.
pub async fn set(
    config: &Config,
    inherited: &Inherited,
    any: bool,
    note: impl FnOnce(&str),
) -> anyhow::Result<Changes> {
    let (lease, lends) = match share::borrow(config).await {
        Some(borrowed) => borrowed,
        None => {
            let only = if any { share::only().await } else { None };
            let Some((lease, lends)) = only else {
                bail!("{}", nothing_runs().await);
            };
            note(&format!(
                "the only `kdev connect` that runs is of {}",
                described(&lease.report)
            ));
            (lease, lends)
        }
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

fn described(report: &Report) -> String {
    format!(
        "context {} namespace {} (pid {})",
        report.context, report.namespace, report.pid
    )
}

async fn nothing_runs() -> String {
    let running = registry::lenders().await.unwrap_or_default();
    let running: Vec<String> = running
        .iter()
        .map(|lease| &lease.report)
        .map(described)
        .collect();
    let others = match running.as_slice() {
        [] => String::new(),
        [other] => format!(", only one of {other}"),
        several => format!(
            ", only several others, of {} (say which with --context and --namespace)",
            several.join(", ")
        ),
    };
    format!(
        "no `kdev connect` is running with the same settings and proxy variables{others}; start `kdev \
         connect` in another terminal"
    )
}
