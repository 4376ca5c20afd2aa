//! Others end an intercept, or take away what it stands on.

use std::time::{Duration, Instant};

use super::app::App;
use super::session::{Intercept, LAG};
use super::{call, from_a_pod};
use crate::callers::plain;
use crate::program::{Done, finish};
use crate::team::Team;

const ANNS: &str = "x-user: ann";
/// How long the end of what it stands on may go unnoticed.
const NOTICED: Duration = Duration::from_secs(6);
/// How long callers may hear nobody when both pods of the relay go at once: kdev waits 3 s for
/// another one, and nodes learn of the change within a second or two.
const GAP: f64 = 7.0;

/// kdev for somebody.
fn by(team: &Team, owner: &str, args: &[&str]) -> Done {
    let mut command = team.place.command(args);
    finish(command.env("KDEV_OWNER", owner), b"")
}

fn selector(team: &Team) -> String {
    team.place.site.field("service/orders", ".spec.selector")
}

#[test]
#[ignore = "needs the lab"]
fn who_ends_somebody_elses_must_say_so_and_is_named() {
    let team = Team::set_up("ended", true);
    let orders = team.address("orders");
    let ann = App::of("ann");
    let load = team.load("orders");
    let start = || {
        let live = Intercept::live(&team, &ann, &["orders", "--header", ANNS]);
        std::thread::sleep(LAG);
        assert_eq!(call(&orders, &["-H", ANNS]), ann.name);
        live
    };
    let live = start();
    let id = live.live["id"].as_str().unwrap().to_owned();
    for args in [
        &["leave", "orders"][..],
        &["leave", &id],
        &["leave", "orders", "--all"],
        &["leave", "--all", "--owner", "ann"],
    ] {
        let said = by(&team, "bob", args).failed();
        println!("{args:?}: {said}");
        assert!(said.contains("ann's") && said.contains("--force"), "{said}");
    }
    by(&team, "bob", &["leave", "--all"]).ok();
    assert_eq!(call(&orders, &["-H", ANNS]), ann.name, "{}", live.told());
    let (left, over) = std::thread::scope(|scope| {
        let left = scope.spawn(|| by(&team, "bob", &["leave", &id, "--force"]));
        let begun = Instant::now();
        let over = live.over();
        println!(
            "ann's kdev ended {:?} after bob began: {over:?}",
            begun.elapsed()
        );
        (left.join().unwrap(), over)
    });
    let left = left.ok();
    println!("{left}");
    assert!(
        left.contains(&format!("intercept {id} of ann ended")),
        "{left}"
    );
    assert!(left.contains("has its own pods again"), "{left}");
    assert_eq!(over.0, Some(1));
    assert!(over.1.contains("bob ended it"), "{over:?}");
    assert!(from_a_pod(&call(&orders, &["-H", ANNS])));

    let live = start();
    let said = by(&team, "bob", &["uninstall", "--yes"]).failed();
    println!("uninstall: {said}");
    assert!(
        said.contains("orders by ann") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(call(&orders, &["-H", ANNS]), ann.name, "{}", live.told());
    assert_eq!(team.place.site.relays().len(), 2);
    let removed = by(&team, "bob", &["uninstall", "--yes", "--force"]).ok();
    println!("{removed}");
    assert!(
        removed.contains("Gave back what was intercepted: orders"),
        "{removed}"
    );
    let over = live.over();
    println!("uninstalled: {over:?}");
    assert_eq!(over.0, Some(1));
    assert!(over.1.contains("bob"), "{over:?}");
    assert_eq!(selector(&team), r#"{"app":"orders"}"#);
    assert!(from_a_pod(&call(&orders, &["-H", ANNS])));
    std::thread::sleep(LAG);
    load.sound();
}

#[test]
#[ignore = "needs the lab"]
fn what_it_stands_on_goes_and_it_ends() {
    let team = Team::set_up("goes", true);
    let ann = App::of("ann");
    let gone = |what: &str, live: Intercept, delete: &[&str]| {
        let begun = Instant::now();
        team.place.site.kubectl(delete).unwrap();
        let deleted = begun.elapsed();
        let (code, why) = live.over();
        println!(
            "{what}: kubectl took {deleted:?}; after {:?}: {why}",
            begun.elapsed()
        );
        assert_eq!(code, Some(1), "{why}");
        assert!(begun.elapsed() < deleted.max(NOTICED) + NOTICED, "{why}");
        why
    };

    let live = Intercept::live(&team, &ann, &["balanced"]);
    let why = gone("Service", live, &["delete", "service", "balanced"]);
    assert!(why.contains("Service balanced was deleted"), "{why}");

    let live = Intercept::live(&team, &ann, &["orders", "--header", ANNS]);
    std::thread::sleep(LAG);
    let load = team.load_of("orders", &[plain("fresh", 6, false)]);
    std::thread::sleep(LAG);
    let delete = ["delete", "deployment", "kdev-relay", "--wait=false"];
    let why = gone("relay", live, &delete);
    assert!(why.contains("the relay was uninstalled"), "{why}");
    assert_eq!(selector(&team), r#"{"app":"orders"}"#);
    std::thread::sleep(Duration::from_secs(4));
    let calls = load.stop();
    let failures = calls.failures();
    let ends = failures.iter().map(|call| call.begun + call.took);
    let from = failures
        .iter()
        .map(|call| call.begun)
        .fold(f64::MAX, f64::min);
    let gap = (ends.fold(0.0, f64::max) - from).max(0.0);
    println!(
        "without a relay: {} of {} failed, within {gap:.2} s",
        failures.len(),
        calls.0.len()
    );
    assert!(gap < GAP, "{gap} s: {:?}", failures.last());
    let last = calls.0.iter().rfind(|call| call.status == 200);
    assert!(last.is_some_and(|call| from_a_pod(&call.answer)));
    team.place.kdev(&["restore"]).ok();

    team.place.install(&[]).ok();
    team.place.site.await_relays(2);
    let live = Intercept::live(&team, &ann, &["orders", "--header", ANNS]);
    let namespace = team.place.site.0.clone();
    let delete = ["delete", "namespace", &namespace, "--wait=false"];
    let why = gone("namespace", live, &delete);
    // The account's rights may go before the rest, and with them the answer to why.
    let known = ["namespace is being deleted", "may not read it any more"];
    assert!(known.iter().any(|known| why.contains(known)), "{why}");
}
