//! Two people's requests beside everybody else's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::app::App;
use super::from_a_pod;
use super::pods::PODS;
use super::session::{Intercept, LAG};
use crate::callers::{Calls, Manner, PLAIN, plain};
use crate::lab;
use crate::team::Team;

/// How long both intercepts are live.
const BESIDE: Duration = Duration::from_secs(60);
/// How far from its part a pod's may be.
const OFF: f64 = 0.05;
/// How soon a new pod has its part.
const NEW_POD: Duration = Duration::from_secs(10);
/// How long that is looked at, and how far from it chance alone may lead in so short a time.
const LOOKED_AT: Duration = Duration::from_secs(15);
const OFF_THEN: f64 = 0.08;

pub(super) fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs_f64()
}

/// Callers with a header, some 18 calls in a second.
pub(super) const fn with(
    name: &'static str,
    headers: &'static [(&'static str, &'static str)],
) -> Manner {
    Manner {
        headers,
        pause: Duration::from_millis(100),
        ..plain(name, 2, false)
    }
}

/// When an intercept was started, live, interrupted and over.
struct Times {
    started: f64,
    live: f64,
    interrupted: f64,
    over: f64,
}

/// Each request of `app`'s owner went there while the intercept was live, and to a pod without it; what
/// falls together with a start or an end may go either way.
fn assert_in_place(calls: &Calls, app: &App, times: &Times) {
    let mut there = 0;
    for call in calls.of(&app.owner) {
        let end = call.begun + call.took;
        let to_the_app = call.answer == app.name;
        assert!(to_the_app || from_a_pod(&call.answer), "{call:?}");
        if call.begun > times.live + LAG.as_secs_f64() && end < times.interrupted {
            assert!(to_the_app, "{call:?}");
            there += 1;
        } else if end < times.started || call.begun > times.over {
            assert!(!to_the_app, "{call:?}");
        }
    }
    assert!(there > 100, "{there}");
}

#[test]
#[ignore = "needs the lab"]
fn two_peoples_requests_beside_all_others() {
    if lab::leaves_out_long() {
        return;
    }
    let team = Team::set_up("beside", true);
    team.scale(PODS);
    let (ann, bob) = (App::of("ann"), App::of("bob"));
    let [fresh, kept] = PLAIN;
    let load = team.load_of(
        "orders",
        &[
            fresh,
            kept,
            with("ann", &[("x-user", "ann")]),
            with("bob", &[("x-user", "bob")]),
            with("carol", &[("x-user", "carol")]),
        ],
    );
    std::thread::sleep(Duration::from_secs(1));
    let started = now();
    let start = |app, header| Intercept::live(&team, app, &["orders", "--header", header]);
    let (anns, bobs) = std::thread::scope(|scope| {
        let anns = scope.spawn(|| start(&ann, "x-user: ann"));
        let bobs = start(&bob, "x-user: bob");
        (anns.join().unwrap(), bobs)
    });
    let live = now();
    std::thread::sleep(LAG);
    // Connections from before stay with their pods, so what the relay makes of kept ones shows on others.
    let later = team.load_of("orders", &[plain("later", 4, true)]);
    std::thread::sleep(BESIDE);
    let later = later.stop();
    let whole = now();
    assert_new_pod_takes_part(&team);
    let interrupted = now();
    anns.end();
    bobs.end();
    let over = now();
    std::thread::sleep(Duration::from_secs(2));
    let calls = load.sound();
    later.assert_no_failure();
    let times = Times {
        started,
        live,
        interrupted,
        over,
    };
    assert_in_place(&calls, &ann, &times);
    assert_in_place(&calls, &bob, &times);
    let others = ["fresh", "kept", "carol"];
    let mut others = others.iter().flat_map(|manner| calls.of(manner));
    assert!(others.all(|call| from_a_pod(&call.answer)));
    let fresh = calls.of("fresh");
    let fresh = fresh.filter(|call| call.begun > live + LAG.as_secs_f64() && call.begun < whole);
    let all = fresh.chain(&later.0).map(|call| call.answer.as_str());
    assert_even(all.collect(), PODS, OFF);
}

/// One more pod comes; a while later it has as much to do as each of the others.
fn assert_new_pod_takes_part(team: &Team) {
    team.scale(PODS + 1);
    std::thread::sleep(NEW_POD);
    let load = team.load_of("orders", &[plain("new", 8, true), plain("fresh", 4, false)]);
    std::thread::sleep(LOOKED_AT);
    let calls = load.stop();
    calls.assert_no_failure();
    let all = calls.0.iter().map(|call| call.answer.as_str());
    assert_even(all.collect(), PODS + 1, OFF_THEN);
}

/// Each of `count` pods has its part of all, but for `off`.
pub(super) fn assert_even(answers: Vec<&str>, count: usize, off: f64) {
    let mut pods = answers.clone();
    pods.sort_unstable();
    pods.dedup();
    let share = |pod: &&str| {
        let its = answers.iter().filter(|answer| *answer == pod).count();
        its as f64 / answers.len() as f64
    };
    let shares: Vec<f64> = pods.iter().map(share).collect();
    println!("of {} requests: {shares:.3?}", answers.len());
    assert_eq!(pods.len(), count, "{pods:?}");
    let even = |share: &f64| (share - 1.0 / count as f64).abs() <= off;
    assert!(shares.iter().all(even), "{shares:?}");
}
