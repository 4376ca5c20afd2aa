//! How conditions are written: as flags for people, and as JSON for the relay and annotations.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::condition::{Condition, Kind};
use super::{Conditions, Invalid};

/// The JSON of a condition. A kind that a version does not know is an error there, never
/// "matches everything".
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Wire {
    Header(String, String),
    HeaderRegex(String, String),
    Mine(String),
    Baggage(String, String),
    Path(String),
    PathPrefix(String),
    PathRegex(String),
    Method(String),
}

impl Wire {
    pub(super) fn is_pattern(&self) -> bool {
        matches!(self, Self::HeaderRegex(..) | Self::PathRegex(_))
    }
}

impl TryFrom<Wire> for Condition {
    type Error = Invalid;

    fn try_from(wire: Wire) -> Result<Self, Invalid> {
        match wire {
            Wire::Header(name, value) => Self::header_is(&name, &value),
            Wire::HeaderRegex(name, regex) => Self::header_matches(&name, &regex),
            Wire::Mine(value) => Self::mine(&value),
            Wire::Baggage(key, value) => Self::baggage_is(&key, &value),
            Wire::Path(path) => Self::path(&path),
            Wire::PathPrefix(prefix) => Self::path_prefix(&prefix),
            Wire::PathRegex(regex) => Self::path_regex(&regex),
            Wire::Method(method) => Self::method(&method),
        }
    }
}

impl From<Condition> for Wire {
    fn from(condition: Condition) -> Self {
        match condition.0 {
            Kind::Header(name, value) => Self::Header(name.as_str().to_owned(), value),
            Kind::HeaderMatches(name, pattern) => {
                Self::HeaderRegex(name.as_str().to_owned(), pattern.as_str().to_owned())
            }
            Kind::Mine(value) => Self::Mine(value),
            Kind::Baggage(key, value) => Self::Baggage(key, value),
            Kind::Path(path) => Self::Path(path),
            Kind::PathPrefix(prefix) => Self::PathPrefix(prefix),
            Kind::PathMatches(pattern) => Self::PathRegex(pattern.as_str().to_owned()),
            Kind::Method(method) => Self::Method(method.as_str().to_owned()),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Header(name, value) => {
                write!(f, "--header {}", quoted(&format!("{name}: {value}")))
            }
            Kind::HeaderMatches(name, pattern) => {
                let text = format!("{name}~={}", pattern.as_str());
                write!(f, "--header {}", quoted(&text))
            }
            // The flag has no value of its own, and whose it is has to be seen.
            Kind::Mine(value) => write!(f, "--mine ({value})"),
            Kind::Baggage(key, value) => {
                write!(f, "--baggage {}", quoted(&format!("{key}={value}")))
            }
            Kind::Path(path) => write!(f, "--path {}", quoted(path)),
            Kind::PathPrefix(prefix) => write!(f, "--path-prefix {}", quoted(prefix)),
            Kind::PathMatches(pattern) => write!(f, "--path-regex {}", quoted(pattern.as_str())),
            Kind::Method(method) => write!(f, "--method {method}"),
        }
    }
}

impl fmt::Display for Conditions {
    /// The flags, one after the other, or what none means.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("all requests");
        }
        for (place, condition) in self.iter().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{condition}")?;
        }
        Ok(())
    }
}

/// As a shell takes it.
pub(super) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
