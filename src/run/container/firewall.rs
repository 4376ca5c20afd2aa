//! What to do where a container does not reach this machine.

use std::net::IpAddr;
use std::path::Path;

use super::network::Link;
use super::reach::PODMAN_HOST_NAME;
use super::{Peers, Plan};

/// Where administrators' programs are; a user's `PATH` may lack these.
const ADMIN_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Which programs that configure a firewall are installed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tools {
    ufw: bool,
    firewalld: bool,
}

impl Tools {
    /// Looks for them. Whether they are switched on is for root to know.
    fn find() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<_> = std::env::split_paths(&path).collect();
        folders.extend(ADMIN_FOLDERS.map(Into::into));
        let has = |name: &str| folders.iter().any(|f| Path::join(f, name).is_file());
        Self {
            ufw: has("ufw"),
            firewalld: has("firewall-cmd"),
        }
    }
}

/// A container's requests would not arrive.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}; {help}")]
pub struct Unreached {
    /// What does not reach what.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl Plan {
    /// What it means that a container of `image` `said` that it does not reach `port`.
    pub(super) fn unreached(&self, image: &str, port: u16, said: &str) -> Unreached {
        let host = &self.advertised_host;
        let address = match host.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            _ => format!("{host}:{port}"),
        };
        let network = &self.link;
        Unreached {
            what: format!(
                "a container of {image} on {network} does not reach kdev at {address}: {said}"
            ),
            help: self.help(Tools::find()),
        }
    }

    fn help(&self, tools: Tools) -> String {
        let engine = self.run.engine.name();
        match self.peers {
            Peers::Containers => format!(
                "a firewall of this machine probably drops it. Let it in with {}. Without root, \
                 ask whoever has it for that line, or use this machine's own network: `{engine} \
                 run --network host …`",
                allow(&self.link, self.listen.ip, tools)
            ),
            Peers::ThisMachine(_) if self.advertised_host == PODMAN_HOST_NAME => {
                let leave = match &self.link.network {
                    Some(name) => format!("leave `--network {name}` out, "),
                    None => String::new(),
                };
                format!(
                    "podman gives containers no way to this machine before podman 5.3 with passt \
                     2024_08_21 where pasta is their network: {leave}update both, or use `{engine} \
                     run --network host …`, or `--network slirp4netns` (podman before 6)"
                )
            }
            Peers::ThisMachine(ip) => format!(
                "the engine's own network stack, or a firewall, does not let containers connect to \
                 {ip}, this machine's address: allow that, or use the engine as root"
            ),
            Peers::Password => format!(
                "{} leads nowhere in the engine's virtual machine: update the engine, or see that \
                 it gives containers this name",
                self.advertised_host
            ),
        }
    }
}

/// The line that lets the containers of a network reach its address of this machine: all ports,
/// since kdev's is another one each time.
fn allow(link: &Link, to: IpAddr, tools: Tools) -> String {
    let ufw = match (&link.subnet, &link.interface) {
        (Some(subnet), Some(name)) => {
            format!("`sudo ufw allow in on {name} from {subnet} to {to}`")
        }
        (Some(subnet), None) => format!("`sudo ufw allow from {subnet} to {to}`"),
        (None, Some(name)) => format!("`sudo ufw allow in on {name} to {to}`"),
        (None, None) => format!("`sudo ufw allow from SUBNET to {to}`"),
    };
    let firewalld = match (&link.subnet, &link.interface) {
        // A source outdoes the zone that the interface is in.
        (Some(subnet), _) => {
            format!("`sudo firewall-cmd --zone=trusted --add-source={subnet}`")
        }
        (None, Some(name)) => {
            format!("`sudo firewall-cmd --zone=trusted --change-interface={name}`")
        }
        (None, None) => "`sudo firewall-cmd --zone=trusted --add-source=SUBNET`".to_owned(),
    };
    let firewalld = format!("{firewalld} (again with `--permanent` to keep it)");
    match (tools.ufw, tools.firewalld) {
        (true, false) => ufw,
        (false, true) => firewalld,
        _ => format!("{ufw} (ufw) or {firewalld}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_for_what_is_installed() {
        let both = Link {
            network: Some("dev".to_owned()),
            interface: Some("br-0123456789ab".to_owned()),
            subnet: Some("172.18.0.0/16".to_owned()),
            ..Link::default()
        };
        let to = "172.18.0.1".parse().unwrap();
        let line = |link: &Link, ufw, firewalld| allow(link, to, Tools { ufw, firewalld });
        let ufw = "`sudo ufw allow in on br-0123456789ab from 172.18.0.0/16 to 172.18.0.1`";
        let firewalld = "`sudo firewall-cmd --zone=trusted --add-source=172.18.0.0/16`";
        assert_eq!(line(&both, true, false), ufw);
        let only = line(&both, false, true);
        assert!(
            only.starts_with(firewalld) && !only.contains("ufw"),
            "{only}"
        );
        for unknown in [line(&both, false, false), line(&both, true, true)] {
            assert!(
                unknown.contains(ufw) && unknown.contains(firewalld),
                "{unknown}"
            );
        }
        let bare = line(&Link::default(), true, false);
        assert_eq!(bare, "`sudo ufw allow from SUBNET to 172.18.0.1`");
    }
}
