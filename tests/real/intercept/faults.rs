//! What goes wrong on a laptop or in the cluster, and who notices.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::app::App;
use super::beside::{now, with};
use super::session::{Intercept, LAG};
use super::{call, from_a_pod};
use crate::callers::{Calls, Load, PLAIN};
use crate::program::finish;
use crate::team::{self, Team};

pub(super) const ANNS: &str = "x-user: ann";
/// How long after a fault a matching request may wait for its answer, and a bit for the way.
pub(super) const ANSWERED: f64 = 6.5;
/// How long a laptop that wakes may take until it hears its requests again.
pub(super) const AWAKE: Duration = Duration::from_secs(10);

/// How long a strict intercept's owner is silent: longer than it takes to notice.
const SILENT: Duration = Duration::from_secs(12);
/// How soon an owner who is back hears what was missed.
const TOLD: Duration = Duration::from_secs(5);

pub(super) fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// Everybody's and the owner's; those who come after a swap, so that the relay sees kept connections too.
fn callers(team: &Team) -> Load {
    let [fresh, kept] = PLAIN;
    team.load_of("orders", &[fresh, kept, with("ann", &[("x-user", "ann")])])
}

/// Nobody but the owner's callers noticed, and those were answered.
fn assert_bounded(calls: &Calls, silent: &[(f64, f64)]) {
    for manner in ["fresh", "kept"] {
        for call in calls.of(manner) {
            assert!(call.status == 200 && from_a_pod(&call.answer), "{call:?}");
        }
    }
    for call in calls.of("ann") {
        assert!(matches!(call.status, 200 | 502 | 503), "{call:?}");
        assert!(call.took < ANSWERED, "{call:?}");
        let of_a_fault =
            |(from, to): &(f64, f64)| call.begun + call.took > *from && call.begun < *to;
        assert!(
            call.status == 200 || silent.iter().any(of_a_fault),
            "{call:?}"
        );
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_kdev_that_dies_or_freezes_disturbs_nobody_else() {
    let team = Team::set_up("dies", true);
    let orders = team.address("orders");
    let ann = App::of("ann");
    let hears = || call(&orders, &["-H", ANNS]);
    let live = || Intercept::live(&team, &ann, &["orders", "--header", ANNS]);
    let first = live();
    std::thread::sleep(LAG);
    let load = callers(&team);
    pause(3);
    let killed = now();
    first.kill();
    pause(8);
    assert_silent(&call(&orders, &["-H", ANNS, "-i"]));
    let listed = finish(&mut team.place.command(&["list"]), b"").ok();
    assert!(
        listed.contains("silent, its requests go to the original pods"),
        "{listed}"
    );
    // The same person again: what is there is a ghost.
    let second = live();
    std::thread::sleep(LAG);
    assert_eq!(hears(), ann.name);
    let back = now();
    pause(2);
    let frozen = now();
    second.signal(Signal::SIGSTOP);
    pause(10);
    assert_silent(&call(&orders, &["-H", ANNS, "-i"]));
    second.signal(Signal::SIGCONT);
    let begun = Instant::now();
    while hears() != ann.name {
        assert!(begun.elapsed() < AWAKE, "{}", second.told());
        std::thread::sleep(Duration::from_millis(200));
    }
    let awake = now();
    println!("awake after {:?}", begun.elapsed());
    second.notes("went to the original pods: owner silent", TOLD);
    pause(2);
    second.end();
    pause(1);
    assert_bounded(&load.stop(), &[(killed, back), (frozen, awake)]);
}

/// The original pods gave this answer, and say so.
fn assert_silent(answer: &str) {
    let head = answer.to_ascii_lowercase();
    let marked = head.contains("x-kdev-fallback: owner silent");
    assert!(head.starts_with("http/1.1 200") && marked, "{answer}");
    assert!(answer.contains("orders-"), "{answer}");
}

#[test]
#[ignore = "needs the lab"]
fn a_strict_intercept_answers_by_itself_or_not_at_all() {
    let team = Team::set_up("strictly", true);
    let orders = team.address("orders");
    let ann = App::of("ann");
    let args = ["orders", "--header", ANNS, "--strict"];
    let live = Intercept::live(&team, &ann, &args);
    std::thread::sleep(LAG);
    assert_eq!(call(&orders, &["-H", ANNS]), ann.name);
    for kind in [Signal::SIGSTOP, Signal::SIGKILL] {
        live.signal(kind);
        let begun = Instant::now();
        let mut answers = 0;
        while begun.elapsed() < SILENT {
            let asked = Instant::now();
            let answer = call(&orders, &["-H", ANNS, "-i"]);
            let head = answer.to_ascii_lowercase();
            let refused = head.starts_with("http/1.1 503") && head.contains("retry-after:");
            // What comes as the process stops is still served.
            let served = begun.elapsed() < LAG && answer.ends_with(&ann.name);
            assert!(refused || served, "{kind} {answer}");
            assert!(asked.elapsed().as_secs_f64() < ANSWERED, "{kind}");
            assert!(call(&orders, &[]).starts_with("orders-"));
            answers += 1;
            pause(1);
        }
        assert!(answers > 2, "{kind}: {answers}");
        if kind == Signal::SIGKILL {
            break;
        }
        live.signal(Signal::SIGCONT);
        let begun = Instant::now();
        while call(&orders, &["-H", ANNS]) != ann.name {
            assert!(begun.elapsed() < AWAKE, "{}", live.told());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    let listed = finish(&mut team.place.command(&["list"]), b"").ok();
    assert!(listed.contains("silent, its callers get a 503"), "{listed}");
    let restored = finish(&mut restore(&team), b"").ok();
    assert!(restored.contains("orders"), "{restored}");
    assert!(call(&orders, &["-H", ANNS]).starts_with("orders-"));
}

/// `kdev restore` by the one who left something.
fn restore(team: &Team) -> Command {
    let mut command = team.place.command(&["restore"]);
    command.env("KDEV_OWNER", "ann");
    command
}

#[test]
#[ignore = "needs the lab"]
fn other_relay_pods_and_an_apply_in_the_middle_fail_nothing() {
    let team = Team::set_up("others", false);
    let orders = team.address("orders");
    let ann = App::of("ann");
    let live = Intercept::live(&team, &ann, &["orders", "--header", ANNS]);
    std::thread::sleep(LAG);
    let load = callers(&team);
    let came = |what: &str| {
        let begun = Instant::now();
        while call(&orders, &["-H", ANNS]) != ann.name {
            assert!(begun.elapsed() < AWAKE, "{what}: {}", live.told());
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("{what}: there after {:?}", begun.elapsed());
    };
    for pod in &team.place.site.relays() {
        let delete = ["delete", "pod", pod, "--wait=false"];
        team.place.site.kubectl(&delete).unwrap();
        team.place.site.wait("another relay pod", |site| {
            let now = site.relays();
            now.len() == 2 && !now.contains(pod)
        });
        came("without a relay pod");
    }
    let file = team::manifest();
    let apply = ["apply", "-f", file.path().to_str().unwrap()];
    team.place.site.kubectl(&apply).unwrap();
    pause(4);
    let selector = team.place.site.field("service/orders", ".spec.selector");
    assert_eq!(selector, r#"{"app":"kdev-relay"}"#, "{}", live.told());
    came("after an apply");
    assert!(!live.events("note").is_empty(), "{}", live.told());
    live.end();
    pause(1);
    let calls = load.sound();
    assert!(calls.of("ann").count() > 100);
    let selector = team.place.site.field("service/orders", ".spec.selector");
    assert_eq!(selector, r#"{"app":"orders"}"#);
    let managers = ".metadata.managedFields[*].manager";
    let managers = team.place.site.field("service/orders", managers);
    assert!(
        !managers.split(' ').any(|name| name == "kdev"),
        "{managers}"
    );
}
