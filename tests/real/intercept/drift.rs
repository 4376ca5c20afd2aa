//! Somebody sets the Service back, again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::app::App;
use super::session::{Intercept, LAG};
use super::{call, from_a_pod};
use crate::team::Team;

/// How often the others do it, and for how long at least.
const EACH: Duration = Duration::from_secs(1);
const ALL: Duration = Duration::from_secs(12);
/// How long what nobody needs any more may stay: it goes once nobody came for 10 s.
const TRACES: Duration = Duration::from_secs(30);

#[test]
#[ignore = "needs the lab"]
fn what_others_set_back_each_second_is_theirs_in_the_end() {
    let team = Team::set_up("drift", true);
    let orders = team.address("orders");
    let ann = App::of("ann");
    let theirs = team.place.site.object("service/orders");
    let spec = json!({"selector": theirs["spec"]["selector"], "ports": theirs["spec"]["ports"]});
    let patch = json!({"spec": spec}).to_string();
    let load = team.load("orders");
    let live = Intercept::live(&team, &ann, &["orders", "--header", "x-user: ann"]);
    std::thread::sleep(LAG);
    assert_eq!(call(&orders, &["-H", "x-user: ann"]), ann.name);

    let stop = AtomicBool::new(false);
    let (code, told) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let set_back = ["patch", "service", "orders", "--type=merge", "-p", &patch];
                team.place.site.kubectl(&set_back).unwrap();
                std::thread::sleep(EACH);
            }
        });
        let begun = Instant::now();
        live.notes("bringing it again", Duration::from_secs(5));
        println!("noticed after {:?}, kubectl included", begun.elapsed());
        let ended = live.ended();
        println!("given up after {:?}", begun.elapsed());
        std::thread::sleep(ALL.saturating_sub(begun.elapsed()));
        stop.store(true, Ordering::Relaxed);
        ended
    });
    println!("{told}");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("set back twice (its selector"), "{told}");
    assert_eq!(told.matches("bringing it again").count(), 1, "{told}");
    for _ in 0..20 {
        assert!(from_a_pod(&call(&orders, &["-H", "x-user: ann"])));
    }
    load.sound();
    let left = team.place.site.object("service/orders");
    assert_eq!(left["spec"], theirs["spec"]);
    for field in ["labels", "annotations"] {
        assert_eq!(left["metadata"][field], theirs["metadata"][field]);
    }
    let managers = left["metadata"]["managedFields"].as_array().unwrap();
    let of_kdev = |entry: &&Value| entry["manager"] == "kdev";
    assert!(
        !managers.iter().any(|entry| of_kdev(&entry)),
        "{managers:?}"
    );
    // What led late callers to the pods.
    let begun = Instant::now();
    let origins = || {
        let label = "kdev.dev/origin-of=orders";
        let list = ["get", "services", "-l", label, "-o", "name"];
        team.place.site.kubectl(&list).unwrap()
    };
    println!("left behind: {:?}", origins());
    while !origins().is_empty() {
        assert!(begun.elapsed() < TRACES, "{}", origins());
        std::thread::sleep(Duration::from_millis(500));
    }
}
