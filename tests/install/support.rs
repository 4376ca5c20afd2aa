//! A simulated cluster, something that passes for a relay's program, and `kdev` on both.

use std::path::{Path, PathBuf};

use kdev_sim::{Options, SimCluster, shop};
use serde_json::Value;
use tokio::process::Command;

pub(crate) use crate::done::Done;
use crate::finish::finish;

/// The version of the program under test.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A namespace of a simulated cluster and a laptop with kdev.
pub(crate) struct Stage {
    pub(crate) cluster: SimCluster,
    pub(crate) folder: tempfile::TempDir,
    user: &'static str,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::on(Options::default()).await
    }

    pub(crate) async fn on(options: Options) -> Self {
        let cluster = SimCluster::start(options).await.unwrap();
        shop::furnish(&cluster);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("relay"), program("amd64", VERSION)).unwrap();
        Self {
            cluster,
            folder,
            user: "dev",
        }
    }

    /// Acts as another user from now on.
    pub(crate) fn acting(mut self, user: &'static str) -> Self {
        self.user = user;
        self
    }

    /// A file with a program.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_kdev")), args)
    }

    pub(crate) fn command_of(&self, kdev: &Path, args: &[&str]) -> Command {
        let kubeconfig = self.file(
            "kubeconfig",
            self.cluster
                .kubeconfig(self.user, shop::NAMESPACE)
                .as_bytes(),
        );
        let mut command = Command::new(kdev);
        command
            .args(args)
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", self.folder.path())
            .env("KDEV_PROJECT", "off")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn kdev(&self, args: &[&str]) -> Done {
        finish(self.command(args)).await
    }

    /// `kdev VERB` with the program, and more arguments.
    pub(crate) async fn with_program(&self, verb: &str, args: &[&str]) -> Done {
        let relay = self.folder.path().join("relay").display().to_string();
        let first = [verb, "--relay-binary", &relay];
        self.kdev(&[&first, args].concat()).await
    }

    pub(crate) async fn install(&self, args: &[&str]) -> Done {
        self.with_program("install", args).await
    }

    /// An object in the namespace.
    pub(crate) fn object(&self, resource: &str, name: &str) -> Option<Value> {
        self.cluster.object(resource, shop::NAMESPACE, name)
    }

    /// What is in the namespace, as resource and name.
    pub(crate) fn all(&self) -> Vec<(&'static str, String)> {
        let resources = [
            "configmaps",
            "deployments",
            "poddisruptionbudgets",
            "pods",
            "replicasets",
            "secrets",
            "services",
        ];
        let objects = resources.into_iter().flat_map(|resource| {
            let objects = self.cluster.objects(resource, shop::NAMESPACE).into_iter();
            objects.map(move |object| (resource, name(&object)))
        });
        objects.collect()
    }

    /// Names of the relay's ConfigMaps with its program.
    pub(crate) fn parts(&self) -> Vec<String> {
        let maps = self.cluster.objects("configmaps", shop::NAMESPACE);
        let names = maps.iter().map(name);
        names.filter(|name| name != "kdev-relay-ports").collect()
    }
}

pub(crate) fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// The smallest file that passes for a relay: a static program's head, and what it prints.
pub(crate) fn program(arch: &str, version: &str) -> Vec<u8> {
    let machine: u16 = match arch {
        "amd64" => 62,
        "arm64" => 183,
        other => panic!("{other}"),
    };
    let mut elf = vec![0; 64 + 56];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18..20].copy_from_slice(&machine.to_le_bytes());
    (elf[32], elf[54], elf[56], elf[64]) = (64, 56, 1, 1);
    elf.extend_from_slice(format!("kdev-relay {version}\nusage").as_bytes());
    elf
}

/// A folder's only file whose name begins so.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/install/golden")
        .join(name)
}
