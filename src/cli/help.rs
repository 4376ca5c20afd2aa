//! What help looks like: commands in groups, options where they mean something, examples and
//! paragraphs that no terminal's width spoils; and `kdev options`.

#[cfg(test)]
mod tests;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Command, CommandFactory as _};

use super::groups::{COMMANDS, is_seldom, is_shown};
use super::{Cli, output};

/// How wide examples and tables may be: the narrowest terminal that is usual.
const WIDTH: usize = 80;
/// What the examples of a command stand under.
const EXAMPLES: &str = "Examples:";
/// Stands at the end of a command's help, for the options that it does not show.
const ELSEWHERE: &str = "Run `kdev help options` for the options that every command takes.";

const OPTIONS_EXAMPLES: &str = "\
Examples:
  kdev -n shop list                   before the command
  kdev list -n shop                   or after it
  KDEV_NAMESPACE=shop kdev list       as a variable

Each of these but -v is a setting: its variable is KDEV_ and its name, and a .kdev.toml has it by
its name. `kdev config --help` says which of them wins.";

/// List the options that every command takes
#[derive(Debug, Args)]
#[command(after_help = OPTIONS_EXAMPLES, override_usage = "kdev options")]
pub(super) struct OptionsArgs {}

pub(super) fn options() -> anyhow::Result<u8> {
    let mut root = command();
    root.build();
    if let Some(options) = root.find_subcommand_mut("options") {
        output::data(&options.render_long_help().to_string())?;
    }
    Ok(0)
}

/// The command line, with its help.
pub(super) fn command() -> Command {
    let root = Cli::command();
    let global = root.get_arguments().filter(|arg| arg.is_global_set());
    let global: Vec<Arg> = global.cloned().collect();
    let root = root.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        shaped(command, &name, &global)
    });
    let overview = overview(&root);
    let mut after = root.get_after_help().map(laid_out).unwrap_or_default();
    after.push(ELSEWHERE.to_owned());
    root.mut_args(|arg| match arg.is_global_set() {
        true => arg.hide(true),
        false => arg,
    })
    .help_template(overview)
    // Clap knows of no options where all are hidden.
    .override_usage("kdev [OPTIONS] <COMMAND>")
    .after_help(after.join("\n\n"))
}

/// The command line for man pages, which have all that the long help has.
pub(super) fn for_man() -> Command {
    fn whole(command: Command) -> Command {
        let command = command.mut_subcommands(whole);
        command.mut_args(|arg| arg.hide_short_help(false))
    }
    whole(command())
}

/// A command, with those of the options that every command takes which `name` shows. Clap adds what
/// is not there yet when it parses.
fn shaped(command: Command, name: &str, global: &[Arg]) -> Command {
    let hidden = |arg: &Arg| !is_shown(name, arg.get_id().as_str());
    let mut after = command.get_after_help().map(laid_out).unwrap_or_default();
    if global.iter().any(hidden) {
        after.push(ELSEWHERE.to_owned());
    }
    // The short help has the examples, and the way to the other options.
    let is_short = |block: &&String| block.starts_with(EXAMPLES) || *block == ELSEWHERE;
    let short: Vec<&str> = after.iter().filter(is_short).map(String::as_str).collect();
    let short = short.join("\n\n");
    let own = global.iter().map(|arg| arg.clone().hide(hidden(arg)));
    command
        .mut_subcommands(|inner| shaped(inner, name, global))
        .args(own)
        .mut_args(|arg| {
            let (option, heading) = (arg.get_id().as_str(), arg.get_help_heading());
            match is_seldom(name, option, heading) {
                true => arg.hide_short_help(true),
                false => arg,
            }
        })
        .after_help(short)
        .after_long_help(after.join("\n\n"))
}

/// The template of `kdev --help`: clap itself knows one list of commands only.
fn overview(root: &Command) -> String {
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (heading, commands) in COMMANDS {
        text += &format!("\n{heading}:\n");
        for shows in commands {
            let about = match root.find_subcommand(shows.command) {
                Some(command) => command.get_about().map(ToString::to_string),
                // Clap makes it when it parses.
                None => Some("Show the help of a command".to_owned()),
            };
            text += &format!("  {:<11}  {}\n", shows.command, about.unwrap_or_default());
        }
    }
    text + "\nOptions:\n{options}{after-help}"
}

