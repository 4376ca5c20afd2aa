//! The app is not there: who answers, and who is told.

use std::process::Command;
use std::time::{Duration, Instant};

use super::app::{App, SCRIPT};
use super::beside::with;
use super::call;
use super::kinds::{caller, echo};
use super::session::{Intercept, LAG, command};
use crate::callers::{Load, Manner, plain};
use crate::team::Team;

const ANNS: &str = "x-user: ann";
/// How long after the app has come or gone its callers may still hear the other side.
const TURNS: Duration = Duration::from_secs(3);

/// A port that nobody has.
pub(super) fn free() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// Ann's app, on this port.
pub(super) fn app_on(port: u16) -> App {
    let mut command = Command::new("python3");
    command.args([SCRIPT, "laptop-of-ann", &port.to_string()]);
    App::start("ann", command)
}

fn start(team: &Team, port: u16, more: &[&str]) -> Intercept {
    let to = port.to_string();
    let args = [&["echo:http", "--header", ANNS, "--to", &to], more].concat();
    let live = Intercept::attempt(&mut command(team, "ann", &args));
    let live = live.unwrap_or_else(|refused| panic!("{args:?}: {refused:?}"));
    let error = live.live["app_error"].as_str().unwrap_or_default();
    assert!(error.contains(&to), "{error}");
    live
}

#[test]
#[ignore = "needs the lab"]
fn without_the_app_the_pods_answer_or_callers_are_told() {
    let (team, address) = echo("away");
    let port = free();
    let place = format!("localhost:{port}");

    let strict = start(&team, port, &[]);
    std::thread::sleep(LAG);
    let told = call(&address, &["-H", ANNS, "-i"]);
    println!("{told}");
    assert!(told.starts_with("HTTP/1.1 502"), "{told}");
    assert!(told.contains("ann") && told.contains(&place), "{told}");
    strict.notes(&place, TURNS);
    strict.notes("callers get a 502", TURNS);
    let form = "0123456789".repeat(800);
    let told = call(&address, &["-H", ANNS, "--data", &form]);
    assert!(told.contains(&place), "{told}");
    assert!(call(&address, &[]).starts_with("echo-"));
    strict.end();

    let patient = start(&team, port, &["--fallback"]);
    std::thread::sleep(LAG);
    let kept = Manner {
        headers: &[("x-user", "ann")],
        ..plain("kept", 3, true)
    };
    let load = Load::start(&address, 80, &[with("fresh", &[("x-user", "ann")]), kept]);
    let answer = call(&address, &["-H", ANNS]);
    assert!(answer.starts_with("echo-"), "{answer:?}");
    patient.notes("the original pods answer", TURNS);
    let said = caller("uploads", &address, &["80", ANNS], b"");
    assert!(said.lines().all(|line| line.starts_with("echo-")), "{said}");
    let turns = |what: &str, to: &str| {
        let begun = Instant::now();
        while !call(&address, &["-H", ANNS]).starts_with(to) {
            assert!(begun.elapsed() < TURNS, "{what}: {}", patient.told());
        }
        println!("{what}: {to} answers after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_secs(2));
    };
    // It comes, goes while requests are on their way to it, and comes again.
    for _ in 0..2 {
        let app = app_on(port);
        turns("with the app", "laptop-of-ann");
        drop(app);
        turns("without the app", "echo-");
    }
    let calls = load.stop();
    calls.assert_no_failure();
    let of_the_app = calls.0.iter().filter(|call| call.answer == "laptop-of-ann");
    let of_pods = calls
        .0
        .iter()
        .filter(|call| call.answer.starts_with("echo-"));
    let (app, pods) = (of_the_app.count(), of_pods.count());
    println!("{app} answers of the app, {pods} of pods");
    assert!(app > 50 && pods > 50 && app + pods == calls.0.len());
    patient.end();
}
