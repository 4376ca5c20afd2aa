//! `kdev doctor` on a real cluster, with every kind of account, and with a real engine.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab;

/// How long containers of a look may be there.
const REMOVED: Duration = Duration::from_secs(10);

/// The document for `account`; its `ok` is what the exit code says.
fn doctor(account: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_kdev"))
        .args(["doctor", "--json", "--kubeconfig"])
        .arg(lab::kubeconfig(account))
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["ok"] == true, output.status.success());
    document
}

fn with<'a>(document: &'a Value, status: &str) -> Vec<&'a str> {
    let checks = document["checks"].as_array().unwrap().iter();
    checks
        .filter(|c| c["status"] == status)
        .map(|c| c["id"].as_str().unwrap())
        .collect()
}

fn detail<'a>(document: &'a Value, id: &str) -> &'a str {
    let mut checks = document["checks"].as_array().unwrap().iter();
    let check = checks.find(|c| c["id"] == id).unwrap();
    check["detail"].as_str().unwrap()
}

#[test]
#[ignore = "needs the lab"]
fn the_doctor_finds_nothing_wrong() {
    for account in ["admin", "edit", "dev"] {
        let found = doctor(account);
        assert_eq!(with(&found, "fail"), [""; 0], "{account}: {found:#}");
        let forward = detail(&found, "port-forward");
        let form = if lab::tunnels_spdy() {
            "SPDY/3.1 in a WebSocket: "
        } else {
            "SPDY/3.1: "
        };
        assert!(forward.starts_with(form), "{account}: {forward}");
        assert!(forward.contains("round trip"), "{account}: {forward}");
        let speed = detail(&found, "speed");
        assert!(speed.contains("MB/s"), "{account}: {speed}");
        println!("{account}: {forward}; {speed}");
    }
}

#[test]
#[ignore = "needs the lab"]
fn the_doctor_sees_a_container_reach_the_listener() {
    let found = doctor("dev");
    let engine = detail(&found, "container.engine");
    let reach = detail(&found, "container.reach");
    println!("{engine}; {reach}");
    assert!(with(&found, "ok").contains(&"container.reach"), "{found:#}");
    // Those of other scenarios go as well.
    let all = ["ps", "--all", "--quiet", "--filter", "name=kdev-probe-"];
    let begun = Instant::now();
    while lab::docker(&all).unwrap() != "" {
        assert!(begun.elapsed() < REMOVED, "it is not removed");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "needs the lab"]
fn the_doctor_names_the_missing_right() {
    for (account, id) in [
        ("dev-no-list-pods", "permission.list.pods"),
        (
            "dev-no-create-portforward",
            "permission.create.pods/portforward",
        ),
    ] {
        let found = doctor(account);
        let failed = with(&found, "fail");
        // Before 1.35 nothing asks for `create` where `get` does.
        let expected: &[&str] = match account {
            "dev-no-list-pods" => &[id],
            _ if lab::asks_for_create() => &[id, "port-forward"],
            _ => &[],
        };
        assert_eq!(failed, expected, "{account}: {found:#}");
        println!("{account}: {}", detail(&found, "port-forward"));
    }
    // What others make up for, and what would help.
    for (account, id) in [
        ("dev-no-get-pods", "permission.get.pods"),
        ("dev-no-get-services", "permission.get.services"),
        ("dev-no-list-services", "permission.list.services"),
        ("dev-no-get-portforward", "permission.get.pods/portforward"),
        ("dev-no-watch-pods", "permission.watch.pods"),
        ("dev-no-watch-services", "permission.watch.services"),
    ] {
        let found = doctor(account);
        assert_eq!(with(&found, "fail"), [""; 0], "{account}: {found:#}");
        assert!(with(&found, "warn").contains(&id), "{account}");
    }
    let found = doctor("nobody");
    assert_eq!(with(&found, "fail").len(), 6, "{found:#}");
    assert!(with(&found, "skipped").contains(&"port-forward"));
}
