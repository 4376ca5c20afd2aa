//! `kdev uninstall`.

use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::terminal::{self, Text, word};
use super::{install, output};
use crate::app::install::{Removal, Removed};
use crate::app::signals::unless_told;
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  kdev uninstall -n dev            ask, then delete what `kdev install` made
  kdev uninstall -n dev --yes      do not ask
  kdev uninstall -n dev --force    end intercepts that go on, too

Services that lead to the relay get their own pods again first. Only what carries kdev's labels is
deleted; the namespace is then as it was before.";

/// Remove the relay from a namespace
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UninstallArgs {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// End the intercepts that use this relay; their owners are told
    #[arg(long)]
    force: bool,
    /// How long the pods may take to end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: UninstallArgs, config: &Config) -> anyhow::Result<u8> {
    let removal = output::progress(
        "Looking at the namespace",
        Removal::make(config, args.force),
    )
    .await?;
    let namespace = removal.namespace().to_owned();
    if removal.objects().len() > 0 && !args.yes && !agreed(&removal)? {
        output::note("nothing was changed");
        return Ok(1);
    }
    let mut tell = |done: &_| {
        if let Some(text) = install::object(done) {
            output::note(&text);
        }
    };
    let limit = Duration::from_secs(args.timeout);
    let removing = removal.carry_out(limit, &mut tell);
    let work = output::progress("Waiting until the relay's pods are gone", removing);
    let removed = match unless_told(work).await? {
        Ok(removed) => removed?,
        Err(number) => {
            output::note(&format!(
                "interrupted: what was not deleted yet stays in namespace {namespace}; \
                 `kdev uninstall -n {namespace}` goes on from there"
            ));
            return Ok(128 + number);
        }
    };
    if args.json {
        output::json(&removed, true)?;
    } else {
        output::line(&summary(&removed, &namespace))?;
    }
    Ok(0)
}

fn summary(removed: &Removed, namespace: &str) -> String {
    let given_back = match removed.given_back.as_slice() {
        [] => String::new(),
        names => format!("Gave back what was intercepted: {}.\n", names.join(", ")),
    };
    let objects = match removed.objects.len() {
        0 => format!("Nothing to remove: no relay of kdev's in namespace {namespace}."),
        1 => format!("Removed the relay from namespace {namespace}: 1 object."),
        n => format!("Removed the relay from namespace {namespace}: {n} objects."),
    };
    given_back + &objects
}

/// Asks on a terminal; without one the answer is what the command line says.
fn agreed(removal: &Removal) -> anyhow::Result<bool> {
    let namespace = removal.namespace();
    let names = removal
        .objects()
        .map(|(kind, name)| format!("{kind} {name}"));
    let mut names = names.collect::<Vec<_>>().join(", ");
    let intercepted: Vec<&str> = removal.intercepted().collect();
    if !intercepted.is_empty() {
        names = format!(
            "{names} (and Services given back: {})",
            intercepted.join(", ")
        );
    }
    if !(std::io::stdin().is_terminal() && terminal::shows_errors()) {
        bail!("{names} in namespace {namespace} would be deleted; pass --yes to agree to that");
    }
    let question = format!("Delete {} in namespace {namespace}? [y/N] ", word(&names));
    terminal::tell(&Text::default().say(&question));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
