//! How it ends: codes, signals, what is left.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::stage::{PATIENCE, Stage, text};

#[tokio::test(flavor = "multi_thread")]
async fn codes_and_signals_are_the_commands_own() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let no_program = stage.folder.path().join("text");
    std::fs::write(&no_program, "text").unwrap();
    let no_program = no_program.to_str().unwrap();
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["no-such-program"], 127),
        (&[no_program], 126),
    ] {
        let mut args = vec!["run", "--"];
        args.extend(command);
        let output = stage.kdev(&args).output().await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
        if code == 127 {
            let said = text(&output.stderr);
            assert!(
                said.contains("no-such-program: command not found"),
                "{said}"
            );
        }
    }
}

/// The processes whose network namespace is `network`.
fn inside(network: &PathBuf) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    all.filter(|pid| network_of(*pid).as_ref() == Some(network))
        .collect()
}

fn network_of(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_kdev_leaves_no_process() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let mut child = stage.inside("leave", &[]).env("STAY", "1").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let left = loop {
        let line = lines.next_line().await.unwrap().expect("it ended");
        if let Some((_, pid)) = line.split_once("left ") {
            break pid.parse().unwrap();
        }
    };
    let network = network_of(left).unwrap();
    // The command, what it started, and the helper, which is not to be seen by everybody.
    assert!(inside(&network).len() >= 2);
    let kdev = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(kdev), Signal::SIGKILL).unwrap();
    let until = Instant::now() + PATIENCE;
    while !inside(&network).is_empty() {
        assert!(Instant::now() < until, "{:?}", inside(&network));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_running_is_left_alone() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let mut child = stage.inside("leave", &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let left: i32 = loop {
        let line = lines.next_line().await.unwrap().expect("it ended");
        if let Some((_, pid)) = line.split_once("left ") {
            break pid.parse().unwrap();
        }
    };
    let status = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert!(status.expect("kdev hangs").unwrap().success());
    // It has no network, but its work is its own.
    kill(Pid::from_raw(left), Signal::SIGTERM).expect("it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_namespaces_are_forbidden_variables_do_and_it_is_said() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    // Namespaces below this one are forbidden, and its own root has no rights.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
    for (capture, code) in [("auto", 0), ("on", 125)] {
        let mut kdev = tokio::process::Command::new("unshare");
        kdev.args(["-Ur", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_kdev")])
            .args([
                "run",
                "--capture",
                capture,
                "--",
                "sh",
                "-c",
                "echo $HTTP_PROXY",
            ])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", stage.folder.path())
            .env("KUBECONFIG", stage.folder.path().join("kubeconfig"))
            .env("XDG_RUNTIME_DIR", stage.folder.path())
            .env("KDEV_PROJECT", "off");
        let output = kdev.output().await.unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.contains("no user namespace") && said.contains("kdev doctor"),
            "{said}"
        );
        let proxy = text(&output.stdout);
        assert_eq!(proxy.starts_with("http://127.0.0.1:"), code == 0, "{proxy}");
    }
}