/// Lays out what stands behind the options, as blocks between blank lines. The lines of a paragraph are
/// one, which clap wraps at the terminal's width; indented lines stay as they are; examples are laid out
/// anew.
fn laid_out(text: &StyledStr) -> Vec<String> {
    let text = text.to_string();
    let blocks = text.split("\n\n").map(|block| {
        let block = block.trim_end();
        match block.strip_prefix(EXAMPLES) {
            Some(lines) => format!("{EXAMPLES}\n{}", examples(lines).join("\n")),
            None => paragraph(block),
        }
    });
    blocks.collect()
}

fn paragraph(block: &str) -> String {
    let mut text = String::new();
    let mut indented = true;
    for line in block.lines() {
        let before = std::mem::replace(&mut indented, line.starts_with(' '));
        if !text.is_empty() {
            text.push(if before || indented { '\n' } else { ' ' });
        }
        text += line;
    }
    text
}

/// Examples in two columns, commands and what they do; where one would be too wide, each with what it
/// does above it, as kubectl has them.
fn examples(lines: &str) -> Vec<String> {
    let all: Vec<(&str, &str)> = example_lines(lines).collect();
    let column = all.iter().filter(|(_, what)| !what.is_empty());
    let column = column.map(|(line, _)| line.chars().count()).max();
    let column = column.unwrap_or(0);
    let beside = |(line, what): &(&str, &str)| match what.is_empty() {
        true => format!("  {line}"),
        false => format!("  {line:<column$}  {what}"),
    };
    let rows: Vec<String> = all.iter().map(beside).collect();
    if rows.iter().all(|row| row.chars().count() <= WIDTH) {
        return rows;
    }
    let above = all.iter().flat_map(|(line, what)| {
        let what = Some(what).filter(|what| !what.is_empty());
        let what = what.map(|what| format!("  # {what}"));
        what.into_iter().chain([format!("  {line}")])
    });
    above.collect()
}

/// Examples as a command has them: a line and what it does, with two spaces or more between.
fn example_lines(lines: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = lines.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty());
    lines.map(|line| match line.split_once("  ") {
        Some((line, what)) => (line, what.trim_start()),
        None => (line, ""),
    })
}

/// The examples in a command's own help, as it has them before they are laid out.
fn examples_of(command: &Command) -> Vec<String> {
    let text = command.get_after_help().map(ToString::to_string);
    let text = text.unwrap_or_default();
    let Some(lines) = text.strip_prefix(EXAMPLES) else {
        return Vec::new();
    };
    let lines = lines.split("\n\n").next().unwrap_or_default();
    example_lines(lines)
        .map(|(line, _)| line.to_owned())
        .collect()
}

/// The command that the command line `words` names, however wrong the rest of it is.
pub(super) fn meant(words: &[String]) -> Option<String> {
    let all = command().ignore_errors(true);
    let matches = all.try_get_matches_from(words).ok()?;
    matches.subcommand_name().map(str::to_owned)
}

/// What is wrong with the command line `words`. Where an argument is missing it ends with an example
/// that has it.
pub(super) fn refusal(error: &clap::Error, words: &[String]) -> String {
    const MORE: &str = "\n\nFor more information";
    let text = error.render().to_string();
    let Some(example) = example(error, words) else {
        return text;
    };
    let (before, after) = match text.rfind(MORE) {
        Some(at) => text.split_at(at),
        None => (text.trim_end(), "\n"),
    };
    format!("{before}\n\nExample: {example}{after}")
}

/// The first example of the command that has most of what is missing and of the flags that are there.
fn example(error: &clap::Error, words: &[String]) -> Option<String> {
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return None;
    }
    let missing = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(missing)) => missing.as_slice(),
        _ => &[],
    };
    let flag = |text: &String| {
        let name = text.split([' ', '=', '[']).next().unwrap_or_default();
        name.starts_with("--").then(|| name.to_owned())
    };
    let typed = words.iter().take_while(|word| *word != "--");
    let flags: Vec<String> = missing.iter().chain(typed).filter_map(flag).collect();
    let usage = error.get(ContextKind::Usage)?.to_string();
    // `Usage: kdev config check [OPTIONS]`: the commands come first.
    let mut command = Cli::command();
    for word in usage.split_whitespace().skip(2) {
        match command.find_subcommand(word) {
            Some(inner) => command = inner.clone(),
            None => break,
        }
    }
    let has = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        flags
            .iter()
            .filter(|flag| words.contains(&flag.as_str()))
            .count()
    };
    let of_kdev = examples_of(&command).into_iter();
    let of_kdev = of_kdev.filter(|line| line.starts_with("kdev "));
    // Of several that have as much `max_by_key` takes the last.
    of_kdev.rev().max_by_key(|line| has(line.as_str()))
}
