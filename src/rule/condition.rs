//! One condition, from the command line and against a request.

use std::str::FromStr;

use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};

use super::form::Wire;
use super::pattern::{LONGEST_VALUE, Pattern, Work};
use super::{Head, Invalid, LONGEST_TEXT, MINE_BAGGAGE, MINE_HEADER, baggage};

/// One condition of a claim. Its `Display` is the flag of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Condition(pub(super) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header(HeaderName, String),
    HeaderMatches(HeaderName, Pattern),
    Mine(String),
    Baggage(String, String),
    Path(String),
    PathPrefix(String),
    PathMatches(Pattern),
    Method(Method),
}

impl Condition {
    /// `K: V`, the header's whole value, or `K~=REGEX`, which the whole value must match.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn header(text: &str) -> Result<Self, Invalid> {
        let (exact, regex) = (text.find(':'), text.find("~="));
        match (exact, regex) {
            (Some(at), regex) if regex.is_none_or(|regex| at < regex) => {
                Self::header_is(&text[..at], &text[at + 1..])
            }
            (_, Some(at)) => Self::header_matches(&text[..at], text[at + 2..].trim()),
            _ => Err(Invalid(format!(
                "{text:?} is no header: write 'NAME: VALUE', or 'NAME~=REGEX'"
            ))),
        }
    }

    pub(super) fn header_is(name: &str, value: &str) -> Result<Self, Invalid> {
        let (name, value) = (header_name(name)?, value.trim());
        fits(value, "the value of a header")?;
        if HeaderValue::from_str(value).is_err() || !value.is_ascii() {
            return Err(Invalid(format!(
                "{value:?} cannot be the value of a header: it has other than printable ASCII"
            )));
        }
        Ok(Self(Kind::Header(name, value.to_owned())))
    }

    pub(super) fn header_matches(name: &str, regex: &str) -> Result<Self, Invalid> {
        let name = header_name(name)?;
        Ok(Self(Kind::HeaderMatches(name, Pattern::new(regex)?)))
    }

    /// The whole path, without the query, as it is sent: not decoded, nothing resolved.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn path(text: &str) -> Result<Self, Invalid> {
        Ok(Self(Kind::Path(path(text)?)))
    }

    /// The first segments of the path, as in Kubernetes' Gateway API: `/api`, as well as `/api/`,
    /// is `/api`, `/api/` and `/api/v1`, and not `/apis`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn path_prefix(text: &str) -> Result<Self, Invalid> {
        let mut prefix = path(text)?;
        if prefix.len() > 1 && prefix.ends_with('/') {
            prefix.pop();
        }
        Ok(Self(Kind::PathPrefix(prefix)))
    }

    /// A regular expression for the whole path, without the query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn path_regex(text: &str) -> Result<Self, Invalid> {
        Ok(Self(Kind::PathMatches(Pattern::new(text)?)))
    }

    /// The method; written in small letters it means the same.
    ///
    /// # Errors
    /// When it is none.
    pub fn method(text: &str) -> Result<Self, Invalid> {
        fits(text, "a method")?;
        let method = Method::from_str(&text.to_ascii_uppercase());
        let method = method.map_err(|_| Invalid(format!("{text:?} is no method")))?;
        Ok(Self(Kind::Method(method)))
    }

    /// `K=V`, a member of the W3C `baggage` header; the value as it is when decoded.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn baggage(text: &str) -> Result<Self, Invalid> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Invalid(format!(
                "{text:?} is no baggage: write NAME=VALUE, for example {MINE_BAGGAGE}=you"
            )));
        };
        Self::baggage_is(key, value)
    }

    pub(super) fn baggage_is(key: &str, value: &str) -> Result<Self, Invalid> {
        let (key, value) = (key.trim(), value.trim());
        fits(key, "the name of a baggage member")?;
        fits(value, "the value of a baggage member")?;
        // Keys are tokens, as header names are, but of either case.
        if HeaderName::from_bytes(key.as_bytes()).is_err() {
            return Err(Invalid(format!(
                "{key:?} cannot be the name of a baggage member"
            )));
        }
        Ok(Self(Kind::Baggage(key.to_owned(), value.to_owned())))
    }

    /// The header `x-kdev: VALUE`, or where a request has no such header the baggage member
    /// `kdev=VALUE`.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn mine(value: &str) -> Result<Self, Invalid> {
        let value = value.trim();
        fits(value, "the value of --mine")?;
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Invalid(format!(
                "{value:?} cannot be the value of --mine: it has other than printable ASCII"
            )));
        }
        Ok(Self(Kind::Mine(value.to_owned())))
    }

    /// Whether a request fulfils it.
    #[must_use]
    pub fn holds(&self, head: &Head<'_>) -> bool {
        self.holds_within(head, &Work::of_request())
    }

    /// As [`holds`](Self::holds), as far as there is `work` left; without it no pattern matches.
    pub(super) fn holds_within(&self, head: &Head<'_>, work: &Work) -> bool {
        match &self.0 {
            Kind::Header(name, value) => head
                .value(name)
                .is_some_and(|found| *found == *value.as_bytes()),
            Kind::HeaderMatches(name, pattern) => head
                .value_up_to(name, LONGEST_VALUE)
                .is_some_and(|found| pattern.matches(&found, work)),
            Kind::Mine(value) => match head.value(&mine_header()) {
                Some(found) => *found == *value.as_bytes(),
                None => baggage::value(head.headers, MINE_BAGGAGE)
                    .is_some_and(|found| found == value.as_str()),
            },
            Kind::Baggage(key, value) => {
                baggage::value(head.headers, key).is_some_and(|found| found == value.as_str())
            }
            Kind::Path(path) => head.path() == path,
            Kind::PathPrefix(prefix) => begins_with(head.path(), prefix),
            Kind::PathMatches(pattern) => pattern.matches(head.path().as_bytes(), work),
            Kind::Method(method) => head.method == method,
        }
    }
}

