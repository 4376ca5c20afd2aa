//! A laptop that moves: a network namespace whose address changes under its connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use crate::lab::Only;

const NAMESPACE: &str = "kdev-lab-mobile";
/// This machine's end of the cable; the lab's `leftovers` knows links of this form.
const LINK: &str = "vethmobile";
/// Where this machine is, seen from the laptop.
pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(172, 31, 98, 1);
const FIRST: &str = "172.31.98.2/24";
const SECOND: &str = "172.31.98.77/24";

/// The laptop; gone when this is dropped.
pub(crate) struct Mobile {
    _only: Only,
}

impl Mobile {
    pub(crate) fn set_up() -> Self {
        let only = Only::one("mobile");
        let _ = ip(&["netns", "del", NAMESPACE]);
        let mobile = Self { _only: only };
        ip(&["netns", "add", NAMESPACE]).unwrap();
        let peer = ["peer", "name", "eth0", "netns", NAMESPACE];
        ip(&[&["link", "add", LINK, "type", "veth"][..], &peer].concat()).unwrap();
        ip(&["addr", "add", &format!("{HERE}/24"), "dev", LINK]).unwrap();
        ip(&["link", "set", LINK, "up"]).unwrap();
        ip(&["-n", NAMESPACE, "link", "set", "lo", "up"]).unwrap();
        ip(&["-n", NAMESPACE, "link", "set", "eth0", "up"]).unwrap();
        ip(&["-n", NAMESPACE, "addr", "add", FIRST, "dev", "eth0"]).unwrap();
        mobile
    }

    /// Another network: nothing of the old address arrives any more, and nobody says so.
    pub(crate) fn moves(&self) {
        ip(&["-n", NAMESPACE, "addr", "del", FIRST, "dev", "eth0"]).unwrap();
        ip(&["-n", NAMESPACE, "addr", "add", SECOND, "dev", "eth0"]).unwrap();
    }

    /// Nothing arrives any more in either direction, and nobody says so, until the result is dropped.
    pub(crate) fn cut(&self) -> Cut {
        Cut::drop_all("-I").unwrap();
        Cut(())
    }

    /// A command on it.
    pub(crate) fn command(&self, inner: &Command) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NAMESPACE]);
        command.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs what `work` makes on a thread that lives on the laptop, an app beside kdev.
    pub(crate) fn app<F>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> std::thread::JoinHandle<F::Output>
    where
        F: Future,
        F::Output: Send + 'static,
    {
        std::thread::spawn(move || {
            let namespace = std::fs::File::open(format!("/var/run/netns/{NAMESPACE}")).unwrap();
            nix::sched::setns(namespace.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(work())
        })
    }
}

impl Drop for Mobile {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", NAMESPACE]);
        let _ = ip(&["link", "del", LINK]);
    }
}

/// A laptop without a network.
pub(crate) struct Cut(());

impl Cut {
    fn drop_all(verb: &str) -> Result<(), String> {
        for (chain, way) in [("INPUT", "-i"), ("OUTPUT", "-o")] {
            let rule = ["iptables", "-w", verb, chain, way, "eth0", "-j", "DROP"];
            ip(&[&["netns", "exec", NAMESPACE], &rule[..]].concat())?;
        }
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // The laptop may be gone already.
        let _ = Self::drop_all("-D");
    }
}

/// An address for a line that the laptop reaches.
pub(crate) fn here() -> SocketAddr {
    (HERE, 0).into()
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}
