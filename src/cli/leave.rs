//! `kdev leave`.

use clap::Args;
use serde_json::Value;

use super::terminal::word;
use super::{complete, output, restore};
use crate::app::intercepts::{self, Leave};
use crate::app::signals::unless_told;
use crate::config::Config;
use crate::intercept::Left;
use crate::k8s::redirect::sweep::Put;

const EXAMPLES: &str = "\
Examples:
  kdev leave orders             your intercepts of this Service
  kdev leave k7f3qa             one, by the id that `kdev list` shows
  kdev leave --all              all of yours in the namespace
  kdev leave k7f3qa --force     somebody else's, who is told that it was you
  kdev leave --all --owner ci --force   all that belong to `ci`

Ctrl-C in its own terminal ends an intercept as well.";

/// End intercepts from another terminal
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LeaveArgs {
    /// A Service, or an intercept's id
    #[arg(value_name = "ID|SERVICE", required_unless_present = "all", add = complete::intercepts())]
    what: Option<String>,
    /// End all of yours in the namespace, or on the Service
    #[arg(long)]
    all: bool,
    /// End those of others, too; their owners are told
    #[arg(long)]
    force: bool,
    /// End only those of this owner, as `kdev list` shows it; others' need --force
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: LeaveArgs, config: &Config) -> anyhow::Result<u8> {
    let what = Leave {
        what: args.what,
        all: args.all,
        force: args.force,
        owner: args.owner,
    };
    let mut tell = |put: &Put| {
        if !args.json {
            for claim in &put.ended {
                // That nobody reads it is no reason to stop half-way.
                let (id, owner) = (word(&claim.id), word(&claim.owner));
                let _ = output::line(&format!("intercept {id} of {owner} ended"));
            }
            let service = format!("{}.{}", put.service, put.namespace);
            let _ = output::line(&match put.left {
                Left::Others(count) => format!("{service}: {count} of others stay"),
                Left::Last | Left::Nothing => format!("{service} has its own pods again"),
            });
        }
    };
    let leaving = intercepts::leave(config, &what, &mut tell);
    let done = match unless_told(output::progress("Ending intercepts", leaving)).await? {
        Ok(done) => done?,
        Err(number) => {
            output::note(
                "interrupted before all was given back; `kdev list` shows what goes on, `kdev restore` gives back \
                 what nobody intercepts any more",
            );
            return Ok(128 + number);
        }
    };
    if args.json {
        let all: Vec<Value> = done.iter().map(restore::document).collect();
        output::json(&all, true)?;
    } else if done.is_empty() {
        output::line("Nothing of yours is intercepted.")?;
    }
    Ok(0)
}
