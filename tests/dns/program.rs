//! `kdev connect` as a whole.

use std::process::Stdio;
use std::time::Instant;

use hickory_proto::rr::RecordType::A;
use kdev_sim::{Options, SimCluster, shop};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::support::{PATIENCE, Tcp, ask, question, told};

#[tokio::test(flavor = "multi_thread")]
async fn connect_serves_dns_shows_it_and_ends_whoever_waits() {
    let cluster = SimCluster::start(Options::default()).await.unwrap();
    shop::furnish(&cluster);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    cluster.write_kubeconfig(&config, "dev", "shop").unwrap();
    let kdev = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kdev"));
        command.args(args).env("KUBECONFIG", &config);
        command.env("XDG_RUNTIME_DIR", folder.path());
        command.env("XDG_CACHE_HOME", folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.kill_on_drop(true);
        command
    };
    let mut connect = kdev(&["connect", "--json"]).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(connect.stdout.take().unwrap());
    out.read_line(&mut line).await.unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let dns = ready["dns"].as_str().unwrap();
    let web = cluster.object("services", "shop", "web").unwrap();
    let ip = web["spec"]["clusterIP"].as_str().unwrap();
    let address = dns.parse().unwrap();
    let begun = Instant::now();
    while told(&ask(address, "web.shop.svc.cluster.local", A).await)
        != format!("NOERROR aa: A {ip}")
    {
        assert!(begun.elapsed() < PATIENCE);
    }
    let status = kdev(&["status", "--json"]).output().await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let listening = status[0]["listening"].as_array().unwrap();
    let shown = listening.iter().find(|l| l["purpose"] == "dns").unwrap();
    assert_eq!(shown["address"], dns);
    // One that could wait for its next question, and it has had an answer.
    let mut tcp = Tcp::connect(address).await;
    tcp.ask(&question("web", A)).await;
    let pid = Pid::from_raw(connect.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(PATIENCE, connect.wait())
        .await
        .unwrap();
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[tokio::test]
async fn addresses_that_cannot_be_listened_on_are_explained() {
    let taken = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap();
    for (address, said) in [
        (taken.to_string(), "cannot listen on"),
        (
            "0.0.0.0:5353".to_owned(),
            "takes one address of this machine",
        ),
        ("nonsense".to_owned(), "neither a port nor an address"),
    ] {
        let connect = Command::new(env!("CARGO_BIN_EXE_kdev"))
            .args([
                "--kubeconfig",
                "/no/such/file",
                "connect",
                "--dns-listen",
                &address,
            ])
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(PATIENCE, connect)
            .await
            .unwrap()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && shown.contains(said),
            "{address}: {shown}"
        );
    }
}
