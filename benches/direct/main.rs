//! Ports and proxies into a pod: `kdev forward` and `kdev connect` against `kubectl port-forward`
//! to the same pod, in turns, and the floor of the harness itself.
//!
//! Needs the lab: `eval "$(cluster/lab/env)"; cargo bench --bench direct`. Prints a table for
//! `benches/README.md`. `KDEV_BENCH_ROUNDS` (3), `KDEV_BENCH_MIB` (1024) and `KDEV_LAB_DOORS`
//! shorten it. A figure is the median over the rounds.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs
)]

mod floor;
mod load;
mod process;
mod report;

use std::net::SocketAddr;
use std::time::Duration;

use load::{Via, bulk_down, bulk_up, closed_requests, first_bytes};
use process::{Running, pod};
use report::{Column, Figure};

/// New connections per round whose first byte is timed.
const FIRST_BYTES: usize = 200;
/// How long closed requests are made.
const CLOSED_TIME: Duration = Duration::from_secs(4);

#[tokio::main]
async fn main() {
    // `cargo test --benches` runs this too, with other arguments and perhaps no lab.
    if !std::env::args().any(|a| a == "--bench") || std::env::var_os("KDEV_LAB_STATE").is_none() {
        println!("needs the lab: eval \"$(cluster/lab/env)\"; cargo bench --bench direct");
        return;
    }
    let doors = std::env::var("KDEV_LAB_DOORS").unwrap_or_else(|_| "front api".to_owned());
    for door in doors.split_whitespace() {
        run(door).await;
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

async fn run(door: &str) {
    let (rounds, mib) = (
        number("KDEV_BENCH_ROUNDS", 3),
        number("KDEV_BENCH_MIB", 1024),
    );
    let kubeconfig = process::kubeconfig(door);
    let pod = pod(&kubeconfig, "web");
    let kubectl = Running::kubectl(&kubeconfig, &pod).await;
    let forward = Running::forward(&kubeconfig, &pod).await;
    let connect = Running::connect(&kubeconfig).await;
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
            column.add(Figure::MemoryIdle, running.resident_mib());
        }
    }
    for round in 0..rounds {
        eprintln!("{door}: round {} of {rounds}", round + 1);
        for (column, (_, via, running)) in columns.iter_mut().zip(&ways) {
            measure(column, via, *running, mib).await;
        }
    }
    println!(
        "\n### Through the door `{door}` ({})\n",
        process::kubectl_version()
    );
    println!("{}", report::table(&columns));
}

async fn measure(column: &mut Column, via: &Via, running: Option<&Running>, mib: u64) {
    let times = first_bytes(via, FIRST_BYTES).await;
    column.add(Figure::FirstByteP50, percentile(&times, 0.50));
    column.add(Figure::FirstByteP99, percentile(&times, 0.99));
    for (figure, at_once, to_end) in [
        (Figure::Closed1, 1, false),
        (Figure::Closed32, 32, false),
        (Figure::ToEnd32, 32, true),
    ] {
        column.add(
            figure,
            closed_requests(via, at_once, to_end, CLOSED_TIME).await,
        );
    }
    let cpu = |running: Option<&Running>| running.map(Running::cpu_seconds);
    for (figure, cost, streams) in [
        (Figure::Down1, Some(Figure::CpuDown), 1),
        (Figure::Down8, None, 8),
        (Figure::Down64, None, 64),
    ] {
        let before = cpu(running);
        let rate = bulk_down(via, streams, mib).await;
        column.add(figure, rate);
        if let (Some(cost), Some(before), Some(after)) = (cost, before, cpu(running)) {
            column.add(cost, (after - before) / (mib as f64 / 1024.0));
        }
    }
    if let Some(running) = running {
        column.add(Figure::MemoryLoad, running.resident_mib());
    }
    let before = cpu(running);
    column.add(Figure::Up1, bulk_up(via, mib).await);
    if let (Some(before), Some(after)) = (before, cpu(running)) {
        column.add(Figure::CpuUp, (after - before) / (mib as f64 / 1024.0));
    }
}

/// A percentile in milliseconds.
fn percentile(times: &[Duration], at: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = ((sorted.len() - 1) as f64 * at).round() as usize;
    sorted[index].as_secs_f64() * 1e3
}
