//! An app on somebody's laptop.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// The program that says who it is.
pub(super) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/intercept/app.py");

/// An app that says whose it is; ended when dropped.
pub(super) struct App {
    child: Child,
    /// Whose laptop it is on.
    pub(super) owner: String,
    /// What it says of itself.
    pub(super) name: String,
    pub(super) port: u16,
    /// Where one hears first.
    pub(super) greeter: u16,
}

impl App {
    pub(super) fn of(owner: &str) -> Self {
        let mut command = Command::new("python3");
        command.args([SCRIPT, &name_of(owner)]);
        Self::start(owner, command)
    }

    /// Another program with the same name, which prints two ports just so.
    pub(super) fn start(owner: &str, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let (port, greeter) = line.trim().split_once(' ').unwrap();
        Self {
            child,
            owner: owner.to_owned(),
            name: name_of(owner),
            port: port.parse().unwrap(),
            greeter: greeter.parse().unwrap(),
        }
    }
}

fn name_of(owner: &str) -> String {
    format!("laptop-of-{owner}")
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
