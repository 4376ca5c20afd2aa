//! The relay as a pod of the simulated cluster: the real one, in this process.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kdev_sim::{Container, Exit, SimCluster};

use super::network::{LOW_PORTS, Network};
use crate::relay::{BLOCK, FIRST_PORT, MEMORY_LIMIT, Names, PORTS, Policy, Relay, Rule, Settings};
use crate::tunnel::TUNNEL_PORT;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// This machine, which is where everything of a simulated cluster is.
const HERE: &str = "127.0.0.0/8";

/// What all pods of the relay share.
struct Around {
    /// Below it each has its secrets.
    folder: PathBuf,
    hosts: String,
    network: Option<Arc<Network>>,
}

/// Makes the containers named `relay` of pods in `cluster` run the relay. It keeps their secrets
/// below `folder` and knows the `hosts` (as in `/etc/hosts`). In a `network` it listens for callers
/// too, and knows the Services that `namespace` has now, and those that intercepts make; without one
/// it does not, since 127.0.0.1 has each port but once.
pub fn relay_pods(
    cluster: &SimCluster,
    namespace: &str,
    folder: &Path,
    hosts: &str,
    network: Option<Arc<Network>>,
) {
    let mut hosts = format!("{hosts}\n");
    if let Some(network) = &network {
        let places = network.clone();
        cluster.proxy_services(namespace, move |name, port| {
            Some(places.service(name, port))
        });
        for service in cluster.objects("services", namespace) {
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            let _ = writeln!(hosts, "{} {name}", network.address_of(name));
        }
        for block in (FIRST_PORT..FIRST_PORT + PORTS).step_by(BLOCK.into()) {
            let name = format!("kdev-{block}");
            let _ = writeln!(hosts, "{} {name}", network.address_of(&name));
        }
    }
    let around = Arc::new(Around {
        folder: folder.to_owned(),
        hosts,
        network,
    });
    cluster.add_program("relay", move |container| {
        let around = around.clone();
        async move {
            match start(&container, &around) {
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

fn start(container: &Container, around: &Around) -> std::io::Result<Relay> {
    let folder = around.folder.join(container.pod());
    for role in ["forward", "intercept"] {
        let path = format!("/var/run/secrets/kdev/{role}/key");
        let missing = || std::io::Error::other(format!("{path} is missing"));
        let key = container.file(&path).ok_or_else(missing)?;
        std::fs::create_dir_all(folder.join(role))?;
        std::fs::write(folder.join(role).join("key"), key)?;
    }
    let own: Option<IpAddr> = around.network.as_ref().map(|network| network.pod().into());
    let settings = Settings {
        tunnel: (LOCAL, 0).into(),
        pod_tunnel: None,
        http: None,
        inbound: own.map_or((LOCAL, FIRST_PORT, 0), |ip| (ip, FIRST_PORT, PORTS)),
        secrets: folder,
        policy: Policy {
            allow: HERE.parse::<Rule>().into_iter().collect(),
            deny: Vec::new(),
        },
        memory: MEMORY_LIMIT,
    };
    let relay = Relay::start(&settings, Names::of("", &around.hosts).low_ports(LOW_PORTS))?;
    container.serve(TUNNEL_PORT, relay.address()?);
    if let Some(ip) = own {
        container.listens_at(ip);
    }
    Ok(relay)
}
