//! Reads the command line of Compose as Compose reads it, as far as kdev needs.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::run::container::argv::{Flag, Flags, utf8};

/// A command line of Compose, from its own flags on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// The flags before the subcommand, as they were written.
    pub(super) written: Vec<OsString>,
    /// The same without those that name files.
    pub(super) flags: Vec<OsString>,
    /// The files that are named.
    pub(super) files: Vec<String>,
    /// Where relative paths begin, where that is named.
    pub(super) directory: Option<String>,
    /// The subcommand; empty where there is none, or help is asked for.
    pub(super) subcommand: String,
    /// What follows it.
    pub(super) rest: Vec<OsString>,
}

/// What follows a subcommand that starts containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// The flags as they were written, without `--pull` and, of `run`, those about ports.
    pub(super) flags: Vec<OsString>,
    /// The services that are named.
    pub(super) services: Vec<String>,
    /// When images are pulled.
    pub(super) pull: Option<String>,
    /// How many containers of a service are asked for.
    pub(super) scales: BTreeMap<String, u64>,
    /// Whether nothing is started.
    pub(super) idle: bool,
    /// Whether the command ends while the containers go on.
    pub(super) detached: bool,
    /// Whether dependencies are made anew, companions too.
    pub(super) renews: bool,
    /// Whether containers stay as they are, and so have no network of kdev's.
    pub(super) keeps: bool,
    /// Whether nothing but the named services is started.
    pub(super) alone: bool,
    /// What is particular to `run`.
    pub(super) one_off: Option<OneOff>,
}

/// A container that Compose runs beside those of its service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OneOff {
    /// The ports that are published for it.
    pub(super) ports: Vec<String>,
    /// Whether those of the service are.
    pub(super) service_ports: bool,
    /// Whether it has the names of the service.
    pub(super) aliases: bool,
    /// What is run in it.
    pub(super) command: Vec<OsString>,
}

/// Flags before the subcommand that stand alone.
fn alone(name: &str) -> bool {
    [
        "all-resources",
        "compatibility",
        "dry-run",
        "h",
        "help",
        "no-ansi",
        "v",
        "verbose",
        "version",
    ]
    .contains(&name)
}

/// Whether a flag of `up` stands alone. Those with a value are listed, since new ones are rarer.
fn up_alone(name: &str) -> bool {
    ![
        "attach",
        "exit-code-from",
        "no-attach",
        "pull",
        "scale",
        "t",
        "timeout",
        "wait-timeout",
    ]
    .contains(&name)
}

/// The same for `run`.
fn run_alone(name: &str) -> bool {
    ![
        "cap-add",
        "cap-drop",
        "e",
        "entrypoint",
        "env",
        "env-from-file",
        "l",
        "label",
        "name",
        "p",
        "publish",
        "pull",
        "u",
        "user",
        "v",
        "volume",
        "w",
        "workdir",
    ]
    .contains(&name)
}

/// Reads `args`, which begin behind `compose`.
pub(super) fn parse(args: &[OsString]) -> Line {
    let text: Vec<&str> = args.iter().map(|arg| utf8(arg)).collect();
    let mut flags = Flags::new(&text, 0, alone);
    let (mut line, mut from, mut only_said) = (Line::default(), 0, false);
    while let Some(flag) = flags.next() {
        let value = flag.value.unwrap_or_default().to_owned();
        match flag.name {
            "f" | "file" => line.files.push(value),
            "project-directory" | "workdir" => line.directory = Some(value),
            // Says something, and starts nothing.
            "h" | "help" | "v" | "version" | "dry-run" => only_said |= flag.is_set(),
            _ => {}
        }
        if !flags.is_within_group() {
            if !["f", "file"].contains(&flag.name) {
                line.flags
                    .extend_from_slice(&args[from..flags.at().min(args.len())]);
            }
            from = flags.at();
        }
    }
    let at = flags.at().min(args.len());
    line.written = args[..at].to_vec();
    if let Some((subcommand, rest)) = args[at..].split_first().filter(|_| !only_said) {
        line.subcommand = utf8(subcommand).to_owned();
        line.rest = rest.to_vec();
    }
    line
}

