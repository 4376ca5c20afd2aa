//! `kdev doctor` on a real cluster, with every kind of account, and with a real engine.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::installed::Relay;
use crate::lab;
use crate::program::{finish, finish_within, kdev};

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

/// The answer for a command: whether it works, the reason, and what mends it.
fn answer(document: &Value, command: &str) -> (Option<bool>, String, String) {
    let mut answers = document["answers"].as_array().unwrap().iter();
    let found = answers.find(|a| a["command"] == command).unwrap();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (found["can"].as_bool(), text("reason"), text("fix"))
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
    lab::await_no_container(&["name=kdev-probe-"]);
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

#[test]
#[ignore = "needs the lab"]
fn the_doctor_says_what_an_account_can_do() {
    for (account, uses, installs) in [
        ("admin", true, true),
        ("edit", true, true),
        ("dev", true, false),
        ("nobody", false, false),
    ] {
        let found = doctor(account);
        for command in ["run", "forward", "connect"] {
            let (can, reason, fix) = answer(&found, command);
            assert_eq!(can, Some(uses), "{account}: {found:#}");
            assert!(
                uses || reason.starts_with("you may not ") && fix.contains("`kdev-use`"),
                "{account}: {reason}; {fix}"
            );
        }
        let (can, reason, fix) = answer(&found, "install");
        assert_eq!(can, Some(installs), "{account}: {found:#}");
        assert!(
            installs
                || reason.contains("create and patch deployments.apps") && fix.contains("`edit`"),
            "{account}: {reason}; {fix}"
        );
        let rights = with(&found, "ok").contains(&"permission.intercept");
        assert_eq!(rights, installs, "{account}: {found:#}");
        println!("{account}: {}", detail(&found, "install"));
    }
    let said = finish(kdev("nobody").arg("doctor"), b"");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.starts_with("you cannot: run, "), "{said:?}");
    for line in said.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// A Service with a pod that answers.
const APP: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: app, labels: {app: app}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 33, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: app
      image: kdev-lab/server:1
      imagePullPolicy: Never
      command: [nginx, -c, /etc/nginx-lab.conf]
      readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}
"#;
/// How long a doctor may take.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs the lab"]
fn the_doctor_says_what_the_relay_reaches() {
    let relay = Relay::install("reaches");
    relay.site.apply(APP);
    let ready = ["wait", "--for=condition=Ready", "pod/app", "--timeout=60s"];
    relay.site.kubectl(&ready).unwrap();
    let look = || -> Value {
        let done = finish_within(LIMIT, relay.kdev().args(["doctor", "--json"]), b"");
        serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {done:?}"))
    };
    // The node needs a moment to learn of a pod that is ready. The API server has no Service in the lab.
    let end = Instant::now() + LIMIT;
    let found = loop {
        let found = look();
        let reach = detail(&found, "relay.reach");
        println!("{reach}");
        if reach.contains(" reaches app:80 in ") {
            break found;
        }
        assert!(Instant::now() < end, "{reach}");
        std::thread::sleep(Duration::from_secs(1));
    };
    for command in ["run", "forward", "connect", "intercept", "install"] {
        assert_eq!(answer(&found, command).0, Some(true), "{found:#}");
    }
    // As an enforcer of policies that drops.
    let blocked = lab::Blocked::from(&relay.site.relay_addresses(), "--dport 8080");
    let found = look();
    drop(blocked);
    assert!(with(&found, "warn").contains(&"relay.reach"), "{found:#}");
    let (can, reason, fix) = answer(&found, "intercept");
    println!("{reason}; {fix}");
    assert_eq!(can, Some(false), "{found:#}");
    assert!(reason.contains("app:80 did not answer within"), "{reason}");
    assert!(fix.contains("NetworkPolicy"), "{fix}");
    assert_eq!(found["ok"], true, "{found:#}");
}
