//! Engines that people have beside a current Docker: what Debian 12 ships as `docker.io`, and podman.

use std::process::Command;

use crate::done::Done;
use crate::lab::{self, Firewall, TOOLS};
use crate::program::{finish, kdev};

/// The engines while they run; away again when dropped.
struct Engines {
    docker: String,
    socket: String,
    podman: String,
}

impl Engines {
    fn up() -> Self {
        let said = lab::script("engines", &["up"]);
        let word = |name: &str| {
            let line = said.as_ref().unwrap().lines();
            let mut values = line.filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            values.next().expect("a line for each").to_owned()
        };
        if said.is_err() {
            let _ = lab::script("engines", &["down"]);
        }
        Self {
            docker: word("DOCKER"),
            socket: word("DOCKER_HOST"),
            podman: word("PODMAN"),
        }
    }

    /// A container of `engine` under `kdev run` that asks `web` who answers.
    fn ask(&self, engine: &str, flags: &[&str]) -> Done {
        let url = "http://web.shop/";
        let curl = [TOOLS, "curl", "-sS", "--max-time", "20", url];
        let mut command: Command = kdev("dev");
        command
            .env("DOCKER_HOST", &self.socket)
            .args(["run", "--", engine, "run", "--rm"])
            .args(flags)
            .args(curl);
        finish(&mut command, b"")
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        lab::script("engines", &["down"]).unwrap();
    }
}

#[test]
#[ignore = "needs the lab"]
fn containers_of_debians_docker_and_of_podman_reach_services() {
    let engines = Engines::up();
    let pods = lab::ready_pods("web");
    for (engine, flags) in [
        (&engines.docker, &["--pull", "never"][..]),
        (&engines.docker, &["--pull", "never", "--network", "host"]),
        (&engines.podman, &["--pull", "never"]),
        (&engines.podman, &["--pull", "never", "--network", "host"]),
    ] {
        let pod = engines.ask(engine, flags).ok();
        let known = pods.contains(&pod.trim().to_owned());
        assert!(known, "{engine} {flags:?}: {pod}");
    }
    // A firewall is told by the names that these engines' networks have.
    for (engine, interface) in [
        (&engines.docker, "lab-docker"),
        (&engines.podman, "podman0"),
    ] {
        let _firewall = Firewall::on(interface, "drop");
        let done = engines.ask(engine, &["--pull", "never"]);
        assert_eq!(done.code, 125, "{engine}: {done:?}");
        let line = format!("sudo ufw allow in on {interface} from ");
        assert!(done.err.contains(&line), "{engine}: {done:?}");
    }
}
