//! A relay that kdev installed, in a namespace of its own, and kdev's way to it.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Instant;

use kdev::k8s::relay::Carrier;

use crate::program::{Running, finish, kdev_with};
use crate::site::Site;
use crate::{lab, probe};

/// An image of the lab with a shell and gunzip, and nothing of kdev's.
pub(crate) const BASE: &str = "kdev-lab/busybox:1";
/// The static relay of this checkout.
pub(crate) static RELAY: LazyLock<String> =
    LazyLock::new(|| match std::env::var("KDEV_RELAY_BINARY") {
        Ok(path) => path,
        Err(_) => lab::script("relay", &[]).unwrap().trim().to_owned(),
    });

/// An installed relay of two replicas; its namespace goes when this is dropped.
pub(crate) struct Relay {
    pub(crate) site: Site,
}

impl Relay {
    /// Installs one, and waits until it is ready. It is reached by port-forward alone.
    pub(crate) fn install(what: &str) -> Self {
        Self::install_with(what, &[])
    }

    /// The same with more arguments of `kdev install`.
    pub(crate) fn install_with(what: &str, args: &[&str]) -> Self {
        let site = Site::create(what);
        let relay = Self { site };
        let mut command = relay.kdev();
        command.args(["install", "--base-image", BASE, "--relay-binary", &*RELAY]);
        finish(command.args(args), b"").ok();
        relay
    }

    /// `kdev` as the administrator, by this relay alone.
    pub(crate) fn kdev(&self) -> Command {
        self.kdev_with(&lab::kubeconfig("admin"))
    }

    /// The same, over `carrier` alone.
    pub(crate) fn kdev_over(&self, carrier: Carrier) -> Command {
        let mut command = self.kdev();
        command.env("KDEV_CARRIER", carrier.id());
        command
    }

    fn kdev_with(&self, kubeconfig: &Path) -> Command {
        let mut command = kdev_with(kubeconfig);
        command.args(["-n", &self.site.0]).env("KDEV_VIA", "relay");
        command
    }

    /// `kdev connect` with a kubeconfig, by this relay and no other way.
    pub(crate) fn connect_with(&self, kubeconfig: &Path) -> Command {
        let mut command = self.kdev_with(kubeconfig);
        command.args(["connect", "--json"]);
        command
    }

    /// `kdev connect`, ready.
    pub(crate) fn connect(&self) -> Running {
        Running::start(&mut self.connect_with(&lab::kubeconfig("admin")))
    }

    /// Rolls all its pods, to another build of the relay.
    pub(crate) async fn upgrade(&self) {
        let mut binary = std::fs::read(&*RELAY).unwrap();
        // What stands behind a program's last section is nobody's.
        binary.extend(std::process::id().to_string().bytes());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), binary).unwrap();
        let mut command = self.kdev();
        command.args(["upgrade", "--relay-binary"]).arg(file.path());
        let rolling = tokio::task::spawn_blocking(move || finish(&mut command, b"").ok());
        println!("{}", rolling.await.unwrap());
    }

    /// Ends one pod at once, as a node does that fails.
    pub(crate) fn kill_a_pod(&self) {
        let pod = self.site.relays().remove(0);
        let now = ["delete", "pod", &pod, "--grace-period=0", "--force"];
        self.site.kubectl(&now).unwrap();
    }

    /// When somebody who comes anew can open a port-forward to the relay.
    pub(crate) async fn back(&self) -> Instant {
        let pod = || self.site.try_relays().ok()?.into_iter().next();
        probe::until_open("admin", &self.site.0, pod).await;
        Instant::now()
    }
}
