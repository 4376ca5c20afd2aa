//! Ports and proxies into a pod: `kdev forward` and `kdev connect` against `kubectl port-forward`
//! to the same pod, in turns, and the floor of the harness itself.
//!
//! Needs the lab: `eval "$(cluster/lab/env)"; cargo bench --bench direct`. Prints a table for
//! `benches/README.md`. `KDEV_BENCH_ROUNDS` (3) and `KDEV_BENCH_MIB` (1024) shorten it. A figure is the median over the rounds.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs
)]

mod floor;
#[path = "../common/load.rs"]
mod load;
#[path = "../common/measure.rs"]
mod measure;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;

use std::net::SocketAddr;

use load::{Via, first_bytes};
use measure::{MEMORY_IDLE, measure, number};
use process::{Running, pod};
use report::Column;

#[tokio::main]
async fn main() {
    // `cargo test --benches` runs this too, with other arguments and perhaps no lab.
    if !std::env::args().any(|a| a == "--bench") || std::env::var_os("KDEV_LAB_STATE").is_none() {
        println!("needs the lab: eval \"$(cluster/lab/env)\"; cargo bench --bench direct");
        return;
    }
    let (rounds, mib) = (
        number("KDEV_BENCH_ROUNDS", 3),
        number("KDEV_BENCH_MIB", 1024),
    );
    let kubeconfig = process::kubeconfig("dev");
    let pod = pod(&kubeconfig, "web");
    let kubectl = Running::kubectl(&kubeconfig, &pod).await;
    let mut forward = Running::kdev(&kubeconfig);
    forward.args(["forward", &format!("{}:8080=0", pod.ip)]);
    // "127.0.0.1:39001 -> 10.244.0.5:8080"
    let forward = Running::start(forward, |line| line.split(' ').next()?.parse().ok()).await;
    let connect = Running::connect(&kubeconfig, &[]).await;
    let floor = floor::start().await;
    let inside: SocketAddr = format!("{}:8080", pod.ip).parse().unwrap();
    let ways = [
        (
            "kubectl port-forward",
            Via::Port(kubectl.address),
            Some(&kubectl),
        ),
        ("kdev forward", Via::Port(forward.address), Some(&forward)),
        (
            "kdev SOCKS5",
            Via::Socks(connect.address, inside),
            Some(&connect),
        ),
        ("no cluster", Via::Socks(floor.proxy, floor.origin), None),
    ];
    let mut columns: Vec<Column> = ways.iter().map(|(name, ..)| Column::new(name)).collect();
    for (column, (_, via, running)) in columns.iter_mut().zip(&ways) {
        first_bytes(via, 5).await;
        if let Some(running) = running {
            column.add(MEMORY_IDLE, running.resident_mib());
        }
    }
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (column, (_, via, running)) in columns.iter_mut().zip(&ways) {
            measure(column, via, *running, mib).await;
        }
    }
    println!("\n### With {}\n", process::kubectl_version());
    println!("{}", report::table(&columns));
}
