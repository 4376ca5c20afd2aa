//! `kdev man`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::Man;

use super::{help, output};

const EXAMPLES: &str = "\
Examples:
  kdev man | man -l -                      the page of kdev itself
  kdev man run | man -l -                  that of a command
  kdev man --out ~/.local/share/man/man1   one for each command: man kdev-run";

/// Print or write man pages
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ManArgs {
    /// Command to print the page of: `run`, or `config show` [default: kdev itself]
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write a page for each command into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> anyhow::Result<u8> {
    let mut root = help::for_man().disable_help_subcommand(true);
    root.build();
    match &args.out {
        None => {
            let (command, name) = find(&root, &args.command)?;
            output::data(&String::from_utf8_lossy(&page(command, &name)?))?;
        }
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            write(&root, "kdev", folder)?;
        }
    }
    Ok(0)
}

/// The command that `words` lead to, and the name of its page.
fn find<'a>(root: &'a Command, words: &[String]) -> anyhow::Result<(&'a Command, String)> {
    let mut found = (root, "kdev".to_owned());
    for word in words {
        let (command, name) = found;
        let inner = command.find_subcommand(word).filter(|c| !c.is_hide_set());
        let inner = inner.with_context(|| {
            let all = command.get_subcommands().filter(|c| !c.is_hide_set());
            let all: Vec<&str> = all.map(Command::get_name).collect();
            match all.is_empty() {
                true => format!("`{}` has no commands of its own", name.replace('-', " ")),
                false => format!("there is no command {word}; there are {}", all.join(", ")),
            }
        })?;
        found = (inner, format!("{name}-{}", inner.get_name()));
    }
    Ok(found)
}

/// Writes the page of a command and of those below it.
fn write(command: &Command, name: &str, folder: &Path) -> anyhow::Result<()> {
    let file = folder.join(format!("{name}.1"));
    std::fs::write(&file, page(command, name)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    for inner in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write(inner, &format!("{name}-{}", inner.get_name()), folder)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name)
        .render(&mut page)
        .context("cannot make the man page")?;
    Ok(page)
}
