use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A home folder with a project in it, and nothing else of the machine's settings.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["project/deep/er", "config/kdev", "runtime", "cache"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        // As the system names it: macOS has its temporary folders behind a link.
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// kdev, two folders deep in the project.
    pub(crate) fn kdev(&self, args: &[&str]) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_kdev")), args)
    }

    /// Any program with the same surroundings.
    pub(crate) fn program(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path("project/deep/er"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KDEV_") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.path(""))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_RUNTIME_DIR", self.path("runtime"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("RUST_LOG")
            .env_remove("HTTPS_PROXY")
            .env_remove("HTTP_PROXY")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.kdev(args).output().unwrap()
    }

    /// What `config show --json` says of a setting.
    pub(crate) fn shown(&self, command: &mut Command, key: &str) -> serde_json::Value {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let settings = document["settings"].as_array().unwrap();
        settings.iter().find(|s| s["key"] == key).unwrap().clone()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
