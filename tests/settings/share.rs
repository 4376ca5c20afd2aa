use std::process::Stdio;
use std::time::Duration;

use kdev_sim::{Options, SimCluster, shop};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::{Home, text};

/// Longer than any of these commands takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A simulated cluster, and a home with kubeconfigs for it.
pub(crate) struct Stage {
    pub(crate) cluster: SimCluster,
    pub(crate) home: Home,
}

impl Stage {
    pub(crate) async fn set_up() -> Self {
        let cluster = SimCluster::start(Options::default()).await.unwrap();
        shop::furnish(&cluster);
        let home = Home::new();
        for user in ["dev", "viewer"] {
            let path = home.path(user);
            cluster.write_kubeconfig(&path, user, "shop").unwrap();
        }
        Self { cluster, home }
    }

    pub(crate) fn kdev(&self, args: &[&str]) -> Command {
        let mut command = Command::from(self.home.kdev(args));
        command.env("KUBECONFIG", self.home.path("dev"));
        piped(&mut command);
        command
    }

    /// kdev's exit code, and what it said on both outputs.
    pub(crate) async fn output(&self, args: &[&str]) -> (i32, String, String) {
        ended(&mut self.kdev(args)).await
    }

    /// A running `kdev connect`, and what it said when it was ready.
    pub(crate) async fn connect(&self, flags: &[&str]) -> (Child, Value) {
        let args = [&["connect", "--json"], flags].concat();
        let mut child = self.kdev(&args).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).await.unwrap();
        (child, serde_json::from_str(&line).unwrap())
    }
}

fn piped(command: &mut Command) {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
}

