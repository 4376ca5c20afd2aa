//! How an intercept ends by itself and by signals, whenever they come.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::app::App;
use super::session::{Intercept, LAG, command};
use super::{assert_as_before, call, from_a_pod};
use crate::site::Site;
use crate::team::Team;

/// How long it may take until what was not live yet is over: what is on record is taken off.
const BROKEN_OFF: Duration = Duration::from_secs(20);
/// The same where all that was done is to wait.
const WAITED: Duration = Duration::from_secs(3);

#[test]
#[ignore = "needs the lab"]
fn its_time_is_over_or_it_is_told_to_end() {
    let team = Team::set_up("ends", true);
    let (before, orders) = (team.objects(), team.address("orders"));
    let ann = App::of("ann");
    let load = team.load("orders");
    let brief = Intercept::live(&team, &ann, &["orders", "--for", "5s"]);
    let live = Instant::now();
    std::thread::sleep(LAG);
    assert_eq!(call(&orders, &[]), ann.name);
    brief.notes("the time is over", Duration::from_secs(7));
    let lived = live.elapsed();
    println!("--for 5s: over {lived:?} after it was live");
    assert!(lived > Duration::from_millis(4500), "{lived:?}");
    brief.notes("has its own pods again", Duration::from_secs(3));
    std::thread::sleep(LAG);
    assert!(from_a_pod(&call(&orders, &[])));
    let (code, told) = brief.ended();
    assert_eq!(code, Some(0), "{told}");
    assert_as_before(&team, &before);

    let told = Intercept::live(&team, &ann, &["orders"]);
    told.signal(Signal::SIGTERM);
    told.notes("has its own pods again", Duration::from_secs(3));
    let (code, told) = told.ended();
    assert_eq!(code, Some(143), "{told}");
    load.sound();
    assert_as_before(&team, &before);
}

/// Starts it, and has it end by Ctrl-C after what is waited for. Gives its exit code, or what a shell
/// makes of the signal; how long it took to end; and what it said.
fn interrupted(mut command: Command, wait: impl FnOnce()) -> (i32, Duration, String) {
    let mut child = command.spawn().unwrap();
    wait();
    let begun = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(_) => break begun.elapsed(),
            None if begun.elapsed() > BROKEN_OFF * 3 => {
                let _ = child.kill();
                break begun.elapsed();
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let status = output.status;
    let code = status
        .code()
        .or_else(|| status.signal().map(|n| 128 + n))
        .unwrap();
    (code, ended, said)
}

#[test]
#[ignore = "needs the lab"]
fn ctrl_c_before_it_is_live_leaves_nothing() {
    let team = Team::set_up("early", true);
    let before = team.objects();
    let load = team.load("orders");
    let of = |n: u64| {
        let (owner, header) = (format!("person-{n}"), format!("x-user: {n}"));
        let args = ["orders", "--header", &header, "--to", "9"];
        let after = Duration::from_millis(50 + 350 * n);
        interrupted(command(&team, &owner, &args), || std::thread::sleep(after))
    };
    // Some before anything was done, some in the midst of it.
    let all: Vec<_> = std::thread::scope(|scope| {
        let of = &of;
        let all: Vec<_> = (0..10).map(|n| scope.spawn(move || of(n))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (code, took, said) in &all {
        let live = said.contains(r#""event":"live""#);
        println!("code {code}, over after {took:?}, told to be live: {live}");
        // One that became live as the signal came may not have said so.
        assert!(*code == 0 || *code == 130 && !live, "{code}: {said}");
        assert!(*took < BROKEN_OFF, "{took:?} {said}");
    }
    assert_as_before(&team, &before);

    // Its selector has a key that no Service had when the relay came, so that its pods are replaced first, which
    // takes long.
    team.place.site.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: late}, spec: {selector: {part: x}, ports: [{port: 80}]}}",
    );
    let before = team.objects();
    let label = ".spec.template.metadata.labels.part";
    assert_eq!(team.place.site.field("deployment/kdev-relay", label), "");
    let slow = command(&team, "ann", &["late", "--to", "9"]);
    let (code, took, said) = interrupted(slow, || {
        let begins = |site: &Site| !site.field("deployment/kdev-relay", label).is_empty();
        team.place.site.wait("the relay to be replaced", begins);
    });
    println!("while the relay is replaced: code {code}, over after {took:?}: {said}");
    assert!(!said.contains(r#""event":"live""#), "{said}");
    assert_eq!(code, 130, "{said}");
    assert!(took < WAITED, "{took:?} {said}");
    team.place.site.await_relays(2);
    let services = |objects: Vec<serde_json::Value>| -> Vec<serde_json::Value> {
        let is_one = |object: &serde_json::Value| object["kind"] == "Service";
        objects.into_iter().filter(is_one).collect()
    };
    assert_eq!(services(team.objects()), services(before));
    load.sound();
}
