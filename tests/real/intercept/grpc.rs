//! gRPC by programs that nobody here wrote: grpcio from PyPI.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::app::App;
use super::beside::assert_even;
use super::pods::{PODS, deploy};
use super::session::{Intercept, LAG};
use crate::callers::on_the_node;
use crate::lab;
use crate::program::{finish, finish_within};
use crate::team::Team;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/intercept/grpc.py");

/// Calls of one client, 200 in a second for a minute.
const CALLS: &str = "12000";
/// How long they may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How far from its part a pod's may be.
const OFF: f64 = 0.05;

/// A folder with the library, for this machine's and the pods' Python, which are of one version, and the script.
fn library() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (path, run) = (folder.path(), |program: &mut Command| {
        let done = finish(program.arg("--quiet"), b"");
        assert_eq!(done.code, 0, "{done:?}");
    });
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(path.join("pip"))
        .status();
    assert!(made.unwrap().success());
    let mut pip = Command::new(path.join("pip/bin/pip"));
    run(pip
        .args(["install", "--only-binary", ":all:", "--target"])
        .arg(path)
        .arg("grpcio"));
    std::fs::copy(SCRIPT, path.join("kinds.py")).unwrap();
    folder
}

#[test]
#[ignore = "needs the lab"]
fn all_kinds_of_calls_go_by_their_metadata() {
    if lab::leaves_out_long() {
        return;
    }
    let library = library();
    let folder = library.path().to_str().unwrap();
    let team = Team::set_up("grpc", true);
    let command = "PYTHONPATH=/from exec python3 /from/kinds.py server $(hostname) 50051";
    deploy(&team, "calls", command, folder, &[("grpc", 50051, 50051)]);
    let address = format!("{}:50051", team.address("calls"));
    let script = format!("{folder}/kinds.py");
    let calls = |count: &str, metadata: &str| -> (Value, Vec<String>) {
        let mut client = on_the_node();
        client.args([
            "env",
            &format!("PYTHONPATH={folder}"),
            "python3",
            &script,
            "client",
            &address,
        ]);
        let said = finish_within(LIMIT, client.args([count, metadata]), b"").ok();
        serde_json::from_str(&said).unwrap()
    };
    let mut server = Command::new("python3");
    server
        .env("PYTHONPATH", folder)
        .args([&script, "server", "laptop-of-ann", "0"]);
    let ann = App::start("ann", server);
    let live = Intercept::live(&team, &ann, &["calls", "--header", "x-user: ann"]);
    std::thread::sleep(LAG);
    let of = |calls: &Value, who: &str| {
        let kinds = calls.as_object().unwrap();
        assert_eq!(kinds.len(), 6, "{calls}");
        let whose = |name: &Value| name.as_str().unwrap().starts_with(who);
        assert!(kinds.values().all(whose), "{calls}");
    };
    let (matched, many) = calls("50", "x-user: ann");
    of(&matched, &ann.name);
    assert!(many.iter().all(|name| *name == ann.name));
    let (unmatched, many) = calls(CALLS, "x-user: bob");
    of(&unmatched, "calls-");
    assert_even(many.iter().map(String::as_str).collect(), PODS, OFF);
    live.end();
    let (unmatched, _) = calls("50", "x-user: ann");
    of(&unmatched, "calls-");
}
