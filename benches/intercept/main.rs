//! What an intercept costs those who call the Service: a Service that is intercepted against
//! another one over the same pods, in turns.
//!
//! Needs the lab: `eval "$(cluster/lab/env)"; export KDEV_RELAY_BINARY=$(cluster/lab/relay);
//! cargo bench --bench intercept`. Prints tables for `benches/README.md`. `KDEV_BENCH_ROUNDS` (5),
//! `KDEV_BENCH_REQUESTS` (3000), `KDEV_BENCH_MIB` (512) and `KDEV_BENCH_PARTS` (`small bulk rules`)
//! shorten it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs
)]

mod app;
mod callers;
// What the benches share; each uses some of it.
#[allow(dead_code)]
#[path = "../common/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../common/measure.rs"]
mod measure;
#[allow(dead_code)]
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;
mod rules;
mod stage;

use std::net::SocketAddr;
use std::path::Path;

use callers::{CONDITION, Way};
use load::{Via, bulk_down, bulk_up};
use measure::number;
use process::{Running, pod};
use report::{Column, table};
use rules::Rules;
use stage::Stage;

const P50: &str = "latency, p50, µs";
const P99: &str = "latency, p99, µs";
const MORE_P50: &str = "more than without, p50, µs";
const MORE_P99: &str = "more than without, p99, µs";
const RATE: &str = "32 connections, requests per s";
const CPU: &str = "CPU of the relay per request, µs";
const DOWN: &str = "download, 1 stream, MB/s";
const UP: &str = "upload, 1 stream, MB/s";

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|flag| flag == callers::CALL) {
        return callers::answer(&words[2..]).await;
    }
    // `cargo test --benches` runs this too, with other arguments and perhaps no lab.
    if !words.iter().any(|a| a == "--bench") || std::env::var_os("KDEV_LAB_STATE").is_none() {
        println!("needs the lab: eval \"$(cluster/lab/env)\"; cargo bench --bench intercept");
        return;
    }
    let parts = std::env::var("KDEV_BENCH_PARTS").unwrap_or_else(|_| "small bulk rules".to_owned());
    let stage = Stage::set_up(&process::kubeconfig("admin"));
    let app = app::start().await;
    let kubeconfig = process::kubeconfig("admin");
    let intercept = stage.intercept(&kubeconfig, app, CONDITION).await;
    for part in parts.split_whitespace() {
        match part {
            "small" => small(&stage).await,
            "bulk" => bulk(&kubeconfig, &stage, app).await,
            "rules" => many(&kubeconfig, &stage, app).await,
            other => panic!("no such part: {other}"),
        }
    }
    intercept.interrupt().await;
}

fn rounds() -> u64 {
    number("KDEV_BENCH_ROUNDS", 5)
}

/// Latency, rate and the relay's work.
async fn small(stage: &Stage) {
    let mut columns = ["without", "unmatched", "matched"].map(Column::new);
    let to = [stage.without, stage.orders, stage.orders];
    let ways = Way::ALL.into_iter().zip(to).collect();
    for round in 0..rounds() {
        eprintln!("small, round {} of {}", round + 1, rounds());
        let times = callers::latency(&ways, number("KDEV_BENCH_REQUESTS", 3000)).await;
        let (p50, p99) = times[0];
        for (column, (own_p50, own_p99)) in columns.iter_mut().zip(&times) {
            column.add(P50, *own_p50);
            column.add(P99, *own_p99);
        }
        for (column, (own_p50, own_p99)) in columns.iter_mut().zip(&times).skip(1) {
            column.add(MORE_P50, own_p50 - p50);
            column.add(MORE_P99, own_p99 - p99);
        }
        for (column, (way, to)) in columns.iter_mut().zip(&ways) {
            rate(column, stage, *way, *to).await;
        }
    }
    println!("\n### Small requests\n\n{}", table(&columns));
}

async fn rate(column: &mut Column, stage: &Stage, way: Way, to: SocketAddr) {
    let before = stage.relay_cpu();
    let (requests, seconds) = callers::rate(way, to).await;
    column.add(RATE, requests / seconds);
    if way != Way::Without {
        column.add(CPU, (stage.relay_cpu() - before) * 1e6 / requests);
    }
}

/// Large bodies, both ways.
async fn bulk(kubeconfig: &Path, stage: &Stage, app: SocketAddr) {
    let mib = number("KDEV_BENCH_MIB", 512);
    let kubectl = Running::kubectl(kubeconfig, &pod(kubeconfig, "web")).await;
    let mut columns = [
        "kubectl port-forward",
        "matched",
        "app on loopback",
        "unmatched",
        "without",
    ]
    .map(Column::new);
    for round in 0..rounds() {
        eprintln!("bulk, round {} of {}", round + 1, rounds());
        for (column, via) in [(0, Via::Port(kubectl.address)), (2, Via::Port(app))] {
            columns[column].add(DOWN, bulk_down(&via, 1, mib).await);
            columns[column].add(UP, bulk_up(&via, mib).await);
        }
        for (column, way, to) in [
            (1, Way::Matched, stage.orders),
            (3, Way::Unmatched, stage.orders),
            (4, Way::Without, stage.without),
        ] {
            let (down, up) = callers::bulk(way, to, mib).await;
            columns[column].add(DOWN, down);
            columns[column].add(UP, up);
        }
    }
    println!("\n### Bulk\n\n{}", table(&columns));
}

/// With more and more rules.
async fn many(kubeconfig: &Path, stage: &Stage, app: SocketAddr) {
    let counts = [1, 100, 1000];
    let mut columns = ["1 rule", "100 rules", "1,000 rules"].map(Column::new);
    let ways = vec![(Way::Unmatched, stage.orders), (Way::Matched, stage.orders)];
    let port = stage.landing();
    for round in 0..rounds() {
        eprintln!("rules, round {} of {}", round + 1, rounds());
        for (column, count) in columns.iter_mut().zip(counts) {
            let rules = Rules::register(kubeconfig, port, app, count).await;
            let times = callers::latency(&ways, number("KDEV_BENCH_REQUESTS", 3000)).await;
            for ((p50, p99), name) in times.iter().zip(["unmatched", "matched"]) {
                column.add(&format!("{name}: {P50}"), *p50);
                column.add(&format!("{name}: {P99}"), *p99);
            }
            for ((way, to), name) in ways.iter().zip(["unmatched", "matched"]) {
                let mut one = Column::new("");
                rate(&mut one, stage, *way, *to).await;
                for (figure, values) in one.values {
                    column.add(&format!("{name}: {figure}"), values[0]);
                }
            }
            rules.close().await;
        }
    }
    println!("\n### Rules\n\n{}", table(&columns));
}
