//! Regular expressions over a whole value.

use std::fmt;

use regex_lite::{Regex, RegexBuilder};

use super::{Invalid, LONGEST_TEXT};

/// Bytes that a compiled expression may take: what one costs per byte of a value, and 500 of them
/// in memory, are bounded by this.
const LARGEST: usize = 32 << 10;
/// Longest value that is looked at; nothing longer matches.
const LONGEST_VALUE: usize = 4096;

/// A regular expression that must match a value from its beginning to its end. Its syntax is that
/// of Rust's `regex-lite`: no look-around, no back-references, classes of ASCII; so its time grows
/// no faster than the value.
#[derive(Clone)]
pub(super) struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("the regular expression is empty"));
        }
        if text.len() > LONGEST_TEXT {
            return Err(Invalid(format!(
                "the regular expression has {} bytes, more than {LONGEST_TEXT}",
                text.len()
            )));
        }
        let compile = |text: &str| RegexBuilder::new(text).size_limit(LARGEST).build();
        // Alone first: what only the parentheses around it make whole is not what was meant.
        let regex = compile(text).and_then(|_| compile(&format!("^(?:{text})$")));
        let regex = regex
            .map_err(|error| Invalid(format!("{text:?} is no regular expression: {error}")))?;
        Ok(Self {
            text: text.to_owned(),
            regex,
        })
    }

    pub(super) fn matches(&self, value: &[u8]) -> bool {
        value.len() <= LONGEST_VALUE
            && std::str::from_utf8(value).is_ok_and(|text| self.regex.is_match(text))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
