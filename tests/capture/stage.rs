//! A simulated shop, and kdev beside it.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use kdev_sim::{Options, SimCluster, shop};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Says to [`crate::inside`] what it shall do.
pub(crate) const CASE: &str = "KDEV_TEST_CASE";

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command came to.
pub(crate) struct Ran(Output);

impl Ran {
    pub(crate) fn ok(&self) {
        let shown = format!("{}{}", text(&self.0.stdout), text(&self.0.stderr));
        assert!(self.0.status.success(), "{shown}");
        assert!(shown.contains("1 passed"), "{shown}");
    }
}

/// What makes the rest of a command line run where there are no namespaces to be had, and nothing by
/// which root may do without that.
const NO_NAMESPACES: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "echo 0 >/proc/sys/user/max_user_namespaces && \
     exec setpriv --bounding-set=-all --inh-caps=-all -- \"$0\" \"$@\"",
];

pub(crate) struct Stage {
    /// Ends with the stage.
    _cluster: SimCluster,
    pub(crate) folder: tempfile::TempDir,
    /// What stands before kdev in each command line.
    before: &'static [&'static str],
}

impl Stage {
    /// `None`, and a word about it, where this machine allows no such network.
    pub(crate) async fn set_up() -> Option<Self> {
        let stage = Self::new(&[]).await;
        let output = stage.kdev(&["run", "--", "true"]).output().await.unwrap();
        let said = text(&output.stderr);
        if said.contains("user namespace") || said.contains("network of one's own") {
            println!("SKIPPED: capture: {said}");
            return None;
        }
        assert!(output.status.success(), "{said}");
        Some(stage)
    }

    /// One where kdev can make no network, so that connects wait for it.
    pub(crate) async fn without_namespaces() -> Self {
        let stage = Self::new(&NO_NAMESPACES).await;
        let output = stage.kdev(&["run", "--", "true"]).output().await.unwrap();
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("no network of its own"), "{said}");
        stage
    }

    async fn new(before: &'static [&'static str]) -> Self {
        let cluster = SimCluster::start(Options::default()).await.unwrap();
        shop::furnish(&cluster);
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        cluster
            .write_kubeconfig(&kubeconfig, "dev", "shop")
            .unwrap();
        Self {
            _cluster: cluster,
            folder,
            before,
        }
    }

    /// `kdev ARGS` for the shop, with nothing else from this process's environment.
    pub(crate) fn kdev(&self, args: &[&str]) -> Command {
        self.kdev_behind(&[], args)
    }

    /// The same as the last words of another command.
    pub(crate) fn kdev_behind(&self, before: &[&str], args: &[&str]) -> Command {
        let kdev = [env!("CARGO_BIN_EXE_kdev")];
        self.command(&[self.before, before, &kdev, args].concat())
    }

    /// A command of which kdev is part.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("KDEV_PROJECT", "off")
            .env("KDEV_CAPTURE", "on")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a case of [`crate::inside`] by `kdev run`, with these variables.
    pub(crate) async fn run(&self, case: &str, env: &[(&str, &str)]) -> Ran {
        self.run_with(case, &[], env).await
    }

    /// As [`Stage::run`], with more flags.
    pub(crate) async fn run_with(&self, case: &str, flags: &[&str], env: &[(&str, &str)]) -> Ran {
        let mut kdev = self.inside(case, flags);
        kdev.envs(env.iter().copied());
        let output = tokio::time::timeout(PATIENCE, kdev.output()).await;
        Ran(output.expect("kdev hangs").unwrap())
    }

    pub(crate) fn inside(&self, case: &str, flags: &[&str]) -> Command {
        let own: PathBuf = std::env::current_exe().unwrap();
        let mut kdev = self.kdev(&["run"]);
        kdev.args(flags).arg("--").arg(own);
        kdev.args(["inside::case", "--exact", "--nocapture"])
            .env(CASE, case);
        kdev
    }

    /// A `kdev connect` that is ready.
    pub(crate) async fn connect(&self) -> Child {
        let mut child = self.kdev(&["connect"]).spawn().unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut line).await.unwrap();
        assert!(!line.is_empty(), "kdev ended before it was ready");
        // Its pipe stays open, or it would end.
        tokio::spawn(async move { while lines.read_line(&mut line).await.is_ok_and(|n| n > 0) {} });
        child
    }
}
