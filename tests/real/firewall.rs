//! `kdev run` with containers that a firewall of the laptop cuts off from kdev, as ufw and firewalld
//! do unless told otherwise.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::done::Done;
use crate::lab::{self, Container, Firewall, Network, TOOLS};
use crate::program::{finish, kdev, run};

/// How long a refusal may take: 3 s, and what the machine is slower by while others use it.
const REFUSAL: Duration = Duration::from_secs(6);

/// `kdev run` with a container that asks `web` who answers.
fn ask(flags: &[&str]) -> Done {
    let docker = ["docker", "run", "--rm", "--pull", "never"];
    let curl = [TOOLS, "curl", "-sS", "-m", "20", "http://web.shop/"];
    run("dev", &[&docker, flags, &curl].concat())
}

/// The same, refused: what kdev said. No container was started for it.
fn refused(flags: &[&str]) -> String {
    let container = Container::name("walled");
    let begun = Instant::now();
    let done = ask(&[&["--name", &container.0], flags].concat());
    assert_eq!(done.code, 125, "{done:?}");
    assert!(begun.elapsed() < REFUSAL, "{:?}: {done:?}", begun.elapsed());
    assert_eq!(done.out, "");
    // With `--rm` it may be gone already; the engine's record of events has it.
    let name = format!("container={}", container.0);
    let events = [
        "events", "--since", "1m", "--until", "0s", "--filter", &name,
    ];
    assert_eq!(lab::docker(&events).unwrap(), "");
    done.err
}

/// What tried the way for `network` goes by itself.
fn nothing_stays(network: &str) {
    lab::await_no_container(&["name=kdev-probe-", &format!("network={network}")]);
}

#[test]
#[ignore = "needs the lab"]
fn what_it_keeps_from_kdev_is_refused_on_a_network_of_the_users() {
    let pods = lab::ready_pods("web");
    let network = Network::create();
    let flags = ["--network", &network.0];
    let reached = |flags: &[&str]| {
        let pod = ask(flags).ok();
        assert!(pods.contains(&pod.trim().to_owned()), "{flags:?}: {pod}");
    };
    let interface = network.interface();
    for verdict in ["drop", "reject"] {
        let firewall = Firewall::on(&interface, verdict);
        let said = refused(&flags);
        let walled = format!("on the network {:?} ({interface}, ", network.0);
        assert!(said.contains(&walled), "{verdict}: {said}");
        for line in [
            format!("sudo ufw allow in on {interface} from "),
            "sudo firewall-cmd --zone=trusted --add-source=".to_owned(),
        ] {
            assert!(said.contains(&line), "{verdict}: {said}");
        }
        nothing_stays(&network.0);
        // Without root there is a way as well.
        reached(&["--network", "host"]);
        drop(firewall);
        reached(&flags);
    }
}

#[test]
#[ignore = "needs the lab"]
fn on_the_default_network_run_refuses_and_the_doctor_warns() {
    let network = Network::create();
    let firewall = Firewall::on("docker0", "drop");
    let said = refused(&[]);
    assert!(said.contains("on the default network (docker0, "), "{said}");
    assert!(
        said.contains("sudo ufw allow in on docker0 from "),
        "{said}"
    );
    nothing_stays("bridge");
    let done = finish(kdev("dev").args(["doctor", "--json"]), b"");
    let found: Value = serde_json::from_str(&done.out).unwrap();
    let check = |id: &str| {
        let mut checks = found["checks"].as_array().unwrap().iter();
        let check = checks.find(|c| c["id"] == id);
        check.unwrap_or_else(|| panic!("no {id}: {found:#}"))
    };
    let reach = check("container.reach");
    assert_eq!(reach["status"], "warn", "{reach:#}");
    assert!(
        reach["fix"].as_str().unwrap().contains("docker0"),
        "{reach:#}"
    );
    let other = check(&format!("container.reach.{}", network.0));
    assert_eq!(other["status"], "ok", "{other:#}");
    drop(firewall);
    ask(&[]).ok();
}
