//! What it costs that a command's connections are caught: the same client without anything between,
//! through one plain relay of bytes, under `kdev run`, and under `proxychains4` with `kdev connect`
//! behind it. All of them reach a server of this machine, so that no cluster is measured.
//!
//! `cargo bench --bench capture`; it brings its simulated cluster. `KDEV_BENCH_ROUNDS` (3) and
//! `KDEV_BENCH_MIB` (1024) shorten it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs
)]

#[path = "../direct/floor.rs"]
#[allow(dead_code)] // Its proxy is not asked.
mod floor;
#[path = "../common/load.rs"]
#[allow(dead_code)] // Not all ways are gone here.
mod load;
#[path = "../common/measure.rs"]
#[allow(dead_code)]
mod measure;
#[path = "../common/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../common/report.rs"]
mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use kdev_sim::{Options, SimCluster, shop};
use load::Via;
use measure::{measure, number};
use process::Running;
use report::Column;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// Where the client of this process shall go.
const CLIENT: &str = "KDEV_BENCH_CLIENT";
/// Bytes that the plain relay moves at once: what kdev does.
const MOVED: usize = 64 << 10;
/// How often a start is timed.
const STARTS: usize = 20;

#[tokio::main]
async fn main() {
    let (rounds, mib) = (
        number("KDEV_BENCH_ROUNDS", 3),
        number("KDEV_BENCH_MIB", 1024),
    );
    if let Ok(to) = std::env::var(CLIENT) {
        let mut column = Column::new("client");
        measure(&mut column, &Via::Port(to.parse().unwrap()), None, mib).await;
        let figures: BTreeMap<_, _> = column.values.into_iter().collect();
        println!("{}", serde_json::to_string(&figures).unwrap());
        return;
    }
    // `cargo test --benches` runs this too, with other arguments.
    if !std::env::args().any(|a| a == "--bench") {
        println!("cargo bench --bench capture");
        return;
    }
    let cluster = SimCluster::start(Options::default()).await.unwrap();
    shop::furnish(&cluster);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    cluster
        .write_kubeconfig(&kubeconfig, "dev", "shop")
        .unwrap();
    let connect = Running::connect(&kubeconfig, &[]).await;
    let (floor, chains) = (floor::start().await, folder.path().join("chains"));
    let hop = hop(floor.origin).await;
    let text = format!("[ProxyList]\nsocks5 127.0.0.1 {}\n", connect.address.port());
    std::fs::write(&chains, text).unwrap();
    let chained = has("proxychains4");
    if !chained {
        eprintln!("proxychains4 is not on this machine; its column stays empty");
    }
    let mut columns = [
        "nothing between",
        "one plain relay",
        "kdev run",
        "proxychains4",
    ]
    .map(Column::new);
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (way, column) in columns.iter_mut().enumerate() {
            let own = std::env::current_exe().unwrap();
            let (mut command, to) = match way {
                0 => (Command::new(own), floor.origin),
                1 => (Command::new(own), hop),
                2 => {
                    let mut kdev = run(&kubeconfig, "on");
                    kdev.arg(own);
                    (kdev, floor.origin)
                }
                _ if chained => {
                    let mut chain = Command::new("proxychains4");
                    chain.args(["-q", "-f"]).arg(&chains).arg(own);
                    (chain, floor.origin)
                }
                _ => continue,
            };
            let output = command.env(CLIENT, to.to_string()).stderr(Stdio::inherit());
            let output = output.output().await.unwrap();
            let figures: BTreeMap<String, Vec<f64>> =
                serde_json::from_slice(&output.stdout).unwrap();
            for (figure, values) in figures {
                values.iter().for_each(|value| column.add(&figure, *value));
            }
        }
    }
    println!("\n{}", report::table(&columns));
    let mut starts =
        ["true", "kdev run --capture off -- true", "kdev run -- true"].map(Column::new);
    for _ in 0..STARTS {
        for (way, column) in starts.iter_mut().enumerate() {
            let mut command = match way {
                0 => Command::new("true"),
                1 => run(&kubeconfig, "off"),
                _ => run(&kubeconfig, "on"),
            };
            if way > 0 {
                command.args(["--own-session", "true"]);
            }
            let began = Instant::now();
            let ended = command.status().await.unwrap();
            column.add("from start to end, ms", began.elapsed().as_secs_f64() * 1e3);
            assert!(ended.success());
        }
    }
    println!("{}", report::table(&starts));
    cluster.shutdown().await;
}

/// `kdev run`, up to its command.
fn run(kubeconfig: &Path, capture: &str) -> Command {
    let mut command = Running::kdev(kubeconfig);
    command.args(["run", "-q", "--capture", capture]);
    command.env("KDEV_PROJECT", "off");
    command
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

/// A relay of bytes as anybody would write it.
async fn hop(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                near.set_nodelay(true)?;
                let mut far = TcpStream::connect(to).await?;
                far.set_nodelay(true)?;
                tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, MOVED, MOVED).await
            });
        }
    });
    address
}
