//! kube-proxy: Services of one namespace at addresses of this machine, for programs in pods that dial
//! by themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use crate::resources::{ENDPOINTS, SERVICES};
use crate::task::Tasks;
use crate::world::World;

/// Where a port of a Service is on this machine, by the Service's name and the port's number; none
/// where it is nowhere.
pub(crate) type Place = dyn Fn(&str, u16) -> Option<SocketAddr> + Send + Sync;

/// A Service's port that is served here.
#[derive(Clone, PartialEq, Eq)]
struct Front {
    service: String,
    /// The port's name.
    port: String,
}

/// Serves what there is in `namespace` where `at` says, and follows its changes.
pub(crate) async fn run(world: Arc<World>, namespace: String, at: Box<Place>) {
    let mut moved = world.store.subscribe();
    let mut open: BTreeMap<SocketAddr, (Front, Tasks)> = BTreeMap::new();
    loop {
        moved.borrow_and_update();
        let wanted = fronts(&world, &namespace, &at);
        open.retain(|address, (front, tasks)| {
            let stays = wanted.get(address) == Some(front);
            if !stays {
                tasks.stop();
            }
            stays
        });
        for (address, front) in wanted {
            if open.contains_key(&address) {
                continue;
            }
            // One that somebody else has is tried again after the next change.
            if let Ok(listener) = TcpListener::bind(address).await {
                let tasks = world.node.child();
                let (world, namespace) = (world.clone(), namespace.clone());
                tasks.spawn(accept(world, namespace, front.clone(), listener));
                open.insert(address, (front, tasks));
            }
        }
        if moved.changed().await.is_err() {
            return;
        }
    }
}

/// What is to be served, by place. Of two with the same the first one has it.
fn fronts(world: &World, namespace: &str, at: &Place) -> BTreeMap<SocketAddr, Front> {
    let (_, services) = world.store.list(SERVICES.plural, Some(namespace));
    let mut all = BTreeMap::new();
    for service in &services {
        let spec = &service["spec"];
        // ExternalName Services have no address, headless ones none of their own.
        if matches!(spec["clusterIP"].as_str(), None | Some("None")) {
            continue;
        }
        for port in spec["ports"].as_array().into_iter().flatten() {
            let front = Front {
                service: text(&service["metadata"]["name"]),
                port: text(&port["name"]),
            };
            let number = port["port"].as_u64().and_then(|n| u16::try_from(n).ok());
            let address = number.and_then(|number| at(&front.service, number));
            if let Some(address) = address
                && !is_closed(world, namespace, &front)
            {
                all.entry(address).or_insert(front);
            }
        }
    }
    all
}

async fn accept(world: Arc<World>, namespace: String, front: Front, listener: TcpListener) {
    let mut turn = 0_usize;
    while let Ok((caller, _)) = listener.accept().await {
        let behind = behind(&world, &namespace, &front);
        // Without endpoints it is closed: the nearest to a refusal that is left.
        if behind.is_empty() {
            continue;
        }
        turn = turn.wrapping_add(1);
        let (pod, port) = behind[turn % behind.len()].clone();
        // What is connected goes on when the Service leads elsewhere.
        let pass = pass(world.clone(), namespace.clone(), pod, port, caller);
        world.node.spawn(pass);
    }
}

/// The ready pods behind it, each with its port.
fn behind(world: &World, namespace: &str, front: &Front) -> Vec<(String, u16)> {
    let found = world.store.get(ENDPOINTS.plural, namespace, &front.service);
    let subsets = found.iter().flat_map(|found| found["subsets"].as_array());
    let mut all = Vec::new();
    for subset in subsets.flatten() {
        let mut ports = subset["ports"].as_array().into_iter().flatten();
        let port = ports.find(|port| text(&port["name"]) == front.port);
        let port = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
        let Some(port) = port else { continue };
        let addresses = subset["addresses"].as_array().into_iter().flatten();
        all.extend(addresses.map(|address| (text(&address["targetRef"]["name"]), port)));
    }
    all
}

/// Whether a fault keeps callers from all that is behind it.
fn is_closed(world: &World, namespace: &str, front: &Front) -> bool {
    let Some(closed) = world.faults.nodes().closed else {
        return false;
    };
    let behind = behind(world, namespace, front);
    !behind.is_empty() && behind.iter().all(|(_, port)| closed.contains(port))
}

async fn pass(world: Arc<World>, namespace: String, pod: String, port: u16, mut caller: TcpStream) {
    let Some(sandbox) = world.sandbox(&namespace, &pod) else {
        return;
    };
    if let Ok(mut end) = world.dial(&namespace, &pod, &sandbox, port).await {
        // Either end that breaks ends both.
        let _ = tokio::io::copy_bidirectional(&mut caller, &mut end).await;
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
