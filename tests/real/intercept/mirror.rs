//! Copies: callers hear the pods alone, and as soon as ever.

use std::net::TcpListener;
use std::time::Duration;

use super::app::App;
use super::call;
use super::kinds::{caller, echo, recorder};
use super::session::{Intercept, LAG, command};
use crate::callers::{Calls, Load, plain};
use crate::lab;
use crate::team::Team;

/// How long callers call in each of the ways that are compared.
const COMPARED: Duration = Duration::from_secs(8);
/// What a request may take longer beside an app that hangs, half of them and one in a hundred: the
/// machine has other things to do as well.
const HALF: f64 = 0.010;
const LATE: f64 = 0.150;

/// Somebody's, to an app that need not listen.
fn live(team: &Team, owner: &str, port: u16, args: &[&str]) -> Intercept {
    let to = port.to_string();
    let args = [args, &["--to", &to]].concat();
    let live = Intercept::attempt(&mut command(team, owner, &args));
    live.unwrap_or_else(|refused| panic!("{args:?}: {refused:?}"))
}

/// How long half of the calls took at most, and all but one in a hundred.
fn took(what: &str, calls: &Calls) -> (f64, f64) {
    calls.assert_no_failure();
    let of_pods = |call: &&crate::callers::Call| call.answer.starts_with("echo-");
    assert_eq!(calls.0.iter().filter(of_pods).count(), calls.0.len());
    let mut all: Vec<f64> = calls.0.iter().map(|call| call.took).collect();
    all.sort_by(f64::total_cmp);
    let (half, late) = (all[all.len() / 2], all[all.len() * 99 / 100]);
    println!(
        "{what}: {} calls, p50 {:.1} ms, p99 {:.1} ms",
        all.len(),
        half * 1e3,
        late * 1e3
    );
    (half, late)
}

/// An app that takes connections and all that is sent, and never says a word.
fn hanging() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let all: Vec<_> = listener.incoming().collect();
        drop(all);
    });
    port
}

#[test]
#[ignore = "needs the lab"]
fn copies_slow_nobody() {
    if lab::leaves_out_long() {
        return;
    }
    let (team, address) = echo("copies");
    let ann = App::of("ann");
    let manners = [plain("fresh", 6, false), plain("kept", 4, true)];
    let calls = || {
        let load = Load::start(&address, 80, &manners);
        std::thread::sleep(COMPARED);
        load.stop()
    };
    took("no intercept", &calls());
    let mirror = |port| live(&team, "ann", port, &["echo:http", "--mirror"]);

    let quick = mirror(ann.port);
    std::thread::sleep(LAG);
    let all = calls();
    let (half, late) = took("copies for an app that answers", &all);
    std::thread::sleep(LAG);
    let listed = team.place.kdev(&["list", "--json"]).json();
    let copies = listed[0]["claims"][0]["requests"].as_u64();
    println!("copies for {:?} of {} requests", copies, all.0.len());
    quick.end();

    let (recording, record) = recorder();
    let whole = live(&team, "ann", recording, &["echo:http", "--mirror"]);
    std::thread::sleep(LAG);
    let body = "0123456789".repeat(800);
    let answer = call(&address, &["--data", &body]);
    assert!(
        answer.starts_with("echo-") && answer.contains(" 8000 "),
        "{answer}"
    );
    std::thread::sleep(LAG);
    let sent = String::from_utf8(record.lock().unwrap().clone()).unwrap();
    assert!(sent.starts_with("POST / HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains(&body), "not all of the copy: {}", sent.len());
    whole.end();

    for (what, port) in [
        ("that hangs", hanging()),
        ("that is not there", super::away::free()),
    ] {
        let other = mirror(port);
        std::thread::sleep(LAG);
        let (its_half, its_late) = took(&format!("copies for an app {what}"), &calls());
        assert!(its_half < half + HALF, "{its_half} {half}");
        assert!(its_late < late + LATE, "{its_late} {late}");
        // As bodies of which the app takes nothing.
        let said = caller("uploads", &address, &["80"], b"");
        assert_eq!(said.lines().count(), 13, "{said}");
        assert!(said.lines().all(|line| line.starts_with("echo-")), "{said}");
        other.end();
    }
}

#[test]
#[ignore = "needs the lab"]
fn copies_are_in_nobodys_way() {
    if lab::leaves_out_long() {
        return;
    }
    let (team, address) = echo("beside-copies");
    let (bob, carol) = (App::of("bob"), App::of("carol"));
    // Another copy of the same, and of a part of it.
    let (port, record) = recorder();
    let anns = live(&team, "ann", port, &["echo:http", "--mirror"]);
    let daves = live(&team, "dave", port, &["echo:http", "--mirror"]);
    let part = ["echo:http", "--mirror", "--header", "x-user: carol"];
    let erins = live(&team, "erin", port, &part);
    // What takes requests comes after what takes copies, a part first, and all of them.
    for (app, args) in [
        (&carol, &["echo:http", "--header", "x-user: carol"][..]),
        (&bob, &["echo:http"][..]),
    ] {
        let taken = Intercept::live(&team, app, args);
        std::thread::sleep(LAG);
        assert_eq!(
            taken.live["overlaps"],
            serde_json::json!([]),
            "{}",
            taken.live
        );
        record.lock().unwrap().clear();
        let path = format!("{address}/of-{}", app.owner);
        assert_eq!(call(&path, &["-H", "x-user: carol"]), app.name);
        std::thread::sleep(LAG);
        let sent = String::from_utf8(record.lock().unwrap().clone()).unwrap();
        let copies = sent
            .matches(&format!("GET /of-{} HTTP/1.1", app.owner))
            .count();
        println!("{copies} copies of what {} answered", app.owner);
        assert_eq!(copies, 3, "{sent}");
        taken.end();
        assert!(call(&address, &["-H", "x-user: carol"]).starts_with("echo-"));
    }
    for one in [anns, daves, erins] {
        one.end();
    }
}
