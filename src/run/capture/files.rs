//! The files by which a program finds the cluster's names.

use std::fs;
use std::path::Path;

use crate::capture::wire::File;
use crate::capture::{DNS, HOST_NAME, HOST_V4};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const NSSWITCH: &str = "/etc/nsswitch.conf";
/// As in a pod: names with fewer dots are tried in the search list first.
const NDOTS: &str = "ndots:5";
/// Domains of a search list that resolvers take: glibc has no limit since 2.26, musl has 256 bytes.
const SEARCHED: usize = 32;

/// The names of a cluster, as a pod sees them.
#[derive(Clone, Debug)]
pub struct Names {
    /// The namespace of bare names.
    pub namespace: String,
    /// The cluster's domain, for example `cluster.local`.
    pub domain: String,
}

/// The files for a program that sees the names of `names`, made from those of this machine.
#[must_use]
pub fn files(names: &Names) -> Vec<File> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let file = |path: &str, text: String| File {
        path: path.to_owned(),
        text,
    };
    // Without this one no name resolves, and that is told.
    let mut files = vec![file(RESOLV_CONF, resolv_conf(names, &read(RESOLV_CONF)))];
    if Path::new(HOSTS).exists() {
        files.push(file(HOSTS, hosts(&read(HOSTS))));
    }
    files.extend(nsswitch(&read(NSSWITCH)).map(|text| file(NSSWITCH, text)));
    files
}

fn resolv_conf(names: &Names, machine: &str) -> String {
    let Names { namespace, domain } = names;
    let mut search = vec![
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    let mut options = vec![NDOTS.to_owned()];
    for line in machine.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            // The last one counts.
            Some("search" | "domain") => {
                search.truncate(3);
                search.extend(words.map(str::to_owned));
            }
            Some("options") => {
                let kept = words.filter(|word| !word.starts_with("ndots:"));
                options.extend(kept.map(str::to_owned));
            }
            _ => {}
        }
    }
    search.truncate(SEARCHED);
    format!(
        "nameserver {DNS}\nsearch {}\noptions {}\n",
        search.join(" "),
        options.join(" ")
    )
}

fn hosts(machine: &str) -> String {
    format!("{}\n{HOST_V4}\t{HOST_NAME}\n", machine.trim_end())
}

/// Leaves only `/etc/hosts` and DNS to look names up; `None` where it is so already. Others (mDNS,
/// systemd-resolved, sssd) would answer without asking kdev.
fn nsswitch(machine: &str) -> Option<String> {
    const ASKED: [&str; 3] = ["files", "dns", "myhostname"];
    let mut changed = false;
    let lines = machine.lines().map(|line| {
        let Some(rest) = line.trim_start().strip_prefix("hosts:") else {
            return line.to_owned();
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let words: Vec<&str> = rest.split_whitespace().collect();
        let mut kept: Vec<&str> = words
            .iter()
            .copied()
            .filter(|w| ASKED.contains(w))
            .collect();
        for needed in ["files", "dns"] {
            if !kept.contains(&needed) {
                kept.push(needed);
            }
        }
        changed |= kept != words;
        format!("hosts: {}", kept.join(" "))
    });
    let text: Vec<String> = lines.collect();
    changed.then(|| text.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_in_a_pod_and_then_as_on_this_machine() {
        let names = Names {
            namespace: "shop".to_owned(),
            domain: "cluster.local".to_owned(),
        };
        let machine = "# made by a program\nnameserver 10.0.0.2\ndomain old.example\n\
                       search corp.example lab.example\noptions edns0 ndots:2 trust-ad\n";
        assert_eq!(
            resolv_conf(&names, machine),
            "nameserver 127.77.0.53\nsearch shop.svc.cluster.local svc.cluster.local \
             cluster.local corp.example lab.example\noptions ndots:5 edns0 trust-ad\n"
        );
    }

    #[test]
    fn only_files_and_dns_are_asked() {
        for (machine, here) in [
            ("hosts: files dns", None),
            ("passwd: files\n", None),
            (
                "passwd: files\nhosts: files mdns4_minimal [NOTFOUND=return] dns myhostname # x\n",
                Some("passwd: files\nhosts: files dns myhostname\n"),
            ),
            (
                "hosts:\tresolve [!UNAVAIL=return] files",
                Some("hosts: files dns\n"),
            ),
        ] {
            assert_eq!(nsswitch(machine).as_deref(), here, "{machine}");
        }
    }

    #[test]
    fn this_machine_has_a_name() {
        assert_eq!(
            hosts("127.0.0.1 localhost\n\n"),
            "127.0.0.1 localhost\n192.0.0.11\thost.kdev.internal\n"
        );
    }
}
