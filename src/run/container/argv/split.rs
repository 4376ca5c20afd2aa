//! Which of a container's flags are about its network, and so belong to the container that owns it.

use std::ffi::OsString;

use super::{Flag, Flags, run_alone, utf8};
use crate::run::container::engine::Kind;
use crate::run::container::network::mode;

/// The flags of a `run`, shared out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::run::container) struct Split {
    /// What the container keeps, as it was written.
    pub(in crate::run::container) kept: Vec<OsString>,
    /// What the owner of the network gets.
    pub(in crate::run::container) moved: Vec<String>,
    /// The nameservers that the user wants asked (`--dns`).
    pub(in crate::run::container) resolvers: Vec<String>,
    /// Whether the user says what is searched for short names (`--dns-search`).
    pub(in crate::run::container) searches: bool,
}

/// Where a flag belongs.
enum Belongs {
    /// To the container itself.
    Kept,
    /// To the owner of the network.
    Moved,
    /// To both.
    Both,
    /// To kdev, which answers questions about names.
    Resolver,
}

fn belongs(name: &str, value: &str) -> Belongs {
    match name {
        "p" | "publish" | "P" | "publish-all" | "expose" | "network" | "net" | "network-alias"
        | "net-alias" | "ip" | "ip6" | "link" | "link-local-ip" | "mac-address" | "h"
        | "hostname" | "domainname" | "dns-search" | "dns-option" | "dns-opt" | "add-host"
        | "no-hosts" | "no-hostname" => Belongs::Moved,
        // The owner is there before the container and has to be as long.
        "restart" | "platform" | "pull" | "tls-verify" | "userns" | "disable-content-trust" => {
            Belongs::Both
        }
        "dns" => Belongs::Resolver,
        "sysctl" if value.starts_with("net.") => Belongs::Moved,
        _ => Belongs::Kept,
    }
}

/// Shares out the flags of a `run` from `flags_at` on, and keeps the rest from `image_at` on.
///
/// # Errors
/// Why its network cannot be another container's, as the end of a sentence about the container.
pub(in crate::run::container) fn split(
    kind: Kind,
    args: &[OsString],
    flags_at: usize,
    image_at: usize,
) -> Result<Split, String> {
    let text: Vec<&str> = args.iter().map(|arg| utf8(arg)).collect();
    let mut flags = Flags::new(&text, flags_at, run_alone);
    let (mut out, mut from, mut together) = (Split::default(), flags_at, Vec::new());
    let mut name = None;
    while let Some(flag) = flags.next() {
        if flag.name == "name" {
            name = flag.value;
        }
        refuse(kind, &flag)?;
        together.push(flag);
        if flags.group.is_empty() {
            share(&together, &args[from..flags.at], &mut out);
            together.clear();
            from = flags.at;
        }
    }
    out.kept.extend_from_slice(&args[from..image_at.max(from)]);
    name_it(kind, name, &mut out);
    out.kept.extend_from_slice(&args[image_at.max(from)..]);
    Ok(out)
}

fn refuse(kind: Kind, flag: &Flag<'_>) -> Result<(), String> {
    let value = flag.value.unwrap_or_default();
    match flag.name {
        "network" | "net" => {
            let mode = mode(kind, value);
            let shares = ["host", "none", "ns"].contains(&&*mode);
            if shares || mode.starts_with("container:") {
                return Err(format!(
                    "shares a network that is not its own (--network {mode})"
                ));
            }
        }
        "pod" => return Err(format!("shares the network of a pod (--pod {value})")),
        "uts" if value == "host" => {
            return Err("has the host name of the engine's machine (--uts host)".to_owned());
        }
        _ => {}
    }
    Ok(())
}

/// Shares out the flags that stand in the arguments `written`: one, or a group of short ones.
fn share(flags: &[Flag<'_>], written: &[OsString], out: &mut Split) {
    let value = |flag: &Flag<'_>| flag.value.unwrap_or_default().to_owned();
    let place = |flag: &Flag<'_>| belongs(flag.name, flag.value.unwrap_or_default());
    let stays = |flag: &&Flag<'_>| matches!(place(flag), Belongs::Kept | Belongs::Both);
    if flags.iter().all(|flag| stays(&flag)) {
        out.kept.extend_from_slice(written);
    } else {
        out.kept
            .extend(flags.iter().filter(stays).map(|flag| flag.spelt().into()));
    }
    for flag in flags {
        match place(flag) {
            Belongs::Kept => {}
            Belongs::Moved | Belongs::Both => out.moved.push(flag.spelt()),
            Belongs::Resolver => out.resolvers.push(value(flag)),
        }
        out.searches |= flag.name == "dns-search";
    }
}

/// Other containers know a container on a network of the user's by its name. They still do: the
/// owner of the network has it as an alias on each.
fn name_it(kind: Kind, name: Option<&str>, out: &mut Split) {
    let Some(name) = name else {
        return;
    };
    let own = ["", "bridge", "podman", "pasta", "slirp4netns"];
    let mut first = true;
    let mut alias = None;
    for flag in &mut out.moved {
        let value = flag
            .strip_prefix("--network=")
            .or_else(|| flag.strip_prefix("--net="));
        let Some(value) = value.filter(|value| !own.contains(&&*mode(kind, value))) else {
            continue;
        };
        let has_options = value.contains(if kind == Kind::Podman { ':' } else { '=' });
        match (has_options, kind) {
            (true, _) => flag.push_str(&format!(",alias={name}")),
            // Beside the user's own aliases, which are for the first network.
            (false, _) if first => alias = Some(format!("--network-alias={name}")),
            (false, Kind::Docker) => *flag = format!("--network=name={value},alias={name}"),
            (false, Kind::Podman) => flag.push_str(&format!(":alias={name}")),
            (false, Kind::Nerdctl) => {}
        }
        first = false;
    }
    out.moved.extend(alias);
}

#[cfg(test)]
mod tests;
