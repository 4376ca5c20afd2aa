//! Reads the command line of an engine as the engine reads it (Go's pflag), as far as kdev needs:
//! where the flags of `run` begin, and what some of them say.
//!
//! Only flags without a value are listed: nearly all the others take one, new ones included.

mod split;

use std::ffi::{OsStr, OsString};

pub(super) use split::{Split, split};

use super::engine::Kind;

/// `run` and its flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunFlags {
    pub(super) detach: bool,
    pub(super) networks: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) network_aliases: Vec<String>,
    pub(super) add_hosts: Vec<String>,
    pub(super) cidfile: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) no_hosts: bool,
}

/// What stands on the command line before the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not `run`, or a `run` that ends in the engine's own usage message.
    Other,
    /// `create`.
    Create,
    /// `compose`.
    Compose {
        /// Index of what follows it.
        at: usize,
    },
    /// `run`.
    Run {
        /// Index in the arguments (program excluded) of the first flag of `run`.
        flags_at: usize,
        /// Index of the image.
        image_at: usize,
        flags: RunFlags,
    },
}

/// Flags that stand alone, before the subcommand.
fn global_alone(kind: Kind, name: &str) -> bool {
    let of_kind: &[&str] = match kind {
        Kind::Docker => &["D", "debug", "tls", "tlsverify"],
        Kind::Podman => &["r", "remote", "syslog", "trace", "transient-store", "noout"],
        Kind::Nerdctl => &[
            "debug",
            "debug-full",
            "experimental",
            "insecure-registry",
            "kube-hide-dupe",
        ],
    };
    of_kind.contains(&name) || ["h", "help", "v", "version"].contains(&name)
}

/// Flags of `run` that stand alone, in any of the engines.
fn run_alone(name: &str) -> bool {
    [
        "d",
        "detach",
        "i",
        "interactive",
        "t",
        "tty",
        "P",
        "publish-all",
        "q",
        "quiet",
        "disable-content-trust",
        "env-host",
        "help",
        "http-proxy",
        "init",
        "no-healthcheck",
        "no-hostname",
        "no-hosts",
        "oom-kill-disable",
        "passwd",
        "privileged",
        "read-only",
        "read-only-tmpfs",
        "replace",
        "rm",
        "rmi",
        "rootfs",
        "sig-proxy",
        "tls-verify",
        "unsetenv-all",
        "use-api-socket",
        "insecure-registry",
        "debug",
        "debug-full",
        "experimental",
        "kube-hide-dupe",
    ]
    .contains(&name)
}

/// Reads `args`, the program excluded.
pub(super) fn parse(kind: Kind, args: &[OsString]) -> Parsed {
    let text: Vec<&str> = args.iter().map(|a| utf8(a)).collect();
    let mut globals = Flags::new(&text, 0, |name| global_alone(kind, name));
    if globals.any(|flag| ["h", "help", "v", "version"].contains(&flag.name)) {
        return Parsed::Other;
    }
    let mut at = globals.at;
    if text.get(at) == Some(&"container") {
        at += 1;
    }
    match text.get(at) {
        Some(&"run") => parse_run(&text, at + 1),
        Some(&"create") => Parsed::Create,
        Some(&"compose") => Parsed::Compose { at: at + 1 },
        _ => Parsed::Other,
    }
}

fn parse_run(text: &[&str], flags_at: usize) -> Parsed {
    let mut out = RunFlags::default();
    let mut flags = Flags::new(text, flags_at, run_alone);
    for flag in flags.by_ref() {
        let value = flag.value.unwrap_or_default().to_owned();
        match flag.name {
            "help" => return Parsed::Other,
            "d" | "detach" => out.detach = flag.is_set(),
            "network" | "net" => out.networks.push(value),
            "name" => out.name = Some(value),
            "h" | "hostname" => out.hostname = Some(value),
            "network-alias" | "net-alias" => out.network_aliases.push(value),
            "add-host" => out.add_hosts.push(value),
            "cidfile" => out.cidfile = Some(value),
            "pod" => out.pod = Some(value),
            "no-hosts" => out.no_hosts = flag.is_set(),
            _ => {}
        }
    }
    let image_at = flags.at;
    if image_at >= text.len() {
        return Parsed::Other;
    }
    Parsed::Run {
        flags_at,
        image_at,
        flags: out,
    }
}

