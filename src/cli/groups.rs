//! Which options and commands stand together in help, and where the options that every command
//! takes are worth showing.

use super::intercept::HEADINGS;

/// Options that stand together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) heading: &'static str,
    /// The settings and flags in it.
    pub(super) options: &'static [&'static str],
}

const CLUSTER: Group = Group {
    heading: "Cluster",
    options: &["kubeconfig", "context", "namespace"],
};
const LOGIN: Group = Group {
    heading: "Login",
    options: &["as", "as-group", "login-timeout", "proxy-auth-helper"],
};
const ROUTES: Group = Group {
    heading: "Routes",
    options: &[
        "via",
        "carrier",
        "cluster-domain",
        "also-proxy",
        "never-proxy",
        "resolve-in-cluster",
    ],
};
const SESSION: Group = Group {
    heading: "Session",
    options: &[
        "proxy-listen",
        "dns-listen",
        "own-session",
        "capture",
        "all-proxy",
        "host-loopback",
        "mine-header",
        "owner",
    ],
};
const OBJECTS: Group = Group {
    heading: "Objects in the cluster",
    options: &[
        "label",
        "annotation",
        "cpu-request",
        "cpu-limit",
        "memory-request",
        "memory-limit",
        "node-selector",
        "toleration",
        "priority-class",
        "runtime-class",
        "image-pull-secret",
    ],
};
const LOG: Group = Group {
    heading: "Log",
    options: &["verbose", "log-format"],
};

/// What `-h` leaves to `--help`, since few ever need it; and all of [`OBJECTS`].
const SELDOM: [&str; 5] = [
    "carrier",
    "cluster-domain",
    "resolve-in-cluster",
    "all-proxy",
    "owner",
];

/// Every option that is a setting, or that every command takes, is in one of these.
pub(super) const GROUPS: [&Group; 6] = [&CLUSTER, &LOGIN, &ROUTES, &SESSION, &OBJECTS, &LOG];

/// The group of an option.
pub(super) fn group(option: &str) -> Option<&'static Group> {
    GROUPS
        .into_iter()
        .find(|group| group.options.contains(&option))
}

/// Whether `-h` of a command leaves out an option that stands under `heading`.
pub(super) fn is_seldom(command: &str, option: &str, heading: Option<&str>) -> bool {
    // Beside a command an intercept is the exception.
    let of_intercept = heading.is_some_and(|heading| HEADINGS.contains(&heading));
    // `kdev list --owner` is another one than the setting.
    let in_group = heading.is_some() && heading == group(option).map(|group| group.heading);
    let seldom = SELDOM.contains(&option) || OBJECTS.options.contains(&option);
    (in_group && seldom) || (["run", "shell"].contains(&command) && of_intercept)
}

/// Whether an option says which cluster, and who asks it.
pub(super) fn is_place(option: &str) -> bool {
    [CLUSTER, LOGIN]
        .iter()
        .any(|group| group.options.contains(&option))
        || option == "cluster-domain"
}

/// A command, and the groups whose options its help shows. Every command takes the options of every
/// group that are global; where they do nothing, or seldom something, one line says where they are.
pub(super) struct Shows {
    pub(super) command: &'static str,
    pub(super) groups: &'static [&'static Group],
}

const fn shows(command: &'static str, groups: &'static [&'static Group]) -> Shows {
    Shows { command, groups }
}

/// Commands by what they are for, as `kdev --help` lists them.
pub(super) const COMMANDS: [(&str, &[Shows]); 5] = [
    (
        "Reach the cluster",
        &[
            shows("run", &[&CLUSTER, &ROUTES, &LOG]),
            shows("shell", &[&CLUSTER, &ROUTES, &LOG]),
            shows("connect", &[&CLUSTER, &ROUTES, &LOG]),
            shows("forward", &[&CLUSTER, &ROUTES, &LOG]),
            shows("env", &[&CLUSTER, &ROUTES]),
        ],
    ),
    (
        "Intercept requests",
        &[
            shows("intercept", &[&CLUSTER, &ROUTES, &LOG]),
            shows("list", &[&CLUSTER]),
            shows("leave", &[&CLUSTER]),
            shows("restore", &[&CLUSTER]),
        ],
    ),
    (
        "Set up the relay",
        &[
            shows("install", &[&CLUSTER]),
            shows("upgrade", &[&CLUSTER]),
            shows("uninstall", &[&CLUSTER]),
        ],
    ),
    (
        "Inspect",
        &[
            shows("doctor", &[&CLUSTER, &LOGIN, &LOG]),
            shows("resolve", &[&CLUSTER, &ROUTES]),
            shows("status", &[]),
        ],
    ),
    (
        "Other",
        &[
            shows("demo", &[]),
            shows("config", &[]),
            shows("completions", &[]),
            shows("man", &[]),
            shows("options", &GROUPS),
            shows("help", &[]),
        ],
    ),
];

/// Whether the help of a command shows an option that every command takes.
pub(super) fn is_shown(command: &str, option: &str) -> bool {
    let shows = COMMANDS.iter().flat_map(|(_, commands)| *commands);
    let mut groups = shows
        .filter(|shows| shows.command == command)
        .flat_map(|shows| shows.groups);
    groups.any(|group| group.options.contains(&option))
}
