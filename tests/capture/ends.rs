//! How it ends: codes, signals, what is left.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::stage::{CASE, PATIENCE, Stage, text};

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
async fn where_nothing_is_allowed_variables_do_and_it_is_said() {
    let stage = Stage::without_namespaces().await;
    for (capture, code) in [("auto", 0), ("on", 125)] {
        let args = [
            "run",
            "--capture",
            capture,
            "--",
            "sh",
            "-c",
            "echo $HTTP_PROXY",
        ];
        let output = within_another(&stage, &args).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.contains("no user namespace") && said.contains("kdev doctor"),
            "{said}"
        );
        let proxy = text(&output.stdout);
        assert_eq!(proxy.starts_with("http://127.0.0.1:"), code == 0, "{proxy}");
    }
    let doctor = within_another(&stage, &["doctor", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = checks
        .iter()
        .find(|check| check["id"] == "local.capture")
        .unwrap();
    assert_eq!(check["status"], "warn", "{check}");
    let detail = check["detail"].as_str().unwrap();
    assert!(detail.contains("connects cannot wait"), "{detail}");
    let fix = check["fix"].as_str().unwrap();
    assert!(fix.contains("sysctl user.max_user_namespaces="), "{fix}");
}

/// kdev as the command of a kdev: the connects of a program wait for one alone.
async fn within_another(stage: &Stage, args: &[&str]) -> std::process::Output {
    let outer = ["run", "-q", "--", env!("CARGO_BIN_EXE_kdev")];
    let mut kdev = stage.kdev(&[&outer, args].concat());
    kdev.output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolv_conf_that_is_replaced_does_not_take_the_clusters_names_away() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    // In a namespace with an /etc of its own: a VPN does the same to everybody's.
    let script = "set -e; mkdir $HOME/etc; \
                  cp /etc/resolv.conf /etc/hosts /etc/nsswitch.conf /etc/passwd $HOME/etc; \
                  mount --bind $HOME/etc /etc; mkfifo $HOME/out; \"$@\" >$HOME/out & \
                  while read line; do case $line in *'listening 0'*) \
                  cp /etc/hosts /etc/new; mv /etc/new /etc/resolv.conf ;; esac; \
                  echo \"$line\"; done <$HOME/out; wait $!";
    let before = ["unshare", "-Urm", "sh", "-c", script, "sh"];
    let own = std::env::current_exe().unwrap();
    let args = [
        "run",
        "--",
        own.to_str().unwrap(),
        "inside::case",
        "--exact",
        "--nocapture",
    ];
    let mut kdev = stage.kdev_behind(&before, &args);
    let output = tokio::time::timeout(PATIENCE, kdev.env(CASE, "kept").output()).await;
    let output = output.expect("it hangs").unwrap();
    let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(
        shown.contains("listening 0") && shown.contains("1 passed"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_is_inside_and_says_so() {
    use tokio::io::AsyncWriteExt as _;
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let typed = "echo $KDEV_PROMPT; getent hosts web >/dev/null && echo is inside; exit 3\n";
    // From a script `shell` does; in a terminal `run` alone is the same.
    let kdev = env!("CARGO_BIN_EXE_kdev");
    let in_terminal = format!("'{kdev}' run");
    let terminal = ["script", "-qec", &in_terminal, "/dev/null"];
    for (command, prompts) in [(&[kdev, "shell"][..], 1), (&terminal, 2)] {
        let mut shell = stage.command(command);
        shell
            .env("SHELL", "/bin/sh")
            .stdin(std::process::Stdio::piped());
        let mut child = shell.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(typed.as_bytes())
            .await
            .unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.expect("it hangs").unwrap();
        let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(3), "{shown}");
        assert!(
            shown.contains("\nis inside") && shown.contains("in namespace shop"),
            "{shown}"
        );
        assert!(shown.matches("(kdev shop)").count() >= prompts, "{shown}");
    }
    let nothing = stage.kdev(&["run"]).output().await.unwrap();
    assert_eq!(
        nothing.status.code(),
        Some(125),
        "a script forgot its command"
    );
}