pub(crate) async fn ended(command: &mut Command) -> (i32, String, String) {
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("it hangs")
        .unwrap();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

async fn interrupt(child: &mut Child) {
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    ended.expect("it does not end").unwrap();
}

const SHOW_PROXY: [&str; 5] = ["run", "--", "sh", "-c", "echo $KDEV_HTTP"];

#[tokio::test(flavor = "multi_thread")]
async fn run_uses_a_running_connect_and_asks_the_cluster_for_nothing() {
    let stage = Stage::set_up().await;
    let (_connect, ready) = stage.connect(&[]).await;
    let proxy = ready["proxy"].as_str().unwrap().to_owned();
    let url = "http://web.shop/";
    let (code, page, said) = stage.output(&["run", "--", "curl", "-sS", url]).await;
    assert_eq!(code, 0, "{said}");
    assert!(page.contains("hello from web-"), "{page}{said}");
    // Nothing of it needs the API server.
    stage.cluster.stop_api().await;
    let (code, shown, said) = stage.output(&SHOW_PROXY).await;
    assert_eq!((code, shown.trim()), (0, proxy.as_str()), "{said}");
    let (code, _, _) = stage.output(&["run", "--own-session", "--", "true"]).await;
    assert_eq!(code, 125);
    // A kdev inside means the same.
    let inside = ["run", "--", env!("CARGO_BIN_EXE_kdev")];
    let (code, shown, said) = stage.output(&[&inside, &SHOW_PROXY[..]].concat()).await;
    assert_eq!((code, shown.trim()), (0, proxy.as_str()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_of_something_else_is_left_alone() {
    let stage = Stage::set_up().await;
    let (_connect, ready) = stage.connect(&[]).await;
    let proxy = ready["proxy"].as_str().unwrap();
    let viewer = stage.home.path("viewer");
    let viewer = viewer.to_str().unwrap();
    for flags in [
        &["-n", "default"][..],
        &["--kubeconfig", viewer],
        &["--via", "direct"],
        &["--proxy-listen", "0"],
        &["--own-session"],
    ] {
        let args = [&["run"], flags, &SHOW_PROXY[1..]].concat();
        let (code, shown, said) = stage.output(&args).await;
        assert_eq!(code, 0, "{flags:?}: {said}");
        assert_ne!(shown.trim(), proxy, "{flags:?}");
    }
    // It is asked as somebody else, which this user may not.
    let args = [&["run", "--as", "somebody"], &SHOW_PROXY[1..]].concat();
    let (code, _, said) = stage.output(&args).await;
    assert_eq!(code, 125);
    // In the words of 1.37, which name the right and not the person.
    assert!(said.contains("cannot impersonate"), "{said}");
    // The same by another way is the same.
    let dev = stage.home.path("dev");
    let same = ["run", "--kubeconfig", dev.to_str().unwrap(), "-n", "shop"];
    let args = [&same, &SHOW_PROXY[1..]].concat();
    assert_eq!(stage.output(&args).await.1.trim(), proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_who_uses_whom_and_the_end_is_said() {
    let stage = Stage::set_up().await;
    let (mut connect, ready) = stage.connect(&[]).await;
    let mut command = stage.kdev(&["run", "--", "sh", "-c", "echo started; read x; exit 7"]);
    let mut run = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(run.stdout.take().unwrap());
    out.read_line(&mut line).await.unwrap();
    assert_eq!(line, "started\n");
    let (_, shown, _) = stage.output(&["status", "--json"]).await;
    let sessions: Value = serde_json::from_str(&shown).unwrap();
    let of = |command: &str| {
        let all = sessions.as_array().unwrap();
        all.iter()
            .find(|s| s["command"] == command)
            .unwrap()
            .clone()
    };
    assert_eq!(of("run")["uses"], ready["pid"]);
    assert_eq!(of("connect")["uses"], Value::Null);
    let (_, shown, _) = stage.output(&["status"]).await;
    assert!(shown.contains("that of kdev connect (pid "), "{shown}");

    interrupt(&mut connect).await;
    let mut note = String::new();
    let mut errors = BufReader::new(run.stderr.take().unwrap());
    let said = tokio::time::timeout(PATIENCE, errors.read_line(&mut note)).await;
    said.expect("the end is not said").unwrap();
    assert!(
        note.contains("has ended") && note.contains("--proxy-listen"),
        "{note}"
    );
    // The command goes on, and its exit code is its own.
    drop(run.stdin.take());
    let status = tokio::time::timeout(PATIENCE, run.wait()).await;
    assert_eq!(status.expect("it hangs").unwrap().code(), Some(7));
    let mut rest = String::new();
    errors.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "");
    assert_eq!(stage.output(&["status", "--json"]).await.1.trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_a_file_is_that_of_connect_alone() {
    let stage = Stage::set_up().await;
    // A port that is taken: whoever wants it fails.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    stage
        .home
        .write("project/.kdev.toml", &format!("proxy-listen = {port}"));
    let (code, _, said) = stage.output(&["run", "--", "true"]).await;
    assert_eq!(code, 0, "{said}");
    let (code, _, said) = stage.output(&["connect"]).await;
    assert_eq!(code, 1);
    assert!(said.contains(&port.to_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_through_a_running_connect_are_told_by_whoever_uses_it() {
    let stage = Stage::set_up().await;
    let (_connect, _) = stage.connect(&[]).await;
    // One that the proxy keeps for later requests, and one that ends with the command.
    for flags in [&[][..], &["-p"]] {
        let curl = [
            "run",
            "-v",
            "--capture",
            "off",
            "--",
            "curl",
            "-sS",
            "-o/dev/null",
        ];
        let args = [&curl, flags, &["http://web.shop/"]].concat();
        let (code, _, said) = stage.output(&args).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("web.shop:80 → pod web-"), "{flags:?}: {said}");
        // That they are not this command's alone is said.
        assert!(said.contains("connections of other commands"), "{said}");
    }
    // A failure has its line in the terminal of each command, whoever had the same before.
    let failing = ["--", "curl", "-sS", "-o/dev/null", "http://web.shop:81/"];
    let lines = |said: &str| {
        said.lines()
            .filter(|line| line.contains("web.shop:81"))
            .count()
    };
    for _ in 0..3 {
        let run = ["run", "--capture", "off"];
        let (_, _, said) = stage.output(&[&run, &failing[..]].concat()).await;
        assert_eq!(lines(&said), 1, "{said}");
        assert!(!said.contains("→"), "{said}");
    }
    // Once each is enough.
    let twice = "for n in 1 2; do curl -sS -o/dev/null http://web.shop:81/; done";
    let (_, _, said) = stage
        .output(&["run", "--capture", "off", "--", "sh", "-c", twice])
        .await;
    assert_eq!(lines(&said), 1, "{said}");
    let (_, _, said) = stage
        .output(&[&["run", "--capture", "off", "--quiet"], &failing[..]].concat())
        .await;
    assert_eq!(lines(&said), 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_json_name_no_modules_unless_they_are_asked_for() {
    let stage = Stage::set_up().await;
    let curl = ["--", "curl", "-sS", "-o/dev/null", "http://web.shop:81/"];
    let json = ["run", "--log-format", "json", "--own-session"];
    for (flags, named) in [(&[][..], false), (&["-v"], false), (&["-vv"], true)] {
        let (_, _, said) = stage.output(&[&json, flags, &curl[..]].concat()).await;
        let lines = said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = lines.filter(|line| line["level"] == "WARN").collect();
        let failure = lines
            .iter()
            .find(|line| line.to_string().contains("web.shop:81"));
        let failure = failure.unwrap_or_else(|| panic!("{said}"));
        assert_eq!(failure.get("target").is_some(), named, "{failure}");
    }
}
