//! `kdev clear`, the helper that an ended intercept leaves: see [`crate::app::late`].

use std::fs::DirEntry;
use std::time::Duration;

use clap::Args;
use nix::unistd::{close, setsid};

use super::output;
use crate::app::{intercepts, late};
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  kdev clear -n dev   what `kdev intercept` starts when it ends";

/// How long all of it may take: the helper never stays, whatever hangs.
const LIMIT: Duration = Duration::from_secs(late::HELPER.as_secs() + 30);

/// Clear away what late callers of ended intercepts needed, once none comes any more
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ClearArgs {}

/// Lets go of the terminal, whose signals are not for the helper, and of files that somebody left open
/// for kdev, such as a lock. To be called before anything of kdev's own is open.
pub(super) fn let_go() {
    // It fails only for whoever has a session of their own.
    let _ = setsid();
    let Ok(open) = std::fs::read_dir("/dev/fd") else {
        return;
    };
    let number = |entry: std::io::Result<DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let open: Vec<i32> = open.filter_map(number).collect();
    for number in open.into_iter().filter(|number| *number > 2) {
        // The folder itself is among them, and closed.
        let _ = close(number);
    }
}

pub(super) async fn run(config: &Config) -> anyhow::Result<u8> {
    // Whoever started it waits for this, and for nothing else.
    let _ = output::line("");
    tokio::time::timeout(LIMIT, intercepts::clear(config)).await??;
    Ok(0)
}
