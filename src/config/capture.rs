//! Which connections of a command go through kdev.

use super::{Fallback, Kind, Project, Setting, on};

/// How the connections of a command come to kdev.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capture {
    /// From a network of the command's own, where the system allows one.
    #[default]
    Auto,
    /// The same, or not at all.
    On,
    /// By the proxy that variables name, from programs that read them.
    Off,
}

pub(super) const CAPTURE: Setting = Setting {
    key: "capture",
    short: None,
    value_name: "WHEN",
    kind: Kind::Choice(&[
        (
            "auto",
            "all connections where this machine allows it, else those of programs that read proxy variables",
        ),
        ("on", "all connections, or the command does not start"),
        ("off", "those of programs that read proxy variables"),
    ]),
    help: "Which connections of a command (Linux) or a container go through kdev",
    fallback: Fallback::Is("auto"),
    project: Project::May,
    on: on::RUN | on::INTERCEPT,
    set: |config, value| {
        config.capture = match value.text() {
            "on" => Capture::On,
            "off" => Capture::Off,
            _ => Capture::Auto,
        };
        Ok(())
    },
};
