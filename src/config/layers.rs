//! The layers, and which of them has the last word.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::file::{self, Kin, Said};
use super::place::{self, Place};
use super::{Config, Project, SETTINGS, Setting, Value};

/// Settings that the command line gives.
pub type Given = Vec<(&'static Setting, Value)>;

/// Where a value was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag(&'static str),
    /// In the environment: the variable.
    Environment(String),
    /// In a project's file, at this line.
    Project(PathBuf, usize),
    /// In the user's own file, at this line.
    User(PathBuf, usize),
}

impl Origin {
    /// The layer's name, for scripts.
    #[must_use]
    pub fn layer(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Environment(_) => "environment",
            Self::Project(..) => "project",
            Self::User(..) => "user",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{key}"),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Project(file, line) | Self::User(file, line) => {
                write!(f, "{}:{line}", file.display())
            }
        }
    }
}

/// The settings in force, and where each was said.
#[derive(Clone, Debug)]
pub struct Layered {
    /// What a session takes.
    pub config: Config,
    /// For each setting, in the table's order, who said what; the first one won.
    pub said: Vec<(&'static Setting, Vec<(Origin, Value)>)>,
    /// The project's file that was read.
    pub project_file: Option<PathBuf>,
}

impl Layered {
    /// Where the value of a setting was said; `None` for a default.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        let (_, said) = self.said.iter().find(|(setting, _)| setting.key == key)?;
        said.first().map(|(origin, _)| origin)
    }

    /// What the project's file says by which more goes into the cluster, as one line; none where it
    /// says nothing of the kind, or was overruled.
    #[must_use]
    pub fn widened(&self) -> Option<String> {
        let told = self.said.iter().filter_map(|(setting, said)| {
            let (origin, value) = said.first()?;
            let project = matches!(origin, Origin::Project(..));
            (project && setting.project == Project::MayTold)
                .then(|| format!("{}={value}", setting.key))
        });
        let told = told.collect::<Vec<_>>().join(" ");
        let file = self.project_file.as_ref().filter(|_| !told.is_empty())?;
        let file = file.display();
        Some(format!(
            "{file} sends more into the cluster: {told} (KDEV_PROJECT=off ignores that file)"
        ))
    }
}

/// Puts the layers together.
///
/// # Errors
/// When a file cannot be read or a file or a variable is wrong. The first thing that is wrong is
/// named with its place.
pub fn load(given: Given, place: &Place) -> anyhow::Result<Layered> {
    let project_file = place.project_file();
    let project = match &project_file {
        Some(path) => from_file(&place::read_project(path)?, path, Kin::Project, place)?,
        None => Vec::new(),
    };
    let user = match &place.user_file {
        Some(path) => match place::read_user(path)? {
            Some(text) => from_file(&text, path, Kin::User, place)?,
            None => Vec::new(),
        },
        None => Vec::new(),
    };
    let said = |(setting, value): &(&Setting, Value)| (setting.variable(), value.to_string());
    let command_line = given.iter().map(said).collect();
    let flags = given
        .into_iter()
        .map(|(setting, value)| (setting, Origin::Flag(setting.key), value));
    let all: Vec<_> = flags
        .chain(from_environment(place)?)
        .chain(project)
        .chain(user)
        .collect();
    let mut config = Config {
        command_line,
        ..Config::default()
    };
    let mut said = Vec::with_capacity(SETTINGS.len());
    for setting in SETTINGS {
        let mine = all.iter().filter(|(s, ..)| std::ptr::eq(*s, setting));
        let mine: Vec<(Origin, Value)> = mine.map(|(_, o, v)| (o.clone(), v.clone())).collect();
        if let Some((origin, value)) = mine.first() {
            (setting.set)(&mut config, value).map_err(|e| anyhow!("{origin}: {e}"))?;
        }
        said.push((setting, mine));
    }
    Ok(Layered {
        config,
        said,
        project_file,
    })
}

type Layer = Vec<(&'static Setting, Origin, Value)>;

fn from_environment(place: &Place) -> anyhow::Result<Layer> {
    let mut layer = Vec::new();
    for setting in SETTINGS {
        let name = setting.variable();
        let Some(text) = place.variables.get(&name).filter(|text| !text.is_empty()) else {
            continue;
        };
        let value = setting
            .read(text)
            .map_err(|wrong| anyhow!("${name} is wrong: {wrong}"))?;
        layer.push((setting, Origin::Environment(name), value));
    }
    Ok(layer)
}

fn from_file(text: &str, path: &Path, kin: Kin, place: &Place) -> anyhow::Result<Layer> {
    let (said, problems) = file::parse(text, path, kin, place.home.as_deref());
    let more = problems.len().saturating_sub(1);
    if let Some(first) = problems.into_iter().next() {
        let first = Err(anyhow::Error::new(first));
        return match more {
            0 => first,
            n => first.with_context(|| {
                format!(
                    "{} has {} errors; `kdev config check` lists them",
                    path.display(),
                    n + 1
                )
            }),
        };
    }
    let origin = |line| match kin {
        Kin::Project => Origin::Project(path.to_owned(), line),
        Kin::User => Origin::User(path.to_owned(), line),
    };
    let layer = |Said {
                     setting,
                     value,
                     line,
                 }| (setting, origin(line), value);
    Ok(said.into_iter().map(layer).collect())
}
