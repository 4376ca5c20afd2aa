//! One thing that was looked at, and what came of it.

use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// kdev works, and could work better, or not for everything.
    Warn,
    /// kdev does not work.
    Fail,
    /// Not looked at; the detail says why.
    Skipped,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A stable name, for example `permission.create.pods/portforward`.
    pub id: String,
    /// What was looked at, in words.
    pub title: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do about it, where something can be done.
    pub fix: Option<String>,
    /// Whether kdev needs it. What is needed and fails makes the whole fail.
    pub needed: bool,
}

impl Check {
    fn new(status: Status, id: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            fix: None,
            needed: false,
        }
    }

    pub(super) fn ok(id: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::new(Status::Ok, id, title, detail)
    }

    pub(super) fn warn(id: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::new(Status::Warn, id, title, detail)
    }

    pub(super) fn fail(id: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::new(Status::Fail, id, title, detail).needed()
    }

    pub(super) fn skipped(id: &str, title: &str, reason: impl Into<String>) -> Self {
        Self::new(Status::Skipped, id, title, reason)
    }

    /// Without a fix where there is nothing to say.
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into()).filter(|fix| !fix.is_empty());
        self
    }

    pub(super) fn needed(mut self) -> Self {
        self.needed = true;
        self
    }

    /// Whether it makes the whole fail.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.needed && self.status == Status::Fail
    }
}

/// Whether a command works here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The command, for example `intercept`.
    pub command: String,
    /// Whether it works; `None` where that could not be found out.
    pub can: Option<bool>,
    /// Why not, why that is not known, or what else there is to know.
    pub reason: Option<String>,
    /// What mends it, where something can be done.
    pub fix: Option<String>,
    /// Ids of the checks that the answer rests on, where it is no.
    pub checks: Vec<String>,
}

/// All that was looked at, in an order that does not depend on what ended first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether kdev has all that it needs here.
    pub ok: bool,
    /// What the user can do, one answer for each command that was asked about.
    pub answers: Vec<Answer>,
    /// The checks.
    pub checks: Vec<Check>,
    /// Where a permission is missing that kdev needs: a Role and its binding, as YAML, that whoever runs the
    /// cluster can apply.
    pub role: Option<String>,
}
