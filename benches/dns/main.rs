//! Questions per second and how long one takes: the DNS server of `kdev connect` against dnsmasq
//! with the same records, in turns, asked by the same client.
//!
//! Needs dnsmasq (Debian: dnsmasq-base) and no cluster: `cargo bench --bench dns`. Prints a table
//! for `benches/README.md`. A figure is the median over `KDEV_BENCH_ROUNDS` (5).
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod client;
mod cluster;
mod server;

use std::time::{Duration, Instant};

use client::Client;
use server::Server;

/// How long questions are asked for each figure.
const TIME: Duration = Duration::from_secs(3);
/// Questions under way for the rate: enough that neither server ever waits.
const UNDER_WAY: usize = 32;

/// A kind of question, with the names that are asked in turn.
struct Kind {
    title: &'static str,
    questions: Vec<Vec<u8>>,
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` runs this too, with other arguments.
    if !std::env::args().any(|a| a == "--bench") {
        println!("measures with: cargo bench --bench dns");
        return;
    }
    let rounds = std::env::var("KDEV_BENCH_ROUNDS");
    let rounds = rounds.ok().and_then(|v| v.parse().ok()).unwrap_or(5_usize);
    let stage = cluster::furnish().await;
    let begun = Instant::now();
    let kdev = Server::kdev(&stage.kubeconfig);
    let dnsmasq = Server::dnsmasq(&stage.services);
    let kinds = kinds(&stage.services);
    // The catalog is there once the last Service has its address.
    let last = &kinds[0].questions[stage.services.len() - 1..];
    while Client::new(kdev.address).ask(last)[3] & 0x0f != 0 {}
    eprintln!("first answer {:?} after the start", begun.elapsed());
    println!(
        "| {} Services, {} pods | dnsmasq | kdev | ratio |\n|---|---:|---:|---:|",
        stage.services.len(),
        cluster::PODS
    );
    for kind in &kinds {
        let mut figures = [const { [const { Vec::new() }; 5] }; 2];
        for _ in 0..rounds {
            for (server, figures) in [&dnsmasq, &kdev].into_iter().zip(&mut figures) {
                measure(server, kind, figures);
            }
        }
        let titles = [
            format!("{}, per s", kind.title),
            "  one at a time, p50, µs".to_owned(),
            "  one at a time, p99, µs".to_owned(),
            format!("  {UNDER_WAY} under way, p50, µs"),
            format!("  {UNDER_WAY} under way, p99, µs"),
        ];
        let [dnsmasq, kdev] = figures;
        for ((title, theirs), ours) in titles.iter().zip(dnsmasq).zip(kdev) {
            let (theirs, ours) = (median(theirs), median(ours));
            println!(
                "| {title} | {theirs:.0} | {ours:.0} | {:.2} |",
                ours / theirs
            );
        }
    }
    println!(
        "\nresident memory: dnsmasq {:.1} MiB, kdev {:.1} MiB",
        dnsmasq.resident_mib(),
        kdev.resident_mib()
    );
    println!("{}", Server::dnsmasq_version());
}

fn kinds(services: &[(String, String)]) -> Vec<Kind> {
    let reverse = |ip: &str| {
        let parts: Vec<&str> = ip.split('.').rev().collect();
        format!("{}.in-addr.arpa", parts.join("."))
    };
    vec![
        Kind {
            title: "A of a Service",
            questions: services
                .iter()
                .map(|(n, _)| client::question(n, 1))
                .collect(),
        },
        Kind {
            title: "PTR of a Service",
            questions: services
                .iter()
                .map(|(_, ip)| client::question(&reverse(ip), 12))
                .collect(),
        },
        Kind {
            title: "no such name",
            questions: services
                .iter()
                .map(|(n, _)| client::question(&format!("x-{n}"), 1))
                .collect(),
        },
    ]
}

fn measure(server: &Server, kind: &Kind, figures: &mut [Vec<f64>; 5]) {
    let client = Client::new(server.address);
    client.run(&kind.questions, UNDER_WAY, TIME / 10);
    let loaded = client.run(&kind.questions, UNDER_WAY, TIME);
    let alone = client.run(&kind.questions, 1, TIME / 3);
    let rate = loaded.len() as f64 / TIME.as_secs_f64();
    let results = [
        rate,
        percentile(&alone, 0.50),
        percentile(&alone, 0.99),
        percentile(&loaded, 0.50),
        percentile(&loaded, 0.99),
    ];
    for (figure, result) in figures.iter_mut().zip(results) {
        figure.push(result);
    }
}

/// In microseconds.
fn percentile(times: &[Duration], at: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * at).round() as usize].as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
