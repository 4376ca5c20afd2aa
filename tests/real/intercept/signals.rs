//! Signals that come in pairs, and kdevs that are killed while they begin.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGKILL, SIGTERM};

use super::app::App;
use super::session::{Intercept, LAG, command};
use super::{assert_as_before, call, from_a_pod};
use crate::lab;
use crate::program::Running;
use crate::team::Team;

const ANNS: &str = "x-user: ann";
/// What comes from a runner that forwards signals, a supervisor, a terminal that closes.
const PAIRS: [[Signal; 2]; 3] = [[SIGINT, SIGINT], [SIGTERM, SIGINT], [SIGHUP, SIGHUP]];
/// How long it may take until the Service has its own pods again.
const GIVEN_BACK: Duration = Duration::from_secs(5);
/// How long beginning may take where a dead kdev of the same owner is in the way.
const BEGUN: Duration = Duration::from_secs(20);

#[test]
#[ignore = "needs the lab"]
fn two_signals_at_once_are_one_and_the_next_intercept_begins() {
    let team = Team::set_up("pairs", true);
    let before = team.objects();
    let (ann, orders) = (App::of("ann"), team.address("orders"));
    for pair in PAIRS {
        let live = Intercept::live(&team, &ann, &["orders", "--header", ANNS]);
        std::thread::sleep(LAG);
        assert_eq!(call(&orders, &["-H", ANNS]), ann.name);
        live.signal(pair[0]);
        std::thread::sleep(Duration::from_millis(1));
        live.signal(pair[1]);
        let begun = Instant::now();
        let (code, told) = live.ended();
        let ended = begun.elapsed();
        println!("{pair:?}: {code:?} after {ended:?}");
        let is_of = |signal: &Signal| match signal {
            SIGINT => code == Some(0),
            signal => code == Some(128 + *signal as i32),
        };
        assert!(pair.iter().any(is_of), "{code:?} {told}");
        assert!(ended < GIVEN_BACK, "{ended:?}");
        assert!(told.contains("has its own pods again"), "{told}");
        assert!(!told.contains("kdev restore"), "{told}");
        // What late callers need is there still, and is no intercept.
        let objects = team.objects();
        let late = |object: &serde_json::Value| {
            object["metadata"]["labels"]["kdev.dev/origin-of"] == "orders"
        };
        assert!(objects.iter().any(late), "{pair:?}");
        assert_eq!(team.place.kdev(&["list"]).ok(), "Nothing is intercepted.\n");
        std::thread::sleep(LAG);
        assert!(from_a_pod(&call(&orders, &["-H", ANNS])), "{pair:?}");
    }

    // Killed with a claim on record, twice, and at once again.
    for _ in 0..2 {
        let to = ann.port.to_string();
        let args = ["orders", "--header", ANNS, "--to", &to];
        let mut begins = Running::spawn(&mut command(&team, "ann", &args));
        let begun = Instant::now();
        let of_anns = |object: &serde_json::Value| object.to_string().contains("\\\"ann\\\"");
        while !lab::kubectl(&["get", "services", "-n", &team.place.site.0, "-o", "json"])
            .is_ok_and(|all| serde_json::from_str(&all).is_ok_and(|all| of_anns(&all)))
        {
            assert!(begun.elapsed() < BEGUN, "{}", begins.said());
            assert_eq!(begins.ended(), None, "{}", begins.said());
        }
        begins.signal(SIGKILL);
    }
    let begun = Instant::now();
    let live = Intercept::live(&team, &ann, &["orders", "--header", ANNS]);
    assert!(begun.elapsed() < BEGUN);
    std::thread::sleep(LAG);
    assert_eq!(call(&orders, &["-H", ANNS]), ann.name);
    live.end();
    assert_as_before(&team, &before);
}