impl Kind {
    /// The regular expression, where it is one.
    pub(super) fn pattern(&self) -> Option<&Pattern> {
        match self {
            Self::HeaderMatches(_, pattern) | Self::PathMatches(pattern) => Some(pattern),
            _ => None,
        }
    }

    /// Whether rules are looked up by its value, rather than tried one by one.
    pub(super) fn is_looked_up(&self) -> bool {
        match self {
            Self::Header(..)
            | Self::Mine(_)
            | Self::Baggage(..)
            | Self::Path(_)
            | Self::PathPrefix(_) => true,
            Self::HeaderMatches(..) | Self::PathMatches(_) | Self::Method(_) => false,
        }
    }
}

/// The header of `--mine`.
pub(super) fn mine_header() -> HeaderName {
    HeaderName::from_static(MINE_HEADER)
}

/// Whether the segments of `prefix`, which ends with none unfinished, begin `path`.
pub(super) fn begins_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

fn header_name(text: &str) -> Result<HeaderName, Invalid> {
    let text = text.trim();
    fits(text, "the name of a header")?;
    text.parse()
        .map_err(|_| Invalid(format!("{text:?} cannot be the name of a header")))
}

fn path(text: &str) -> Result<String, Invalid> {
    fits(text, "a path")?;
    if !text.starts_with('/') {
        return Err(Invalid(format!("{text:?} is no path: it begins with /")));
    }
    if let Some(odd) = text
        .chars()
        .find(|c| !c.is_ascii_graphic() || "?#".contains(*c))
    {
        return Err(Invalid(format!(
            "{text:?} is no path: {odd:?} cannot stand in one; queries are not looked at, and all \
             but ASCII is sent percent-encoded"
        )));
    }
    Ok(text.to_owned())
}

fn fits(text: &str, what: &str) -> Result<(), Invalid> {
    match text.len() {
        0 => Err(Invalid(format!("{what} is empty"))),
        1..=LONGEST_TEXT => Ok(()),
        n => Err(Invalid(format!(
            "{what} has {n} bytes, more than {LONGEST_TEXT}"
        ))),
    }
}
