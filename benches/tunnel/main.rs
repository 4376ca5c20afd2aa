//! The relay's tunnel over each of its carriers against `kubectl port-forward` to the same pod,
//! and against a client inside the cluster; then over a long line, and with idle streams.
//!
//! Needs the lab: `eval "$(cluster/lab/env)"; export KDEV_RELAY_BINARY=$(cluster/lab/relay);
//! cargo bench --bench tunnel`. Prints tables for `benches/README.md`. `KDEV_BENCH_ROUNDS` (3),
//! `KDEV_BENCH_MIB` (1024) and `KDEV_BENCH_PARTS` (`near far idle`) shorten it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs
)]

mod delay;
mod far;
mod idle;
#[path = "../common/load.rs"]
mod load;
#[path = "../common/measure.rs"]
mod measure;
#[path = "../common/process.rs"]
mod process;
mod relay;
#[path = "../common/report.rs"]
mod report;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use load::{Via, first_bytes};
use measure::{MEMORY_IDLE, measure, number};
use process::{Pod, Running, pod};
use relay::{NAMESPACE, Relay};
use report::{Column, table};

/// The carriers, and what the table calls them.
const CARRIERS: [(&str, &str); 3] = [
    ("spdy", "kdev, SPDY stream"),
    ("websocket", "kdev, v4 WebSocket"),
    ("pods-proxy", "kdev, pods/proxy"),
];
/// The argument that makes this program the client inside the cluster.
const STRAIGHT: &str = "--straight";

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let [_, flag, ip] = &words[..]
        && flag == idle::HOLD
    {
        return idle::hold(ip.parse().unwrap()).await;
    }
    if let [_, flag, target, mib] = &words[..]
        && flag == STRAIGHT
    {
        return straight(target.parse().unwrap(), mib.parse().unwrap()).await;
    }
    // `cargo test --benches` runs this too, with other arguments and perhaps no lab.
    if !words.iter().any(|a| a == "--bench") || std::env::var_os("KDEV_LAB_STATE").is_none() {
        println!("needs the lab: eval \"$(cluster/lab/env)\"; cargo bench --bench tunnel");
        return;
    }
    let parts = std::env::var("KDEV_BENCH_PARTS").unwrap_or_else(|_| "near far idle".to_owned());
    let relay = Relay::install(&process::kubeconfig("admin"));
    let kubeconfig = process::kubeconfig("admin");
    let pod = pod(&kubeconfig, "web");
    for part in parts.split_whitespace() {
        match part {
            "near" => near(&kubeconfig, &pod).await,
            "far" => far(&kubeconfig, &pod).await,
            "idle" => idle(&kubeconfig).await,
            other => panic!("no such part: {other}"),
        }
    }
    drop(relay);
}

/// All figures over loopback.
async fn near(kubeconfig: &Path, pod: &Pod) {
    let (rounds, mib) = (
        number("KDEV_BENCH_ROUNDS", 3),
        number("KDEV_BENCH_MIB", 1024),
    );
    let inside: SocketAddr = format!("{}:8080", pod.ip).parse().unwrap();
    let kubectl = Running::kubectl(kubeconfig, pod).await;
    let mut ways = vec![("kubectl port-forward", Via::Port(kubectl.address), kubectl)];
    for (carrier, title) in CARRIERS {
        let flags = ["-n", NAMESPACE, "--via", "relay", "--carrier", carrier];
        let connect = Running::connect(kubeconfig, &flags).await;
        ways.push((title, Via::Socks(connect.address, inside), connect));
    }
    let mut columns: Vec<Column> = ways.iter().map(|(name, ..)| Column::new(name)).collect();
    for (column, (_, via, running)) in columns.iter_mut().zip(&ways) {
        first_bytes(via, 5).await;
        column.add(MEMORY_IDLE, running.resident_mib());
    }
    let mut direct = Column::new("inside the cluster");
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (column, (_, via, running)) in columns.iter_mut().zip(&ways) {
            measure(column, via, Some(running), mib).await;
        }
        from_inside(&mut direct, inside, mib);
    }
    columns.push(direct);
    println!("\n### Near ({})\n", process::kubectl_version());
    println!("{}", table(&columns));
}

/// The client inside the cluster: this program again, on the cluster's side of the wall.
fn from_inside(column: &mut Column, target: SocketAddr, mib: u64) {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/lab/node");
    let output = Command::new(node)
        .arg(std::env::current_exe().unwrap())
        .args([STRAIGHT, &target.to_string(), &mib.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "the client inside failed");
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (figure, value) = line.split_once('\t').unwrap();
        column.add(figure, value.parse().unwrap());
    }
}

/// As that client: measures once and prints.
async fn straight(target: SocketAddr, mib: u64) {
    let mut column = Column::new("");
    measure(&mut column, &Via::Port(target), None, mib).await;
    for (figure, values) in &column.values {
        println!("{figure}\t{}", values[0]);
    }
}

/// Over a line of 20 and one of 80 ms.
async fn far(kubeconfig: &Path, pod: &Pod) {
    for round_trip in [20, 80].map(Duration::from_millis) {
        let columns = far::compare(kubeconfig, pod, node(), round_trip).await;
        println!("\n### {} ms away\n", round_trip.as_millis());
        println!("{}", table(&columns));
    }
}

/// What idle streams cost.
async fn idle(kubeconfig: &Path) {
    let rule = format!("{}/32", node());
    let flags = ["-n", NAMESPACE, "--via", "relay", "--also-proxy", &rule];
    let connect = Running::connect(kubeconfig, &flags).await;
    let cost = idle::cost(&connect, node()).await;
    println!(
        "\n### {} idle streams\n\nkdev {:.2} KiB each, the relays {:.2} KiB each",
        idle::STREAMS,
        cost.kdev,
        cost.relay
    );
}

/// An address of this machine that pods reach: that of their bridge.
fn node() -> IpAddr {
    let output = Command::new("ip")
        .args(["-4", "-o", "addr", "show", "lab0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let address = text.split_whitespace().nth(3).expect("the pods' bridge");
    address.split('/').next().unwrap().parse().unwrap()
}
