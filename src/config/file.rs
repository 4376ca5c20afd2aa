//! A file of settings: TOML with the keys of [`super::SETTINGS`].

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::place::{self, PlaceError};
use super::{Kind, Project, SETTINGS, Setting, Value, setting};

/// How alike two words must be, from 0 to 1, for one to be meant by the other.
const ALIKE: f64 = 0.75;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    /// A project's: [`Project`] tells what it may say.
    Project,
    /// The user's own.
    User,
}

/// What is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}:{line}:{column}: {message}", .file.display())]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

/// A setting that a file says.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) setting: &'static Setting,
    pub(super) value: Value,
    pub(super) line: usize,
}

/// All that is wrong in a file; nothing for a user's file that does not exist.
///
/// # Errors
/// When it cannot be read.
pub fn check(file: &Path, kin: Kin, home: Option<&Path>) -> Result<Vec<Problem>, PlaceError> {
    let text = match kin {
        Kin::Project => place::read_project(file)?,
        Kin::User => place::read_user(file)?.unwrap_or_default(),
    };
    Ok(parse(&text, file, kin, home).1)
}

/// What the text of `file` says, and what is wrong with it.
pub(super) fn parse(
    text: &str,
    file: &Path,
    kin: Kin,
    home: Option<&Path>,
) -> (Vec<Said>, Vec<Problem>) {
    let problem = |span: Range<usize>, message: String| {
        let (line, column) = position(text, span.start);
        Problem {
            file: file.to_owned(),
            line,
            column,
            message,
        }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| {
            problem(
                error.span().unwrap_or_default(),
                first_line(error.message()),
            )
        })
        .collect();
    if !problems.is_empty() {
        // What else is said about a text that is no TOML follows from that.
        return (Vec::new(), problems);
    }
    let mut said = Vec::new();
    for (key, value) in table.into_inner() {
        let name = key.get_ref().as_ref();
        let Some(setting) = setting(name) else {
            problems.push(problem(key.span(), unknown(name)));
            continue;
        };
        if let (Kin::Project, Project::MayNot(why)) = (kin, setting.project) {
            problems.push(problem(key.span(), refused(setting, why)));
            continue;
        }
        let at = value.span();
        match read(setting, value.get_ref()) {
            Ok(value) => said.push(Said {
                setting,
                value: absolute(setting, value, file, home),
                line: position(text, key.span().start).0,
            }),
            Err(message) => problems.push(problem(at, format!("{name}: {message}"))),
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    (said, problems)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("no TOML").to_owned()
}

fn refused(setting: &Setting, why: &str) -> String {
    let (key, variable) = (setting.key, setting.variable());
    format!(
        "a project's file may not say {key:?}, because {why}; use your own file, ${variable} or \
         --{key}"
    )
}

fn unknown(name: &str) -> String {
    // `proxy_listen` and `proxyListen` are how other tools write it.
    let plain = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
    let alike = SETTINGS
        .iter()
        .map(|s| (strsim::jaro_winkler(&plain(name), &plain(s.key)), s.key))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match alike {
        Some((score, key)) if score >= ALIKE => {
            format!("unknown key {name:?}; did you mean {key:?}?")
        }
        _ => format!("unknown key {name:?}; `kdev config show` lists all that there are"),
    }
}

fn read(setting: &Setting, value: &DeValue<'_>) -> Result<Value, String> {
    let wanted = |what: &str| Err(format!("expected {what}, found {}", describe(value)));
    let value = match (setting.kind, value) {
        (Kind::Switch, DeValue::Boolean(on)) => Value::Switch(*on),
        (Kind::Switch, _) => return wanted("true or false"),
        (Kind::List, DeValue::Array(items)) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect();
            match texts {
                Some(texts) => Value::List(texts),
                None => return Err("expected an array of strings only".to_owned()),
            }
        }
        (Kind::List, _) => return wanted("an array of strings, such as [\"a\", \"b\"]"),
        (Kind::Address, DeValue::Integer(port)) => Value::Text(port.as_str().to_owned()),
        (_, DeValue::String(text)) if text.is_empty() => {
            return Err("it is empty; leave the key out".to_owned());
        }
        (_, DeValue::String(text)) => Value::Text(text.as_ref().to_owned()),
        (Kind::Address, _) => return wanted("a port, or a string such as \"127.0.0.1:1080\""),
        _ => return wanted("a string"),
    };
    setting.check(&value).map(|()| value)
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or a time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A path in a file is relative to that file, and may begin with `~/`.
fn absolute(setting: &Setting, value: Value, file: &Path, home: Option<&Path>) -> Value {
    let (Kind::Path, Value::Text(text)) = (setting.kind, &value) else {
        return value;
    };
    let path = match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => file.parent().unwrap_or_else(|| Path::new("")).join(text),
    };
    match path.into_os_string().into_string() {
        Ok(text) => Value::Text(text),
        Err(_) => value,
    }
}

/// The line and the column of a byte of `text`, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