/// Reads what follows `up`; `None` where it starts nothing and only says something.
pub(super) fn up(rest: &[OsString]) -> Option<Start> {
    let text: Vec<&str> = rest.iter().map(|arg| utf8(arg)).collect();
    let (mut up, mut from) = (Start::default(), 0);
    loop {
        let mut flags = Flags::new(&text, from, up_alone);
        while let Some(flag) = flags.next() {
            if ["h", "help", "dry-run"].contains(&flag.name) && flag.is_set() {
                return None;
            }
            note(&flag, &mut up);
            if !flags.is_within_group() {
                if flag.name != "pull" {
                    up.flags
                        .extend_from_slice(&rest[from..flags.at().min(rest.len())]);
                }
                from = flags.at();
            }
        }
        let ended = flags.at() > from;
        from = flags.at();
        // Flags may stand behind services, unless `--` came.
        let services = if ended { text.len() } else { from + 1 };
        for service in text.get(from..services.min(text.len())).unwrap_or_default() {
            up.services.push((*service).to_owned());
        }
        from = services;
        if from >= text.len() {
            return Some(up);
        }
    }
}

/// Reads what follows `run`; `None` where it starts nothing and only says something.
pub(super) fn run(rest: &[OsString]) -> Option<Start> {
    let text: Vec<&str> = rest.iter().map(|arg| utf8(arg)).collect();
    let mut flags = Flags::new(&text, 0, run_alone);
    let (mut start, mut one_off, mut from) = (Start::default(), OneOff::default(), 0);
    let (mut ours, mut others) = (false, Vec::new());
    while let Some(flag) = flags.next() {
        let value = flag.value.unwrap_or_default().to_owned();
        match flag.name {
            "h" | "help" | "dry-run" if flag.is_set() => return None,
            "p" | "publish" => one_off.ports.push(value),
            "P" | "service-ports" => one_off.service_ports |= flag.is_set(),
            "pull" => start.pull = Some(value),
            name => {
                one_off.aliases |= name == "use-aliases" && flag.is_set();
                start.detached |= ["d", "detach"].contains(&name) && flag.is_set();
                start.alone |= name == "no-deps" && flag.is_set();
                others.push(flag.spelt().into());
            }
        }
        ours |= ["p", "publish", "P", "service-ports", "pull"].contains(&flag.name);
        if !flags.is_within_group() {
            let at = flags.at().min(rest.len());
            match ours {
                // What stood in one argument with a flag of kdev's.
                true => start.flags.append(&mut others),
                false => start.flags.extend_from_slice(&rest[from..at]),
            }
            (from, ours) = (at, false);
            others.clear();
        }
    }
    let (service, command) = rest.get(flags.at()..)?.split_first()?;
    start.services.push(utf8(service).to_owned());
    one_off.command = command.to_vec();
    start.one_off = Some(one_off);
    Some(start)
}

fn note(flag: &Flag<'_>, up: &mut Start) {
    let value = flag.value.unwrap_or_default();
    match flag.name {
        "d" | "detach" | "wait" => up.detached |= flag.is_set(),
        "no-start" => up.idle |= flag.is_set(),
        "always-recreate-deps" => up.renews |= flag.is_set(),
        "no-recreate" => up.keeps |= flag.is_set(),
        "no-deps" => up.alone |= flag.is_set(),
        "pull" => up.pull = Some(value.to_owned()),
        "scale" => {
            let scale = value.split_once('=');
            let scale = scale.and_then(|(service, count)| Some((service, count.parse().ok()?)));
            up.scales
                .extend(scale.map(|(service, count)| (service.to_owned(), count)));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
