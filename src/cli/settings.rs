//! `kdev config`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::output;
use super::terminal::{self, Text, word};
use crate::config::{self, Fallback, Given, Kin, Kind, Layered, Origin, Place, Problem, Setting};

const EXAMPLES: &str = "\
Examples:
  kdev config show                     every setting, and where its value is from
  kdev config show --json | jq '.settings[] | select(.value != null)'
  kdev config check                    check the files; exit code 1 if one is wrong
  kdev config schema > kdev.json       for an editor that completes .kdev.toml

Flags win over the environment (KDEV_NAMESPACE=shop), that over the project's .kdev.toml, that over
your own file (config.toml in the folder kdev of $XDG_CONFIG_HOME, or ~/.config), that over defaults.
The project's file is the nearest one from the working directory up to the repository's root or
your home folder. KDEV_PROJECT=off leaves it out. It may not say what could harm you in a
stranger's repository, such as kubeconfig: your own file, variables and flags may.";

/// Show and check settings
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Show(ShowArgs),
    Check(CheckArgs),
    Schema(SchemaArgs),
}

const SHOW_EXAMPLES: &str = "\
Examples:
  kdev config show              every setting, and where its value is from
  kdev -n shop config show      the same with a flag
  kdev config show --json       for scripts";

/// Show every setting, its value, and where it is from
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
struct ShowArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  kdev config check                   the files that kdev reads here
  kdev config check app/.kdev.toml    one file, as a project's
  kdev config check --user FILE       one file, as your own

Exit code: 1 when something is wrong, else 0.";

/// Check settings files
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
struct CheckArgs {
    /// File to check [default: the project's and your own]
    file: Option<PathBuf>,
    /// Check FILE as your own, which may say more than a project's
    #[arg(long, requires = "file")]
    user: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const SCHEMA_EXAMPLES: &str = "\
Examples:
  kdev config schema > kdev.schema.json   for `#:schema ./kdev.schema.json`
  kdev config schema --user               of your own file";

/// Print the JSON schema of .kdev.toml
#[derive(Debug, Args)]
#[command(after_help = SCHEMA_EXAMPLES)]
struct SchemaArgs {
    /// Print that of your own file, which may say more
    #[arg(long)]
    user: bool,
}

pub(super) fn run(args: ConfigArgs, given: Given, place: &Place) -> anyhow::Result<u8> {
    match args.command {
        ConfigCommand::Show(args) => show(&args, &config::load(given, place)?, place),
        ConfigCommand::Check(args) => check(&args, place),
        ConfigCommand::Schema(args) => {
            let kin = if args.user { Kin::User } else { Kin::Project };
            output::json(&config::schema(kin), true)?;
            Ok(0)
        }
    }
}

fn show(args: &ShowArgs, layered: &Layered, place: &Place) -> anyhow::Result<u8> {
    if args.json {
        let settings: Vec<Json> = layered
            .said
            .iter()
            .map(|(s, said)| entry(s, said))
            .collect();
        let document = json!({
            "settings": settings,
            "project_file": layered.project_file,
            "user_file": place.user_file,
        });
        output::json(&document, true)?;
        return Ok(0);
    }
    let shown = terminal::shows_output();
    let rows: Vec<(&str, String, String)> = layered
        .said
        .iter()
        .map(|(setting, said)| match (said.first(), setting.fallback) {
            (Some((origin, value)), _) => (
                setting.key,
                word(&value.to_string()),
                word(&origin.to_string()),
            ),
            (None, Fallback::Is(value)) => (setting.key, value.to_owned(), "default".to_owned()),
            (None, Fallback::Means(what)) => {
                (setting.key, format!("({what})"), "default".to_owned())
            }
        })
        .collect();
    let widest = |column: fn(&(&str, String, String)) -> usize| rows.iter().map(column).max();
    let key = widest(|row| row.0.len()).unwrap_or(0);
    let value = widest(|row| row.1.chars().count()).unwrap_or(0).min(40);
    for (name, text, origin) in &rows {
        let line = format!("{name:<key$}  {text:<value$}  {origin}");
        let code = if origin == "default" { "2" } else { "0" };
        output::show(Text::default().paint(shown, code, &line))?;
    }
    Ok(0)
}

fn entry(setting: &Setting, said: &[(Origin, config::Value)]) -> Json {
    let place = |(origin, value): &(Origin, config::Value)| json!({"value": value, "layer": origin.layer(), "where": origin.to_string()});
    let overridden: Vec<Json> = said.iter().skip(1).map(place).collect();
    let (value, layer, at) = match (said.first(), setting.fallback) {
        (Some((origin, value)), _) => (json!(value), origin.layer(), Some(origin.to_string())),
        (None, Fallback::Is(text)) if setting.kind == Kind::Switch => {
            (json!(text == "true"), "default", None)
        }
        (None, Fallback::Is(text)) => (json!(text), "default", None),
        (None, Fallback::Means(_)) => (Json::Null, "default", None),
    };
    json!({
        "key": setting.key,
        "value": value,
        "layer": layer,
        "where": at,
        "overridden": overridden,
        "help": setting.help,
    })
}

fn check(args: &CheckArgs, place: &Place) -> anyhow::Result<u8> {
    let files: Vec<(PathBuf, Kin)> = match &args.file {
        Some(file) => vec![(file.clone(), kin(file, args.user, place))],
        None => {
            let user = place.user_file.clone().filter(|file| file.exists());
            let project = place.project_file().map(|file| (file, Kin::Project));
            let files = project
                .into_iter()
                .chain(user.map(|file| (file, Kin::User)));
            files.collect()
        }
    };
    let mut problems: Vec<Problem> = Vec::new();
    for (file, kin) in &files {
        anyhow::ensure!(file.exists(), "{} does not exist", file.display());
        let found = config::check(file, *kin, place.home.as_deref());
        problems.extend(found.context("the settings cannot be checked")?);
    }
    if args.json {
        let checked: Vec<&PathBuf> = files.iter().map(|(file, _)| file).collect();
        let document = json!({"ok": problems.is_empty(), "files": checked, "problems": problems});
        output::json(&document, true)?;
    } else {
        for problem in &problems {
            output::line(&word(&problem.to_string()))?;
        }
        for (file, _) in &files {
            if !problems.iter().any(|problem| &problem.file == file) {
                output::line(&format!("{} is right", file.display()))?;
            }
        }
        if files.is_empty() {
            output::line("There is no file of settings here, and that is fine.")?;
        }
    }
    Ok(u8::from(!problems.is_empty()))
}

/// The user's own file may be named by its path too.
fn kin(file: &Path, user: bool, place: &Place) -> Kin {
    let own = place.user_file.as_ref();
    let same = own.is_some_and(|own| match (own.canonicalize(), file.canonicalize()) {
        (Ok(own), Ok(file)) => own == file,
        _ => false,
    });
    if user || same {
        Kin::User
    } else {
        Kin::Project
    }
}
