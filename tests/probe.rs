//! `kdev run` with a container whose way to kdev is shut, tried before the container is started. A
//! stand-in plays the engine; a real one is in `tests/real`.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use kdev_sim::{Options, SimCluster, shop};
use serde_json::json;
use tokio::process::Command;

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a refusal may take on a busy machine; half of it on one that is not.
const REFUSAL: Duration = Duration::from_secs(6);

struct Ran {
    code: Option<i32>,
    said: String,
    /// What the engine was asked for.
    log: String,
    took: Duration,
}

impl Ran {
    /// Where in the log the user's own container is started.
    fn started(&self) -> Option<usize> {
        self.log.find(" --env-file ")
    }
}

/// `kdev run -- docker run --network dev IMG`, where the container that tries the way ends as
/// `probe` says.
async fn run(probe: &str, flags: &[&str]) -> Ran {
    let cluster = SimCluster::start(Options::default()).await.unwrap();
    shop::furnish(&cluster);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    cluster
        .write_kubeconfig(&file("kubeconfig"), "dev", "shop")
        .unwrap();
    let engine = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake/engine");
    std::os::unix::fs::symlink(engine, file("docker")).unwrap();
    let info = json!({"OperatingSystem": "Debian", "Name": "box", "SecurityOptions": []});
    let network = json!([{"Name": "dev", "Driver": "bridge", "Id": "0123456789abcdef",
        "IPAM": {"Config": [{"Subnet": "127.0.0.0/8", "Gateway": "127.0.0.1"}]}}]);
    for (name, text) in [
        ("version", "Docker version 28.2.2"),
        ("endpoint", "unix:///var/run/docker.sock"),
        ("info", &info.to_string()),
        ("network", &network.to_string()),
        ("image", "null"),
        ("probe", probe),
    ] {
        std::fs::write(file(name), text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_kdev"));
    command
        .arg("run")
        .args(flags)
        .arg("--")
        .arg(file("docker"))
        .args(["run", "--network", "dev", "IMG"])
        // Containers with a companion need no way to a listener, and no probe.
        .env("KDEV_CAPTURE", "off")
        .env("KUBECONFIG", file("kubeconfig"))
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("XDG_CACHE_HOME", folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let began = Instant::now();
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.expect("kdev hangs").unwrap();
    Ran {
        code: output.status.code(),
        said: String::from_utf8(output.stderr).unwrap(),
        log: std::fs::read_to_string(file("log")).unwrap(),
        took: began.elapsed(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_reach_kdev_is_refused_before_it_starts() {
    for probe in ["refused", "dropped"] {
        let ran = run(probe, &[]).await;
        assert_eq!(ran.code, Some(125), "{probe}: {}", ran.said);
        assert_eq!(ran.started(), None, "{probe}: {}", ran.log);
        assert!(ran.took < REFUSAL, "{probe}: {:?}", ran.took);
        let network = "on the network \"dev\" (br-0123456789ab, 127.0.0.0/8) does not reach kdev at \
                       127.0.0.1:";
        assert!(ran.said.contains(network), "{probe}: {}", ran.said);
        let lines = [
            "sudo ufw allow in on br-0123456789ab from 127.0.0.0/8 to 127.0.0.1",
            "sudo firewall-cmd --zone=trusted --add-source=127.0.0.0/8",
        ];
        assert!(
            lines.iter().any(|line| ran.said.contains(line)),
            "{}",
            ran.said
        );
        assert!(
            ran.said.contains("docker run --network host"),
            "{}",
            ran.said
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reaches_kdev_is_started_and_nothing_is_said() {
    let ran = run("as it is", &["-v"]).await;
    assert_eq!(ran.code, Some(42), "{}", ran.said);
    let probed = ran.log.find(" --entrypoint sh IMG ").expect("it was tried");
    assert!(ran.started().is_some_and(|at| at > probed), "{}", ran.log);
    assert!(!ran.said.contains("reaches kdev"), "{}", ran.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_tried_is_started() {
    for (probe, why) in [
        ("shell-less", "no such thing"),
        ("broken", "no such thing"),
        ("silent", "somebody connected"),
        ("stuck", "a container of IMG takes too long"),
    ] {
        let ran = run(probe, &["-v"]).await;
        assert_eq!(ran.code, Some(42), "{probe}: {}", ran.said);
        assert!(ran.started().is_some(), "{probe}: {}", ran.log);
        let told = ran
            .said
            .lines()
            .find(|line| line.contains("not known whether"));
        assert!(
            told.is_some_and(|line| line.contains(why)),
            "{probe}: {}",
            ran.said
        );
    }
}
