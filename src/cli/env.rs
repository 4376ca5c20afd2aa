//! `kdev env`.

use clap::{Args, ValueEnum};

use super::{SettingFlags, output};
use crate::app::env::{self, Changes};
use crate::config::{Config, Given, on};

mod quote;

pub(super) use self::quote::posix_word;

const EXAMPLES: &str = "\
Examples:
  kdev env                          print the variables for the shell that asks
  eval \"$(kdev env)\"                let this shell's programs use kdev connect
  eval \"$(kdev env --unset)\"        end that, and bring back what was replaced
  kdev env --shell fish | source    in fish
  kdev env --shell pwsh | Out-String | Invoke-Expression
  kdev env --shell dotenv > .env    for an editor's run configuration

It takes the running `kdev connect` with the same settings, or without any on the command line the only
one that runs. The variables are those of `kdev run`.";

/// Print variables that make programs use a running `kdev connect`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EnvArgs {
    #[command(flatten)]
    settings: SettingFlags<{ on::ENV }>,
    /// Shell that reads them [default: the one that runs kdev]
    #[arg(long, value_enum, value_name = "SHELL")]
    shell: Option<Shell>,
    /// Print what removes the variables again
    #[arg(long)]
    unset: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// bash, and every POSIX shell
    #[value(alias = "sh")]
    Bash,
    Zsh,
    Fish,
    /// PowerShell
    #[value(alias = "powershell")]
    Pwsh,
    /// Lines of NAME="value"
    Dotenv,
    /// One object; null for what is to be removed
    Json,
}

impl EnvArgs {
    /// The settings that the command line gives.
    pub(super) fn given(&self) -> Given {
        self.settings.given()
    }
}

/// `asked` is whether the command line has settings, which then choose the session.
pub(super) async fn run(args: EnvArgs, asked: bool, config: &Config) -> anyhow::Result<u8> {
    let shell = args.shell.unwrap_or_else(own_shell);
    anyhow::ensure!(
        !(args.unset && shell == Shell::Dotenv),
        "a dotenv file cannot take variables back; delete the file, or use --shell json"
    );
    let inherited = env::inherited();
    let changes = if args.unset {
        env::unset(&inherited)?
    } else {
        env::set(config, &inherited, !asked, output::note).await?
    };
    output::data(&format!("{}\n", text(shell, &changes)?))?;
    Ok(0)
}

/// The shell that runs this command: its parent where the system tells, else the user's own.
fn own_shell() -> Shell {
    let parent = format!("/proc/{}/comm", nix::unistd::getppid());
    let parent = std::fs::read_to_string(parent).unwrap_or_default();
    let own = std::env::var("SHELL").unwrap_or_default();
    let own = own.rsplit('/').next();
    let names = [Some(parent.trim()), own];
    names
        .into_iter()
        .flatten()
        .find_map(shell_of)
        .unwrap_or(Shell::Bash)
}

fn shell_of(name: &str) -> Option<Shell> {
    match name {
        "zsh" => Some(Shell::Zsh),
        "fish" => Some(Shell::Fish),
        "pwsh" => Some(Shell::Pwsh),
        "bash" | "sh" | "dash" | "ksh" | "ash" | "busybox" => Some(Shell::Bash),
        _ => None,
    }
}

fn text(shell: Shell, changes: &Changes) -> anyhow::Result<String> {
    if shell == Shell::Json {
        return Ok(serde_json::to_string_pretty(changes)?);
    }
    let lines = changes.iter().map(|(name, value)| match (shell, value) {
        (Shell::Fish, Some(value)) => format!("set -gx {name} {};", quote::fish(value)),
        (Shell::Fish, None) => format!("set -e {name};"),
        (Shell::Pwsh, Some(value)) => format!("$env:{name} = {}", quote::pwsh(value)),
        (Shell::Pwsh, None) => format!("Remove-Item -ErrorAction Ignore Env:{name}"),
        (Shell::Dotenv, value) => {
            format!("{name}={}", quote::dotenv(value.as_deref().unwrap_or("")))
        }
        (_, Some(value)) => format!("export {name}={};", quote::posix(value)),
        (_, None) => format!("unset {name};"),
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
