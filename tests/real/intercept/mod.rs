//! `kdev intercept` against a real cluster, by an account with the role `edit` and nothing else.

mod app;
mod away;
mod beside;
mod check;
mod conflicts;
mod container;
mod crowd;
mod cut;
mod drain;
mod drift;
mod endings;
mod faults;
mod flags;
mod grpc;
mod hostile;
mod idle;
mod joined;
mod kinds;
mod losses;
mod many;
mod mine;
mod mirror;
mod mixed;
mod node;
mod noticed;
mod pods;
mod pods_change;
mod policy;
mod rights;
mod session;
mod signals;
mod strict;
mod terminal;
mod two;
mod workers;

use std::time::{Duration, Instant};

use self::app::App;
use self::session::{Intercept, LAG};
use crate::callers::on_the_node;
use crate::program::{finish, kdev};
use crate::team::Team;

/// How long what was given back may leave traces.
const TRACES: Duration = Duration::from_secs(20);

/// What a caller in the cluster hears, with more arguments of curl.
fn call(address: &str, args: &[&str]) -> String {
    let mut curl = on_the_node();
    curl.args(["curl", "-sS", "-m", "10", address]).args(args);
    finish(&mut curl, b"").ok().trim().to_owned()
}

/// Whether an answer came from one of the team's pods.
fn from_a_pod(answer: &str) -> bool {
    answer.starts_with("orders-")
}

/// Waits until all objects are as they were.
fn assert_as_before(team: &Team, before: &[serde_json::Value]) {
    let begun = Instant::now();
    while team.objects() != before && begun.elapsed() < TRACES {
        std::thread::sleep(Duration::from_millis(500));
    }
    let after = team.objects();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len(), "{after:#?}");
    println!("as before after {:?}", begun.elapsed());
}

#[test]
#[ignore = "needs the lab"]
fn there_and_back_leaves_no_trace() {
    let team = Team::set_up("there", true);
    let before = team.objects();
    let orders = team.address("orders");
    let (ann, bob) = (App::of("ann"), App::of("bob"));
    let everything = |from: &str| {
        let other = [format!("{orders}:8080"), format!("{orders}:9090")];
        for port in other {
            let answer = call(&port, &[]);
            assert!(from_a_pod(&answer), "{port}: {answer}");
        }
        match from {
            "pods" => assert!(from_a_pod(&call(&orders, &[]))),
            name => assert_eq!(call(&orders, &[]), name),
        }
    };

    let global = Intercept::live_by(&team, &ann, &["orders:http"]);
    assert_eq!(global.live["service"], "orders");
    assert_eq!(global.live["namespace"], team.place.site.0.as_str());
    assert_eq!(global.live["owner"], "ann");
    std::thread::sleep(LAG);
    everything(&ann.name);
    let told = global.request();
    assert_eq!(
        (&told["method"], &told["path"], &told["status"]),
        (&"GET".into(), &"/".into(), &200.into()),
        "{told}"
    );
    let listed = team.place.kdev(&["list", "--json"]).json();
    assert_eq!(listed[0]["service"], "orders", "{listed}");
    assert_eq!(listed[0]["claims"][0]["owner"], "ann", "{listed}");
    global.end();
    everything("pods");
    assert_as_before(&team, &before);

    // Two people, who leave in either order.
    for ann_first in [true, false] {
        let with = |who: &str| format!("x-user: {who}");
        let of = |app: &App| {
            let condition = with(&app.owner);
            Intercept::live_by(&team, app, &["orders:http", "--header", &condition])
        };
        let (anns, bobs) = (of(&ann), of(&bob));
        std::thread::sleep(LAG);
        let hears = |app: &App| call(&orders, &["-H", &with(&app.owner)]);
        assert_eq!(
            (hears(&ann), hears(&bob)),
            (ann.name.clone(), bob.name.clone())
        );
        everything("pods");
        let (first, second, left, stays) = match ann_first {
            true => (anns, bobs, &ann, &bob),
            false => (bobs, anns, &bob, &ann),
        };
        first.end();
        assert!(from_a_pod(&hears(left)));
        assert_eq!(hears(stays), stays.name);
        second.end();
        assert!(from_a_pod(&hears(stays)));
        everything("pods");
        assert_as_before(&team, &before);
    }
}

#[test]
#[ignore = "needs the lab"]
fn who_was_killed_or_told_to_leave_leaves_no_trace_either() {
    let team = Team::set_up("killed", true);
    let before = team.objects();
    let orders = team.address("orders");
    let ann = App::of("ann@home");
    let mine = || Intercept::live(&team, &ann, &["orders:http", "--mine"]);
    let hears = |header| call(&orders, &["-H", header]);

    let running = mine();
    std::thread::sleep(LAG);
    assert_eq!(hears("x-kdev: ann"), ann.name);
    assert_eq!(hears("baggage: a=b,kdev=ann"), ann.name);
    assert!(from_a_pod(&hears("x-kdev: bob")));
    let mut leave = team.place.command(&["leave", "orders"]);
    finish(leave.env("KDEV_OWNER", "ann@home"), b"").ok();
    let over = running.over();
    assert_eq!(over.0, Some(0), "{over:?}");
    assert!(from_a_pod(&hears("x-kdev: ann")));
    assert_as_before(&team, &before);

    mine().kill();
    // Somebody else's without a word: it is refused or not there to them.
    team.place.kdev(&["restore"]);
    assert_ne!(
        team.objects(),
        before,
        "bob ended what ann may come back to"
    );
    let mut restore = team.place.command(&["restore", "--force"]);
    finish(restore.env("KDEV_OWNER", "ann@home"), b"").ok();
    assert!(from_a_pod(&hears("x-kdev: ann")));
    assert_as_before(&team, &before);
}

/// Reasons of the events on a Service.
fn reasons(team: &Team, service: &str) -> Vec<String> {
    let of = format!("involvedObject.kind=Service,involvedObject.name={service}");
    let path = "jsonpath={.items[*].reason}";
    let all = ["get", "events", "--field-selector", &of, "-o", path];
    let all = team.place.site.kubectl(&all).unwrap();
    all.split_whitespace().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs the lab"]
fn intercepts_are_events_of_the_service_where_that_may_be() {
    let team = Team::set_up("events", true);
    let ann = App::of("ann");
    // The role `edit` may make them on newer servers alone.
    let mut admin = kdev("admin");
    admin.args([
        "-n",
        &team.place.site.0,
        "intercept",
        "--json",
        "orders:http",
    ]);
    admin.args(["--to", &ann.port.to_string()]);
    let live = Intercept::attempt(&mut admin).unwrap_or_else(|refused| panic!("{refused:?}"));
    assert_eq!(reasons(&team, "orders"), ["InterceptStarted"]);
    live.end();
    let mut both = reasons(&team, "orders");
    both.sort();
    assert_eq!(both, ["InterceptEnded", "InterceptStarted"]);
}
