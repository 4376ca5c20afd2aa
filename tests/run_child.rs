//! kdev beside its child, as a shell and a terminal see it.
//!
//! Signals are for a whole process, so each case runs in one of its own: this test binary again,
//! as [`stand_in`] for kdev.

#![cfg(all(unix, feature = "client"))]
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kdev::run::child;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The words of the command for [`stand_in`], one a line.
const ARGV: &str = "KDEV_TEST_ARGV";

/// Not a test: what the others run in place of kdev. Does nothing by itself.
#[test]
fn stand_in() {
    let Ok(words) = std::env::var(ARGV) else {
        return;
    };
    let argv: Vec<OsString> = words.lines().map(OsString::from).collect();
    let env = vec![("FROM_KDEV".to_owned(), "yes".to_owned())];
    let command = child::Command::new(&argv, env).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let code = runtime.block_on(async {
        match child::Child::spawn(command) {
            Ok(mut child) => child.wait().await.unwrap(),
            Err(error) => {
                eprintln!("kdev: {error}");
                error.exit_code()
            }
        }
    });
    std::process::exit(code.into());
}

/// Set where [`counts_interrupts`] is to count.
const COUNTS: &str = "KDEV_TEST_COUNTS";

/// Not a test: a child that counts its interrupts. A shell is not up to it: what it does with a
/// signal that comes while it starts a command is a matter of microseconds.
#[tokio::test]
async fn counts_interrupts() {
    use tokio::signal::unix::{SignalKind, signal};
    if std::env::var_os(COUNTS).is_none() {
        return;
    }
    let mut interrupts = signal(SignalKind::interrupt()).unwrap();
    println!("ready");
    interrupts.recv().await;
    // Signals of one kind that are pending at once are one, so a second needs this time anyway.
    let more = tokio::time::timeout(Duration::from_secs(1), interrupts.recv()).await;
    println!("{}", if more.is_ok() { "twice" } else { "once" });
    std::process::exit(6);
}

/// The command line of the stand-in; what it runs is in [`ARGV`].
fn stand_in_line() -> Vec<String> {
    this_binary("stand_in")
}

/// The command line of one function of this file.
fn this_binary(function: &str) -> Vec<String> {
    let exe = std::env::current_exe().unwrap();
    let mut line = vec![exe.to_str().unwrap().to_owned()];
    line.extend([function, "--exact", "--nocapture", "--quiet"].map(str::to_owned));
    line
}

fn kdev(argv: &[&str]) -> Command {
    let line = stand_in_line();
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .env(ARGV, argv.join("\n"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Never the foreground of the terminal that these tests are started from.
        .process_group(0);
    command
}

fn sh(script: &str) -> Command {
    kdev(&["sh", "-c", script])
}

/// A script that says when its traps are set.
fn started(mut command: Command) -> (Child, impl Iterator<Item = String>) {
    let mut child = command.spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut lines = out.lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "ready"));
    (child, lines)
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

#[test]
fn the_exit_code_passes() {
    for code in [0, 1, 7, 255] {
        let out = sh(&format!("exit {code}")).output().unwrap();
        assert_eq!(out.status.code(), Some(code));
    }
}

#[test]
fn a_death_by_signal_is_128_and_its_number() {
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("SEGV", 139)] {
        let out = sh(&format!("kill -{signal} $$")).output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{signal}");
    }
}

