//! A simulated cluster, and `kdev doctor` run on it as a user would.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kdev_sim::{Options, SimCluster, shop};
use serde::Deserialize;
use tokio::process::Command;

/// Longer than the doctor may ever take.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder that goes with its value.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let name = format!("kdev-doctor-test-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The document that `--json` prints. Unknown or missing fields fail the test: scripts read it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) ok: bool,
    pub(crate) answers: Vec<Answer>,
    pub(crate) checks: Vec<Check>,
    pub(crate) role: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    pub(crate) command: String,
    pub(crate) can: Option<bool>,
    pub(crate) reason: Option<String>,
    pub(crate) fix: Option<String>,
    pub(crate) checks: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) status: String,
    pub(crate) detail: String,
    pub(crate) fix: Option<String>,
    pub(crate) needed: bool,
}

impl Document {
    pub(crate) fn get(&self, id: &str) -> &Check {
        let mut checks = self.checks.iter();
        let found = checks.find(|c| c.id == id);
        found.unwrap_or_else(|| panic!("no check {id} in {self:#?}"))
    }

    /// The answer for a command.
    pub(crate) fn answer(&self, command: &str) -> &Answer {
        let mut answers = self.answers.iter();
        let found = answers.find(|answer| answer.command == command);
        found.unwrap_or_else(|| panic!("no answer for {command} in {self:#?}"))
    }

    /// The commands that work.
    pub(crate) fn can(&self) -> Vec<&str> {
        let can = self
            .answers
            .iter()
            .filter(|answer| answer.can == Some(true));
        can.map(|answer| answer.command.as_str()).collect()
    }

    /// Ids of the checks with this status.
    pub(crate) fn with(&self, status: &str) -> Vec<&str> {
        let checks = self.checks.iter().filter(|c| c.status == status);
        checks.map(|c| c.id.as_str()).collect()
    }
}

/// `kdev doctor` with a kubeconfig.
pub(crate) struct Doctor {
    pub(crate) folder: Folder,
    kubeconfig: PathBuf,
    path: String,
    env: BTreeMap<String, String>,
}

impl Doctor {
    pub(crate) fn new(kubeconfig: &str) -> Self {
        let folder = Folder::new();
        Self {
            kubeconfig: folder.write("kubeconfig", kubeconfig),
            // No engine, unless a test brings one.
            path: folder.0.display().to_string(),
            env: BTreeMap::new(),
            folder,
        }
    }

    /// For a user of `cluster` in the namespace `shop`.
    pub(crate) fn of(cluster: &SimCluster, user: &str) -> Self {
        Self::new(&cluster.kubeconfig(user, "shop"))
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn path(mut self, folders: &[&Path]) -> Self {
        self.path = std::env::join_paths(folders)
            .unwrap()
            .into_string()
            .unwrap();
        self
    }

    /// Another command of the same user.
    pub(crate) fn kdev(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kdev"));
        command
            .args(args)
            .env_clear()
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.folder.0)
            .env("XDG_RUNTIME_DIR", &self.folder.0)
            .env("PATH", &self.path)
            .envs(&self.env)
            .kill_on_drop(true);
        command
    }

    /// Its text and exit code.
    pub(crate) async fn text(&self, args: &[&str]) -> (String, i32) {
        let output = tokio::time::timeout(LIMIT, self.kdev(&[&["doctor"], args].concat()).output())
            .await
            .expect("the doctor's time is bounded")
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        let text = String::from_utf8(output.stdout).unwrap();
        (text, output.status.code().unwrap())
    }

    /// Its document, whose `ok` is what the exit code says.
    pub(crate) async fn json(&self) -> Document {
        let (text, code) = self.text(&["--json"]).await;
        let document: Document = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("not the documented form: {e}: {text}"));
        assert_eq!(document.ok, code == 0, "{text}");
        document
    }
}

/// Words with one space between them, wherever their lines are broken.
pub(crate) fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A furnished cluster.
pub(crate) async fn cluster(options: Options) -> SimCluster {
    let cluster = SimCluster::start(options).await.unwrap();
    shop::furnish(&cluster);
    cluster
}
