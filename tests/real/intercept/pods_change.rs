//! What a team does to the pods of a Service that is intercepted.

use super::app::App;
use super::beside::now;
use super::faults::{ANNS, pause};
use super::noticed::{ANN, Fault, Stage, assert_others_served};
use super::session::{Intercept, LAG};
use crate::callers::PLAIN;
use crate::lab;
use crate::site::Site;
use crate::team::Team;

/// How long after its pods are ready again a Service may not be reached, in seconds.
const READY: f64 = 3.0;
/// How long whoever asks for a Service without pods may wait for being told, in seconds.
const TOLD: f64 = 4.0;

fn restart(site: &Site) {
    let restart = ["rollout", "restart", "deployment/orders"];
    site.kubectl(&restart).unwrap();
    let rollout = ["rollout", "status", "deployment/orders", "--timeout=90s"];
    site.kubectl(&rollout).unwrap();
}

#[test]
#[ignore = "needs the lab"]
fn a_rollout_of_the_services_own_pods_fails_nothing() {
    if lab::leaves_out_long() {
        return;
    }
    let team = Team::set_up("rollout", true);
    let [fresh, kept] = PLAIN;
    let before = team.load_of("orders", &[fresh]);
    pause(2);
    let ann = App::of("ann");
    let live = Intercept::live(&team, &ann, &["orders", "--header", ANNS]);
    // Kept connections from before the swap are with their pods, and go with them.
    let load = std::thread::scope(|scope| {
        let restarted = scope.spawn(|| restart(&team.place.site));
        std::thread::sleep(LAG);
        let load = team.load_of("orders", &[fresh, kept, ANN]);
        restarted.join().unwrap();
        load
    });
    // The old ones end.
    pause(8);
    restart(&team.place.site);
    pause(8);
    let over = now();
    live.end();
    pause(1);
    let before = before.stop();
    before.assert_no_failure();
    let calls = load.sound();
    assert_others_served(&calls, &[]);
    let pods: std::collections::BTreeSet<_> = calls.of("fresh").map(|call| &call.answer).collect();
    println!("answered by {pods:?}");
    assert!(pods.len() >= 4, "no pod was replaced: {pods:?}");
    let mut during = calls.of("ann").filter(|call| call.begun + call.took < over);
    let elsewhere = during
        .by_ref()
        .filter(|call| call.answer != ann.name)
        .count();
    println!("{elsewhere} of the owner's calls elsewhere");
}

#[test]
#[ignore = "needs the lab"]
fn a_service_without_pods_says_so_and_comes_back() {
    if lab::leaves_out_long() {
        return;
    }
    let stage = Stage::set_up("nopods", PLAIN);
    let site = &stage.team.place.site;
    let scale = |count: &str| {
        let scale = ["scale", "deployment/orders", &format!("--replicas={count}")];
        site.kubectl(&scale).unwrap();
    };
    let mut none = Fault::now("no pods", 0.0);
    scale("0");
    site.wait("no pods", |site| {
        site.kubectl(&["get", "pods", "-l", "app=orders", "-o", "name"])
            .unwrap()
            .is_empty()
    });
    let empty = now();
    pause(8);
    let full = now();
    scale("2");
    site.wait("pods", |site| {
        lab::ready(&site.0, "app=orders").unwrap().len() == 2
    });
    let ready = now();
    none.over = ready + READY;
    pause(6);
    let past = stage.end();
    let calls = &past.calls;
    let noticed = none.noticed(calls);
    println!(
        "ready {:.2} s after the fault, last failure {:+.2} s after that",
        ready - none.at,
        none.at + noticed.gap - ready
    );
    assert_others_served(calls, &[none]);
    let told = calls
        .0
        .iter()
        .filter(|call| call.manner != "ann" && call.begun > empty && call.begun + call.took < full);
    let told: Vec<_> = told.collect();
    assert!(told.len() > 20, "{}", told.len());
    let slowest = told.iter().map(|call| call.took).fold(0.0, f64::max);
    let mean = told.iter().map(|call| call.took).sum::<f64>() / told.len() as f64;
    println!(
        "{} were told, after {mean:.3} s, {slowest:.3} s at most: {:?}",
        told.len(),
        told[0]
    );
    for call in told {
        assert!(call.status == 502 || call.status == 503, "{call:?}");
        assert!(call.took < TOLD, "{call:?}");
    }
    past.assert_matched(&[]);
}
