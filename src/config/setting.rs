//! What a setting is, and how its value is read.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Config;

/// A setting: one entry of [`super::SETTINGS`].
#[derive(Debug)]
pub struct Setting {
    /// Its name in files, and as a flag (`--key`) and a variable (`KDEV_KEY`).
    pub key: &'static str,
    /// The flag's one letter.
    pub short: Option<char>,
    /// What stands for the value in the flag's help.
    pub value_name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it does, in one line.
    pub help: &'static str,
    /// What it is when nobody says.
    pub fallback: Fallback,
    /// Whether a project's file may say it.
    pub project: Project,
    /// The commands that have the flag: a sum of [`super::on`].
    pub on: u8,
    /// Takes the value over, or says what is wrong with it.
    pub set: fn(&mut Config, &Value) -> Result<(), String>,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path; in a file, relative to that file.
    Path,
    /// On or off.
    Switch,
    /// One of these names; what each means.
    Choice(&'static [(&'static str, &'static str)]),
    /// `PORT`, `ADDRESS:PORT` or `localhost:PORT`.
    Address,
    /// Any number of texts.
    List,
}

/// What a setting is when nobody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This value.
    Is(&'static str),
    /// No value, and this is what that means.
    Means(&'static str),
}

/// Whether the file of a project, which may be a stranger's repository, may say a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Project {
    /// It may.
    May,
    /// It may, and who runs something is told: by it more goes into the cluster.
    MayTold,
    /// It may not, because of this.
    MayNot(&'static str),
}

/// A setting's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// One text.
    Text(String),
    /// On or off.
    Switch(bool),
    /// Texts.
    List(Vec<String>),
}

impl Value {
    /// The text; empty for another kind, which [`Setting::read`] never gives.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        matches!(self, Self::Switch(true))
    }

    /// The texts; none for another kind.
    #[must_use]
    pub fn list(&self) -> &[String] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Switch(on) => on.fmt(f),
            Self::List(list) => {
                let items = list.iter().map(|item| item.replace(',', r"\,"));
                f.write_str(&items.collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::Switch(on) => on.serialize(serializer),
            Self::List(list) => list.serialize(serializer),
        }
    }
}

impl Setting {
    /// The variable of the environment.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("KDEV_{}", self.key.to_ascii_uppercase().replace('-', "_"))
    }

    /// Reads a value as a flag or a variable has it: lists with commas, where one within an item is
    /// written `\,`.
    ///
    /// # Errors
    /// When it is no value of this setting.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let value = match self.kind {
            Kind::Text | Kind::Path | Kind::Address | Kind::Choice(_) => {
                Value::Text(text.to_owned())
            }
            Kind::Switch => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Value::Switch(true),
                "false" | "0" | "no" | "off" => Value::Switch(false),
                _ => return Err(format!("{text:?} is neither true nor false")),
            },
            Kind::List => {
                let parts = split(text).into_iter();
                let parts = parts.map(|part| part.trim().to_owned());
                Value::List(parts.filter(|part| !part.is_empty()).collect())
            }
        };
        self.check(&value).map(|()| value)
    }

    /// Whether it is a value that this setting takes.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        if let Kind::Choice(names) = self.kind
            && !names.iter().any(|(name, _)| *name == value.text())
        {
            let names: Vec<String> = names.iter().map(|(n, _)| format!("{n:?}")).collect();
            let text = value.text();
            return Err(format!("{text:?} is none of {}", names.join(", ")));
        }
        (self.set)(&mut Config::default(), value)
    }
}

/// The parts of a text between commas that no backslash stands before.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for piece in text.split(',') {
        match parts.last_mut() {
            // The comma before this piece was one of the item's own.
            Some(last) if last.ends_with('\\') => {
                last.pop();
                *last += ",";
                *last += piece;
            }
            _ => parts.push(piece.to_owned()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_divide_unless_they_are_escaped() {
        assert_eq!(split("a, b"), ["", "a", " b"]);
        assert_eq!(split(r"a=1\,2,b=3\,"), ["", "a=1,2", "b=3,"]);
        let list = super::super::setting("annotation").unwrap();
        let value = list.read(r"a=1\,2,b=3").unwrap();
        assert_eq!(value.list(), ["a=1,2", "b=3"]);
        assert_eq!(value.to_string(), r"a=1\,2,b=3");
        assert_eq!(list.read("").unwrap().list().len(), 0);
    }
}
