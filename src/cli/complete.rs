//! `kdev completions`, and the answers to what its scripts ask.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::{Args, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use clap_complete::env::Shells;

use super::help;
use crate::app::complete;
pub(super) use crate::app::complete::Offer;
use crate::config::{self, Config, Given, Kind, Place, SETTINGS, Setting, on};

/// The variable by which a script asks for completions.
const VARIABLE: &str = "KDEV_COMPLETE";
const BASH: &str = include_str!("complete.bash");

const EXAMPLES: &str = "\
Examples:
  kdev completions bash               print the script
  source <(kdev completions bash)     in ~/.bashrc
  source <(kdev completions zsh)      in ~/.zshrc, after compinit
  kdev completions fish | source      in ~/.config/fish/config.fish
  kdev completions powershell | Out-String | Invoke-Expression

Names of contexts, namespaces, Services and ports come from your kubeconfig and your cluster, at
that moment. A cluster that does not answer within a second has none.";

/// Print a shell completion script
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// Shell that reads it
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    #[value(alias = "pwsh")]
    Powershell,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<u8> {
    // This very program, so that what a script asks is what it understands.
    let program = std::env::current_exe()?;
    let program = program.to_string_lossy();
    let name = match args.shell {
        Shell::Bash => {
            let quoted = program.replace('\'', r"'\''");
            let script = BASH.replace("@VARIABLE@", VARIABLE);
            super::output::data(&script.replace("@PROGRAM@", &quoted))?;
            return Ok(0);
        }
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
        Shell::Powershell => "powershell",
    };
    let mut script = Vec::new();
    if let Some(completer) = Shells::builtins().completer(name) {
        completer.write_registration(VARIABLE, "kdev", "kdev", &program, &mut script)?;
    }
    super::output::data(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// Answers a script that asks for completions. Says whether this process was started for that.
pub(super) fn answer() -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    let folder = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(help::command)
        .var(VARIABLE)
        .try_complete(std::env::args_os(), folder.as_deref());
    // What is not understood has no completions; the shell's line is no place for an error.
    super::terminal::flush();
    asked.unwrap_or(true)
}

/// What completes the value of a setting's flag.
pub(super) fn values_of(setting: &Setting) -> Option<ArgValueCompleter> {
    match setting.key {
        "context" => Some(ArgValueCompleter::new(|typed: &OsStr| {
            // The flag that is being typed must not choose.
            let names = config_without("context").map(|config| complete::contexts(&config));
            candidates(typed, names.unwrap_or_default())
        })),
        "namespace" => Some(ArgValueCompleter::new(|typed: &OsStr| {
            let config = config_without("namespace");
            let names = config.map(|config| wait(complete::namespaces(&config)));
            candidates(typed, names.unwrap_or_default())
        })),
        _ if setting.kind == Kind::Path => Some(ArgValueCompleter::new(PathCompleter::any())),
        _ => None,
    }
}

/// What completes `SERVICE:PORT`.
pub(super) fn targets(offer: Offer) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let Some((config, text)) = config_without("").zip(typed.to_str()) else {
            return Vec::new();
        };
        candidates(typed, wait(complete::targets(&config, text, offer)))
    })
}

/// What completes one's own intercepts.
pub(super) fn intercepts() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let own = config_without("").map(|config| wait(complete::intercepts(&config)));
        candidates(typed, own.unwrap_or_default())
    })
}

/// What completes a Service that somebody intercepts, or did.
pub(super) fn intercepted() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let all = config_without("").map(|config| wait(complete::intercepted(&config)));
        candidates(typed, all.unwrap_or_default())
    })
}

/// What completes a command and its arguments: programs, then files.
pub(super) fn command() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let words: Vec<OsString> = std::env::args_os().collect();
        let is_path = typed.to_string_lossy().contains('/');
        match is_first(&words) && !is_path {
            true => candidates(typed, programs()),
            false => PathCompleter::any().complete(typed),
        }
    })
}

/// Whether the last of `words` (`kdev -- kdev run … -- WORD`) is the command itself.
fn is_first(words: &[OsString]) -> bool {
    let line = words.iter().position(|word| word == "--");
    let line = line.map_or(&[][..], |at| &words[at + 1..]);
    match line.iter().rposition(|word| word == "--") {
        Some(at) => at + 2 == line.len(),
        // Without it a command may begin wherever no other word stands.
        None => line.iter().skip(2).rev().skip(1).all(|word| {
            let word = word.to_string_lossy();
            word.starts_with('-')
        }),
    }
}

/// The names of the programs in the folders of PATH.
fn programs() -> Vec<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).filter_map(|folder| folder.read_dir().ok());
    let files = folders.flatten().flatten().filter(|file| {
        let about = std::fs::metadata(file.path());
        about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    });
    let names: BTreeSet<String> = files
        .filter_map(|file| file.file_name().into_string().ok())
        .collect();
    names.into_iter().collect()
}

fn candidates(typed: &OsStr, names: Vec<String>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let fit = names.into_iter().filter(|name| name.starts_with(&*typed));
    // What a terminal would not show as it is, no object is called.
    let fit = fit.filter(|name| super::terminal::word(name) == *name);
    fit.map(CompletionCandidate::new).collect()
}

fn wait(names: impl Future<Output = Vec<String>>) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    let names = runtime.block_on(names);
    // A name look-up that hangs must not hold the shell up.
    runtime.shutdown_background();
    names
}

/// The settings of the command line that is being completed, but for one flag. `None` where
/// settings are wrong: the command itself will say so.
fn config_without(flag: &str) -> Option<Config> {
    let mut given = given(std::env::args_os());
    given.retain(|(setting, _)| setting.key != flag);
    let layered = config::load(given, &Place::of_process()).ok()?;
    Some(layered.config)
}

/// Cluster flags among words that are no whole command line yet: `kdev -- kdev WORD…`.
fn given(words: impl Iterator<Item = OsString>) -> Given {
    let words: Vec<String> = words
        .skip_while(|word| word != "--")
        .skip(2)
        .map(|word| word.to_string_lossy().into_owned())
        .take_while(|word| word != "--")
        .collect();
    let mut given = Given::new();
    for setting in SETTINGS.iter().filter(|s| s.on & on::ALL != 0) {
        let long = format!("--{}", setting.key);
        let short = setting.short.map(|c| format!("-{c}"));
        for (at, word) in words.iter().enumerate() {
            let text = if *word == long || Some(word) == short.as_ref() {
                words.get(at + 1).map(String::as_str)
            } else {
                word.strip_prefix(&long)
                    .and_then(|rest| rest.strip_prefix('='))
            };
            if let Some(Ok(value)) = text.map(|text| setting.read(text)) {
                given.push((setting, value));
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_among_unfinished_words() {
        let given = |line: &str| {
            let given = given(line.split(' ').map(OsString::from));
            let texts = given.iter().map(|(s, v)| format!("{}={v}", s.key));
            texts.collect::<Vec<_>>()
        };
        assert_eq!(
            given("/bin/kdev -- kdev forward -n shop --context=lab web:"),
            ["context=lab", "namespace=shop"]
        );
        assert!(given("kdev -- kdev run -- curl -n shop").is_empty());
    }
}
