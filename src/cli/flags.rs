//! The flags of settings, made from their table.

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};

use super::complete;
use super::groups::group;
use crate::config::{Fallback, Given, Kind, SETTINGS, Setting, Value, on};

/// The flags of those settings that the command `ON` has, see [`on`].
#[derive(Clone, Debug)]
pub(super) struct SettingFlags<const ON: u8>(Given);

impl<const ON: u8> SettingFlags<ON> {
    /// What the command line gives.
    pub(super) fn given(&self) -> Given {
        self.0.clone()
    }

    fn settings() -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(|setting| setting.on & ON != 0)
    }
}

impl<const ON: u8> Args for SettingFlags<ON> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::settings().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const ON: u8> FromArgMatches for SettingFlags<ON> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for setting in Self::settings() {
            let texts = matches.get_many::<String>(setting.key);
            let texts: Vec<&str> = texts.into_iter().flatten().map(String::as_str).collect();
            let value = match (setting.kind, texts.as_slice()) {
                (_, []) => continue,
                (Kind::List, texts) => setting.read(&texts.join(",")),
                // The value parser read it before.
                (_, texts) => setting.read(texts.last().copied().unwrap_or_default()),
            };
            let value = value.map_err(|wrong| {
                clap::Error::raw(clap::error::ErrorKind::ValueValidation, wrong)
            })?;
            given.push((setting, value));
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let help = match (setting.kind, setting.fallback) {
        (Kind::Switch, _) => setting.help.to_owned(),
        (Kind::Choice(_), Fallback::Is(what)) | (Kind::Address, Fallback::Means(what)) => {
            format!("{} [default: {what}]", setting.help)
        }
        _ => setting.help.to_owned(),
    };
    let mut arg = Arg::new(setting.key)
        .long(setting.key)
        .value_name(setting.value_name)
        .help(help)
        .global(setting.on & on::ALL != 0);
    if let Some(short) = setting.short {
        arg = arg.short(short);
    }
    if let Some(group) = group(setting.key) {
        arg = arg.help_heading(group.heading);
    }
    let read = |text: &str| setting.read(text).map(|_: Value| text.to_owned());
    match setting.kind {
        Kind::Text => match complete::values_of(setting) {
            Some(completer) => arg.value_parser(read).add(completer),
            None => arg.value_parser(read),
        },
        Kind::Address => arg.value_parser(read).value_hint(ValueHint::Other),
        Kind::Path => arg.value_parser(read).value_hint(ValueHint::FilePath),
        Kind::List => arg.value_parser(read).action(ArgAction::Append),
        Kind::Switch => arg
            .value_parser(read)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true),
        Kind::Choice(names) => {
            let names = names.iter();
            let names = names.map(|(name, what)| PossibleValue::new(*name).help(*what));
            arg.value_parser(PossibleValuesParser::new(names))
        }
    }
}
