//! What the user chose for the relay, kept in an annotation so that an upgrade keeps it too.

use serde::{Deserialize, Serialize};

/// The image whose `sh` and `gunzip` unpack the relay, and in which it then runs.
pub const BASE_IMAGE: &str = "docker.io/library/busybox:stable";
/// Relay pods: while one is replaced the other serves.
pub const REPLICAS: u16 = 2;

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Where the program comes from.
    #[serde(flatten)]
    pub source: Source,
    /// How many pods.
    pub replicas: u16,
    /// What alone the relay may reach, as the relay reads it; empty for everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// What it may not reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// Where the relay's program comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// An image that has it.
    Image(String),
    /// ConfigMaps, unpacked by an image that has a shell.
    BaseImage(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            source: Source::BaseImage(BASE_IMAGE.to_owned()),
            replicas: REPLICAS,
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether the program travels in ConfigMaps.
    #[must_use]
    pub fn source_is_base(&self) -> bool {
        matches!(self.source, Source::BaseImage(_))
    }

    /// As one line, for the annotation.
    #[must_use]
    pub fn line(&self) -> String {
        // Strings, numbers and lists always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From the annotation; `None` where it is missing or of a kdev that wrote it another way.
    #[must_use]
    pub fn of_line(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_their_annotation() {
        let settings = Settings {
            source: Source::Image("registry/relay:1".to_owned()),
            replicas: 1,
            allow: vec!["10.0.0.0/8:5432".to_owned()],
            deny: Vec::new(),
        };
        let line = settings.line();
        assert_eq!(Settings::of_line(&line), Some(settings), "{line}");
        assert!(line.starts_with(r#"{"image":"#), "{line}");
        let default = Settings::default();
        assert_eq!(Settings::of_line(&default.line()), Some(default));
        assert_eq!(Settings::of_line("{}"), None);
    }
}