#[test]
fn what_cannot_be_started_is_127_or_126_with_the_reason() {
    let dir = std::env::temp_dir().join(format!("kdev-test-child-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let orphan = file("orphan", "#!/no/such/interpreter\n", 0o755);
    let noise = file("noise", "\u{1}\u{2}\u{3}", 0o755);
    for (program, code, words) in [
        ("no-such-program-at-all", 127, "command not found"),
        ("/no/such/program", 127, "command not found"),
        (dir.to_str().unwrap(), 126, "directory"),
        (plain.as_str(), 126, "permission denied"),
        (orphan.as_str(), 126, "interpreter"),
        (noise.as_str(), 126, "no program of this machine"),
    ] {
        let out = kdev(&[program]).output().unwrap();
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(code), "{program}: {stderr}");
        assert!(stderr.contains(words), "{program}: {stderr}");
        assert!(stderr.contains(program), "{program}: {stderr}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn stdin_stdout_stderr_and_the_environment_pass() {
    let mut child = sh("cat; echo $FROM_KDEV; echo err >&2")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("hello\nyes\n"));
    assert!(String::from_utf8_lossy(&out.stderr).contains("err\n"));
}

#[test]
fn signals_to_kdev_alone_reach_the_child() {
    for signal in ["INT", "QUIT", "TERM", "HUP", "USR1", "USR2"] {
        let script = format!(
            "trap 'echo got {signal}; exit 9' {signal}; echo ready; while :; do sleep 0.05; done"
        );
        let (mut child, mut lines) = started(sh(&script));
        send(&child, format!("SIG{signal}").parse().unwrap());
        assert_eq!(lines.next().as_deref(), Some(&*format!("got {signal}")));
        assert_eq!(child.wait().unwrap().code(), Some(9), "{signal}");
    }
}

#[test]
fn kdev_outlives_a_child_that_takes_its_time() {
    let script =
        "trap 'sleep 0.3; echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut child, mut lines) = started(sh(script));
    send(&child, Signal::SIGTERM);
    assert_eq!(lines.next().as_deref(), Some("bye"));
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
#[cfg(target_os = "linux")]
fn what_the_caller_ignores_stays_ignored() {
    let mut line = stand_in_line();
    line.insert(0, "trap '' HUP; exec \"$0\" \"$@\"".to_owned());
    let mut command = Command::new("sh");
    command.arg("-c").args(&line);
    command.env(ARGV, "sh\n-c\necho ready; sleep 0.5; exit 5");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let (mut child, _lines) = started(command);
    send(&child, Signal::SIGHUP);
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

/// A terminal of its own, from util-linux: what is written to the result is typed.
fn on_a_terminal(argv: &[&str]) -> Option<Child> {
    // `exec`, or a shell would be interrupted beside it, and die first.
    let line = format!("exec {}", stand_in_line().join(" "));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env(ARGV, argv.join("\n"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    match command.spawn() {
        Ok(child) => Some(child),
        Err(_) => {
            eprintln!("SKIPPED: terminal: no `script` of util-linux here");
            None
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_at_the_terminal_reaches_the_child_once() {
    let line = this_binary("counts_interrupts");
    let mut argv = vec!["env", "KDEV_TEST_COUNTS=yes"];
    argv.extend(line.iter().map(String::as_str));
    let Some(mut child) = on_a_terminal(&argv) else {
        return;
    };
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0);
    }
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(b"\x03").unwrap();
    keys.flush().unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("once"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(6), "{rest}");
}

#[test]
#[cfg(target_os = "linux")]
fn the_child_has_the_terminal() {
    let script = "test -t 0 && test -t 1 && read line && echo \"read $line\"";
    let Some(mut child) = on_a_terminal(&["sh", "-c", script]) else {
        return;
    };
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(b"typed\n").unwrap();
    let mut out = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    assert!(out.contains("read typed"), "{out}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn what_is_told_to_end_is_waited_for_and_may_be_killed() {
    let spawn = |script: &str| {
        let argv = ["sh", "-c", script].map(OsString::from);
        child::Child::spawn(child::Command::new(&argv, Vec::new()).unwrap()).unwrap()
    };
    let started = Instant::now();
    let mut polite = spawn("trap 'exit 3' TERM; while :; do sleep 0.05; done");
    tokio::time::sleep(Duration::from_millis(200)).await;
    polite.end();
    let code = polite.wait_within(Duration::from_secs(10)).await;
    assert_eq!(code.unwrap(), Some(3));
    let mut stubborn = spawn("trap '' TERM; while :; do sleep 0.05; done");
    tokio::time::sleep(Duration::from_millis(200)).await;
    stubborn.end();
    let late = stubborn.wait_within(Duration::from_millis(300)).await;
    assert_eq!(late.unwrap(), None);
    stubborn.kill().unwrap();
    assert_eq!(stubborn.wait().await.unwrap(), 137);
    assert!(started.elapsed() < Duration::from_secs(5));
}
