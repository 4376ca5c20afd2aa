//! The relay under test: installed by kdev itself, in a namespace of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where it is installed.
pub(crate) const NAMESPACE: &str = "bench";

/// An installed relay; its namespace goes when this is dropped.
pub(crate) struct Relay {
    kubeconfig: PathBuf,
}

impl Relay {
    pub(crate) fn install(kubeconfig: &Path) -> Self {
        let relay = Self {
            kubeconfig: kubeconfig.to_owned(),
        };
        relay.kubectl(&["create", "namespace", NAMESPACE]);
        let binary = std::env::var("KDEV_RELAY_BINARY")
            .expect("KDEV_RELAY_BINARY: a static relay, as cluster/lab/relay builds it");
        let installed = Command::new(env!("CARGO_BIN_EXE_kdev"))
            .args(["--kubeconfig".as_ref(), kubeconfig.as_os_str()])
            .args(["-n", NAMESPACE, "install", "--pods-proxy"])
            .args(["--base-image", "kdev-lab/busybox:1"])
            .args(["--relay-binary", &binary])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(installed.success(), "kdev install failed");
        relay
    }

    /// Resident memory of all relay processes of this machine, in bytes.
    pub(crate) fn resident() -> f64 {
        let mut kib = 0.0;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let path = entry.path();
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            if name.trim() == "kdev-relay" {
                let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
                let line = status.lines().find(|l| l.starts_with("VmRSS:"));
                let number = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok());
                kib += number.unwrap_or_default();
            }
        }
        kib * 1024.0
    }

    fn kubectl(&self, words: &[&str]) {
        let status = Command::new("kubectl")
            .args(["--kubeconfig".as_ref(), self.kubeconfig.as_os_str()])
            .args(words)
            .stdout(Stdio::null())
            .status();
        // A namespace that is left from a broken run is as good; what is missing shows later.
        if !status.is_ok_and(|s| s.success()) {
            eprintln!("kubectl {} failed", words.join(" "));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kubectl(&["delete", "namespace", NAMESPACE]);
    }
}
