//! A large cluster in the catalog: 5,000 Services and 20,000 pods of about 4 KiB each, in the
//! simulated cluster. What `kdev connect` takes of memory, time and API requests, beside what a
//! user would use instead.
//!
//! `cargo bench --bench catalog`; no lab is needed, but a kubectl. `KDEV_BENCH_SERVICES` (5000; four
//! times as many pods), `KDEV_BENCH_IDLE` (60 s), `KDEV_BENCH_CHANGES` (50000) and
//! `KDEV_BENCH_ROUNDS` (5) shorten it. Prints a table for `benches/README.md`.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs
)]

mod process;

use std::path::Path;
use std::time::{Duration, Instant};

use kdev_sim::crowd::Crowd;
use kdev_sim::{Options, SimCluster, shop};
use process::{Running, Used};

/// Changes a second: what a cluster of this size has in its busiest minutes, and few enough that
/// the simulation's log, 8,192 changes, is never overtaken.
const RATE: usize = 2_000;
/// How long after the last list or change memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// The most that all this may take, MiB.
const LIMIT_MIB: f64 = 60.0;

fn number(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` runs this too, with other arguments.
    if !std::env::args().any(|a| a == "--bench") {
        println!("cargo bench --bench catalog");
        return;
    }
    let crowd = Crowd {
        services: number("KDEV_BENCH_SERVICES", 5_000),
    };
    let begun = Instant::now();
    let cluster = SimCluster::start(Options::default()).await.unwrap();
    shop::furnish(&cluster);
    crowd.join(&cluster);
    eprintln!("the cluster took {:?}", begun.elapsed());
    let home = tempfile::tempdir().unwrap();
    let kubeconfig = home.path().join("config");
    cluster
        .write_kubeconfig(&kubeconfig, "admin", shop::NAMESPACE)
        .unwrap();

    println!("### {} Services, {} pods\n", crowd.services, crowd.pods());
    println!("| | kdev | {} | |", process::kubectl_version());
    println!("|---|---:|---:|---|");
    first_answers(&kubeconfig).await;
    memory_and_requests(&cluster, &crowd, &kubeconfig).await;
    for words in [
        &["get", "pods", "-A"][..],
        &["get", "pods", "-A", "-o", "json"],
    ] {
        let Used { peak_mib, seconds } = process::kubectl(&kubeconfig, words).await;
        let what = words.join(" ");
        println!("| one look: time, s | | {seconds:.2} | `kubectl {what}` |");
        println!("| one look: memory at its peak, MiB | | {peak_mib:.1} | `kubectl {what}` |");
    }
    cluster.shutdown().await;
}

/// From the start of the program to the first byte of a Service's answer, in turns.
async fn first_answers(kubeconfig: &Path) {
    let rounds = number("KDEV_BENCH_ROUNDS", 5);
    let (mut ready, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        let kdev = Running::connect(kubeconfig).await;
        ready.push(begun.elapsed());
        process::first_byte_by_socks(kdev.address, "web.shop", 80).await;
        ours.push(begun.elapsed());
        kdev.stop().await;
        let begun = Instant::now();
        let kubectl = Running::port_forward(kubeconfig).await;
        process::first_byte(kubectl.address).await;
        theirs.push(begun.elapsed());
        kubectl.stop().await;
    }
    let (ready, ours, theirs) = (median(ready), median(ours), median(theirs));
    println!("| start to the port listening, ms | {ready:.0} | | |");
    println!(
        "| start to the first byte of an answer, ms | {ours:.0} | {theirs:.0} | by SOCKS5; \
         `port-forward svc/web` |"
    );
}

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

async fn memory_and_requests(cluster: &SimCluster, crowd: &Crowd, kubeconfig: &Path) {
    let start = cluster.counts();
    let since =
        |verb: &str, resource: &str| cluster.counts().of(verb, resource) - start.of(verb, resource);
    let begun = Instant::now();
    let kdev = Running::connect(kubeconfig).await;
    while since("watch", "pods") == 0 || since("watch", "services") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "| start to all of it listed, s | {:.2} | | |",
        begun.elapsed().as_secs_f64()
    );
    tokio::time::sleep(SETTLE).await;
    println!(
        "| memory when listed, MiB | {:.1} | | resident |",
        kdev.resident_mib()
    );

    let listed = cluster.counts();
    let idle = number("KDEV_BENCH_IDLE", 60);
    tokio::time::sleep(Duration::from_secs(idle as u64)).await;
    let after = cluster.counts();
    println!(
        "| API requests: all, lists of pods, of Services, watches | {}, {}, {}, {} | | |",
        after.total() - start.total(),
        since("list", "pods"),
        since("list", "services"),
        since("watch", "pods") + since("watch", "services"),
    );
    assert_eq!(
        after.requests, listed.requests,
        "an idle session asks nothing"
    );
    println!("| further API requests in {idle} s without work | 0 | | |");
    println!(
        "| memory after that, MiB | {:.1} | | |",
        kdev.resident_mib()
    );

    let changes = number("KDEV_BENCH_CHANGES", 50_000);
    let mut largest: f64 = 0.0;
    let mut steady = 0.0;
    let begun = Instant::now();
    for first in (0..changes).step_by(RATE / 10) {
        crowd.churn(cluster, first, RATE / 10);
        let due = Duration::from_secs_f64((first + RATE / 10) as f64 / RATE as f64);
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        largest = largest.max(kdev.resident_mib());
        if first < changes / 5 {
            steady = largest;
        }
    }
    tokio::time::sleep(SETTLE).await;
    let churned = kdev.resident_mib();
    println!(
        "| memory after {} changes of pods, at its peak, after a fifth of them, MiB | {churned:.1}, \
         {largest:.1}, {steady:.1} | | |",
        changes
    );
    assert_eq!(
        since("list", "pods"),
        after.of("list", "pods") - start.of("list", "pods"),
        "watches were followed to the end"
    );
    assert!(
        largest.max(churned) <= LIMIT_MIB,
        "{largest:.1} MiB are more than {LIMIT_MIB}"
    );
    process::first_byte_by_socks(kdev.address, "web.shop", 80).await;
    kdev.stop().await;
}
