//! `kdev restore`.

use clap::Args;
use serde_json::{Value, json};

use super::terminal::word;
use super::{complete, output};
use crate::app::intercepts::{self, Restore};
use crate::app::signals::unless_told;
use crate::config::Config;
use crate::intercept::Left;
use crate::k8s::redirect::sweep::Put;

const EXAMPLES: &str = "\
Examples:
  kdev restore                  what nobody intercepts any more
  kdev restore -A               the same in all namespaces that you may see
  kdev restore orders --force   also what somebody claims, who is told

A Service that is given back has its own pods again, and all its fields belong to whoever set them.
Then it waits until callers who came before are gone, at most 45 s, and cleans up after them; Ctrl-C
leaves that to the next kdev.

Exit code: 1 where SERVICE is named and somebody still intercepts it.";

/// Give back Services that an intercept left behind
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestoreArgs {
    /// Give back only this Service
    #[arg(add = complete::intercepted())]
    service: Option<String>,
    /// Look in all namespaces, or in those that you may see
    #[arg(short = 'A', long, conflicts_with = "service")]
    all_namespaces: bool,
    /// Give back what somebody still claims, too
    #[arg(long)]
    force: bool,
    /// Give back only what this owner claims, as `kdev list` shows it
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: RestoreArgs, config: &Config) -> anyhow::Result<u8> {
    let what = Restore {
        service: args.service,
        all: args.all_namespaces,
        force: args.force,
        owner: args.owner,
    };
    let mut tell = |put: &Put| {
        if !args.json {
            // That nobody reads it is no reason to stop half-way.
            let _ = output::line(&describe(put));
        }
    };
    let named = what.service.is_some();
    let nothing = nothing(what.service.as_deref(), what.owner.as_deref());
    let restoring = intercepts::restore(config, &what, &mut tell);
    let done = match unless_told(output::progress(
        "Waiting for late callers to leave",
        restoring,
    ))
    .await?
    {
        Ok(done) => done?,
        Err(number) => {
            output::note(
                "interrupted before all was cleaned up; run `kdev restore` again to go on",
            );
            return Ok(128 + number);
        }
    };
    if args.json {
        let all: Vec<Value> = done.iter().map(document).collect();
        output::json(&all, true)?;
    } else if done.is_empty() {
        output::line(&nothing)?;
    }
    let kept = done.iter().any(|put| matches!(put.left, Left::Others(_)));
    Ok(u8::from(named && kept))
}

/// What to say where there was nothing to do.
fn nothing(service: Option<&str>, owner: Option<&str>) -> String {
    match (service, owner) {
        (Some(service), None) => {
            format!("Nothing to restore: {} is not intercepted.", word(service))
        }
        (_, Some(owner)) => format!(
            "Nothing to restore: {} intercepts nothing here.",
            word(owner)
        ),
        (None, None) => "Nothing to restore.".to_owned(),
    }
}

fn describe(put: &Put) -> String {
    let service = format!("{}.{}", put.service, put.namespace);
    match &put.left {
        Left::Others(count) => format!(
            "{service} is still intercepted (claims: {count}); `kdev list` shows by whom, --force \
             ends that too"
        ),
        Left::Last | Left::Nothing if put.was_back => format!(
            "{service} had its own pods already; clearing away what was left for late callers"
        ),
        Left::Last | Left::Nothing => format!("{service} has its own pods again"),
    }
}

pub(super) fn document(put: &Put) -> Value {
    let others = match put.left {
        Left::Others(count) => count,
        Left::Last | Left::Nothing => 0,
    };
    json!({
        "namespace": put.namespace,
        "service": put.service,
        "ended": put.ended,
        "claims_left": others,
        "was_back": put.was_back,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_help_says_how_long_it_waits() {
        let limit = format!("at most {} s", intercepts::CALLERS.as_secs());
        assert!(EXAMPLES.contains(&limit));
    }
}
