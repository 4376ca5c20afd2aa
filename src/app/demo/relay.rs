//! The relay as a pod of the simulated cluster: the real one, in this process.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use kdev_sim::{Container, Exit, SimCluster};

use crate::relay::{FIRST_PORT, Names, Policy, Relay, Rule, Settings};
use crate::tunnel::TUNNEL_PORT;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Makes the containers named `relay` of pods in `cluster` run the relay. It keeps their secrets
/// below `folder`, knows the `hosts` (as in `/etc/hosts`) and no other names, and may reach this
/// machine, which is where everything of a simulated cluster is. It listens for no callers: 512
/// ports for each pod are too many for a laptop.
pub fn relay_pods(cluster: &SimCluster, folder: &Path, hosts: &str) {
    let (folder, hosts) = (folder.to_owned(), hosts.to_owned());
    cluster.add_program("relay", move |container| {
        let (folder, hosts) = (folder.join(container.pod()), hosts.clone());
        async move {
            match start(&container, folder, &hosts) {
                Ok(relay) => {
                    container.ready();
                    tokio::select! {
                        // A pod of a simulation has nobody to wait for at its end.
                        () = container.stopped() => {}
                        () = relay.run(std::future::pending()) => {}
                    }
                    Exit::ok()
                }
                Err(error) => Exit::failed(1, &format!("the relay cannot run: {error}")),
            }
        }
    });
}

fn start(container: &Container, folder: PathBuf, hosts: &str) -> std::io::Result<Relay> {
    for role in ["forward", "intercept"] {
        let path = format!("/var/run/secrets/kdev/{role}/key");
        let missing = || std::io::Error::other(format!("{path} is missing"));
        let key = container.file(&path).ok_or_else(missing)?;
        std::fs::create_dir_all(folder.join(role))?;
        std::fs::write(folder.join(role).join("key"), key)?;
    }
    let here = LOCAL.to_string().parse::<Rule>();
    let settings = Settings {
        tunnel: (LOCAL, 0).into(),
        pod_tunnel: None,
        http: None,
        inbound: (LOCAL, FIRST_PORT, 0),
        secrets: folder,
        policy: Policy {
            allow: here.into_iter().collect(),
            deny: Vec::new(),
        },
    };
    let relay = Relay::start(&settings, Names::of("", hosts))?;
    container.serve(TUNNEL_PORT, relay.address()?);
    Ok(relay)
}