/// A text that is no UTF-8 is a path or a value, never a flag that matters here.
pub(super) fn utf8(arg: &OsStr) -> &str {
    arg.to_str().unwrap_or("\u{fffd}")
}

/// A flag with its value.
#[derive(Debug)]
pub(super) struct Flag<'a> {
    /// Without dashes; one character for a short flag.
    pub(super) name: &'a str,
    /// `None` for a flag that stands alone.
    pub(super) value: Option<&'a str>,
}

impl Flag<'_> {
    /// Whether a flag that stands alone is switched on: `--rm`, `--rm=true`, not `--rm=false`.
    pub(super) fn is_set(&self) -> bool {
        // What Go's strconv.ParseBool calls true; the engine refuses what is neither.
        self.value
            .is_none_or(|v| ["1", "t", "T", "true", "TRUE", "True"].contains(&v))
    }

    /// The flag in one argument.
    pub(super) fn spelt(&self) -> String {
        let dashes = if self.name.chars().count() == 1 {
            "-"
        } else {
            "--"
        };
        match self.value {
            None => format!("{dashes}{}", self.name),
            Some(value) => format!("{dashes}{}={value}", self.name),
        }
    }
}

/// The flags up to the first argument that is none. `at` is then where that one stands.
pub(super) struct Flags<'a, F> {
    text: &'a [&'a str],
    at: usize,
    /// The rest of a group of short flags, as `td` of `-itd`.
    group: &'a str,
    alone: F,
}

impl<'a, F: Fn(&str) -> bool> Flags<'a, F> {
    /// The flags from `at` on, of which `alone` says which have no value.
    pub(super) fn new(text: &'a [&'a str], at: usize, alone: F) -> Self {
        Self {
            text,
            at,
            group: "",
            alone,
        }
    }

    /// Where the next argument stands; past the end where the last flag lacks its value.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether the next flag stands in the same argument as the last.
    pub(super) fn is_within_group(&self) -> bool {
        !self.group.is_empty()
    }

    /// The next argument as a value, the empty one where the line ends.
    fn take(&mut self) -> &'a str {
        let value = self.text.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        value
    }

    fn long(&mut self, body: &'a str) -> Flag<'a> {
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None if (self.alone)(body) => (body, None),
            None => (body, Some(self.take())),
        };
        Flag { name, value }
    }

    fn short(&mut self, group: &'a str) -> Flag<'a> {
        let end = group.chars().next().map_or(0, char::len_utf8);
        let (name, rest) = group.split_at(end);
        if let Some(value) = rest.strip_prefix('=') {
            return Flag {
                name,
                value: Some(value),
            };
        }
        if (self.alone)(name) {
            self.group = rest;
            return Flag { name, value: None };
        }
        let value = if rest.is_empty() { self.take() } else { rest };
        Flag {
            name,
            value: Some(value),
        }
    }
}

impl<'a, F: Fn(&str) -> bool> Iterator for Flags<'a, F> {
    type Item = Flag<'a>;

    fn next(&mut self) -> Option<Flag<'a>> {
        if !self.group.is_empty() {
            let group = std::mem::take(&mut self.group);
            return Some(self.short(group));
        }
        let arg = *self.text.get(self.at)?;
        if arg == "--" {
            self.at += 1;
            // Nothing after it is a flag, and nobody asks again after `None`.
            return None;
        }
        if let Some(body) = arg.strip_prefix("--") {
            self.at += 1;
            return Some(self.long(body));
        }
        match arg.strip_prefix('-') {
            Some(group) if !group.is_empty() => {
                self.at += 1;
                Some(self.short(group))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
