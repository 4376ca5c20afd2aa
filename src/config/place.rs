//! Where settings are looked for.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

/// The name of a project's file.
pub const PROJECT_FILE: &str = ".kdev.toml";
/// The variable that, with the value `off`, leaves the project's file out.
const PROJECT_SWITCH: &str = "KDEV_PROJECT";
/// Largest file that is read: far more than all settings take.
const MAX_FILE: u64 = 256 << 10;

/// What a process finds around it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The working directory.
    pub folder: PathBuf,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// The user's file, there or not.
    pub user_file: Option<PathBuf>,
    /// The environment's `KDEV_…` variables. Empty ones count as unset.
    pub variables: BTreeMap<String, String>,
}

/// Why a file of settings was not read.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be read.
    #[error("cannot read {}: {reason}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is another user's.
    #[error(
        "{} belongs to another user (uid {owner}), who could choose the cluster that you work with; \
         KDEV_PROJECT=off goes on without it", .file.display()
    )]
    Foreign {
        /// The file.
        file: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

impl Place {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let value = value.to_string_lossy().into_owned();
            (name.starts_with("KDEV_") && !value.is_empty()).then_some((name, value))
        });
        let user_file = etcetera::choose_base_strategy()
            .ok()
            .map(|dirs| dirs.config_dir().join("kdev").join("config.toml"));
        Self {
            folder: std::env::current_dir().unwrap_or_default(),
            home: std::env::home_dir(),
            user_file,
            variables: variables.collect(),
        }
    }

    /// The project's file: the nearest from the working directory upwards. The root of a
    /// repository is the last folder that is looked into; the home folder and what is above it
    /// belong to no project.
    #[must_use]
    pub fn project_file(&self) -> Option<PathBuf> {
        if self
            .variables
            .get(PROJECT_SWITCH)
            .is_some_and(|v| v == "off")
        {
            return None;
        }
        for folder in self.folder.ancestors() {
            if self.home.as_deref() == Some(folder) {
                return None;
            }
            let file = folder.join(PROJECT_FILE);
            if file.symlink_metadata().is_ok() {
                return Some(file);
            }
            if folder.join(".git").exists() {
                return None;
            }
        }
        None
    }
}

/// The text of the user's file, `None` where there is none.
pub(super) fn read_user(file: &Path) -> Result<Option<String>, PlaceError> {
    match read(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unreadable(file, &e)),
        Ok((text, _)) => Ok(Some(text)),
    }
}

/// The text of a project's file, which must be the user's own or the administrator's: whoever may
/// write to a folder above, such as `/tmp`, could choose for everybody who works below.
pub(super) fn read_project(file: &Path) -> Result<String, PlaceError> {
    let (text, owner) = read(file).map_err(|e| unreadable(file, &e))?;
    let me = nix::unistd::getuid().as_raw();
    if owner == me || owner == 0 || me == 0 {
        Ok(text)
    } else {
        let file = file.to_owned();
        Err(PlaceError::Foreign { file, owner })
    }
}

fn unreadable(file: &Path, error: &io::Error) -> PlaceError {
    PlaceError::Unreadable {
        file: file.to_owned(),
        reason: error.to_string(),
    }
}

/// A file's text and its owner.
fn read(file: &Path) -> io::Result<(String, u32)> {
    let mut options = std::fs::File::options();
    // A pipe of that name must not make every command wait for a writer.
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let opened = options.read(true).custom_flags(flags).open(file)?;
    let meta = opened.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    opened.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!(
            "it is larger than {} KiB",
            MAX_FILE >> 10
        )));
    }
    Ok((text, meta.uid()))
}
