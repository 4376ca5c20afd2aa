//! What goes wrong on a laptop or in the cluster, and who notices.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::app::App;
use super::beside::{now, with};
use super::session::{Intercept, LAG};
use super::{call, from_a_pod};
use crate::callers::{Calls, Load, PLAIN};
use crate::lab;
use crate::team::{self, Team};

pub(super) const ANNS: &str = "x-user: ann";
/// How long after a fault a matching request may wait for its answer, and a bit for the way.
pub(super) const ANSWERED: f64 = 6.5;
/// How long a laptop that wakes may take until it hears its requests again.
pub(super) const AWAKE: Duration = Duration::from_secs(10);

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
    let head = call(&orders, &["-H", ANNS, "-i"]);
    let head = head.to_ascii_lowercase();
    let unavailable = head.starts_with("http/1.1 503") && head.contains("retry-after:");
    assert!(unavailable || head.contains("orders-"), "{head}");
    // The same person again: what is there is a ghost.
    let second = live();
    std::thread::sleep(LAG);
    assert_eq!(hears(), ann.name);
    let back = now();
    pause(2);
    let frozen = now();
    second.signal(Signal::SIGSTOP);
    pause(10);
    second.signal(Signal::SIGCONT);
    let begun = Instant::now();
    while hears() != ann.name {
        assert!(begun.elapsed() < AWAKE, "{}", second.told());
        std::thread::sleep(Duration::from_millis(200));
    }
    let awake = now();
    println!("awake after {:?}", begun.elapsed());
    pause(2);
    second.end();
    pause(1);
    assert_bounded(&load.stop(), &[(killed, back), (frozen, awake)]);
}

#[test]
#[ignore = "needs the lab"]
fn other_relay_pods_and_an_apply_in_the_middle_fail_nothing() {
    if lab::leaves_out_long() {
        return;
    }
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
