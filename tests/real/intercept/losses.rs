//! Pods of the relay that go, with somebody's kdev there or not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::app::App;
use super::beside::now;
use super::call;
use super::faults::{ANNS, ANSWERED, pause};
use super::noticed::{Fault, POOLED, Stage, assert_others_served};
use super::session::Intercept;
use super::workers::{Frozen, processes};
use crate::callers::Call;
use crate::lab;
use crate::site::Site;
use crate::team::Team;

/// How long another relay pod may take until it is ready, in seconds: 3 in a quiet cluster, and a node that
/// is busy takes twice that.
const STARTED: f64 = 8.0;
/// How long nodes may take to learn of it, in seconds.
const LEARNED: f64 = 2.0;
/// How long they may notice that none comes again, in seconds: kdev waits for one for 3 s, and the nodes
/// learn of the Service's change within 2.
const NONE: f64 = 6.0;
/// How long an eviction may have to wait for another pod.
const EVICTED: Duration = Duration::from_secs(60);
/// What `kubectl drain` pauses is 5 s; the sooner, the harder for the budget.
const EVICT_AGAIN: Duration = Duration::from_millis(200);

/// Evicts a pod as a drain of its node does: again and again while a budget refuses it. Gives how often
/// it did.
fn evict(site: &Site, pod: &str) -> usize {
    let version = if lab::kube() >= 22 {
        "policy/v1"
    } else {
        "policy/v1beta1"
    };
    let eviction = json!({
        "apiVersion": version, "kind": "Eviction",
        "metadata": {"name": pod, "namespace": site.0},
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), eviction.to_string()).unwrap();
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", site.0);
    let create = [
        "create",
        "--raw",
        &path,
        "-f",
        file.path().to_str().unwrap(),
    ];
    let (begun, mut refused) = (Instant::now(), 0);
    while let Err(why) = lab::kubectl(&create) {
        assert!(why.contains("disruption budget"), "{why}");
        assert!(begun.elapsed() < EVICTED, "{why}");
        refused += 1;
        std::thread::sleep(EVICT_AGAIN);
    }
    println!(
        "{pod} evicted after {:?}, refused {refused} times",
        begun.elapsed()
    );
    refused
}

#[test]
#[ignore = "needs the lab"]
fn a_drain_fails_nothing() {
    if lab::leaves_out_long() {
        return;
    }
    let stage = Stage::set_up("drain", POOLED);
    let site = &stage.team.place.site;
    let pods = site.await_relays(2);
    let mut fault = Fault::now("drain", 0.0);
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for pod in &pods {
            let refused = &refused;
            scope.spawn(move || refused.fetch_add(evict(site, pod), Ordering::Relaxed));
        }
    });
    let refused = refused.into_inner();
    assert!(refused > 0, "the budget refused nothing");
    site.wait("other relay pods", |site| {
        let now = site.relays();
        now.len() == 2 && now.iter().all(|pod| !pods.contains(pod))
    });
    // The old ones take callers for 10 s and go on with those they have for 15.
    pause(16);
    fault.over = stage.comes("drained");
    pause(2);
    let past = stage.end();
    fault.noticed(&past.calls);
    assert_others_served(&past.calls, &[]);
    past.assert_matched(&[fault]);
}

/// Deletes all pods of the relay at once, and gives until when that may be noticed.
fn replace_both(site: &Site, what: &'static str, flags: &[&str]) -> Fault {
    let old = site.await_relays(2);
    let mut fault = Fault::now(what, 0.0);
    delete(site, &old, flags);
    site.wait("another relay pod", |site| {
        let now = site.relays();
        now.iter().any(|pod| !old.contains(pod))
    });
    let ready = now();
    println!("{what}: one is ready after {:.2} s", ready - fault.at);
    assert!(ready - fault.at < STARTED, "{what}");
    fault.over = ready + LEARNED;
    fault
}

fn delete(site: &Site, pods: &[String], flags: &[&str]) {
    let mut delete = vec!["delete", "pod", "--wait=false"];
    delete.extend(flags);
    delete.extend(pods.iter().map(String::as_str));
    site.kubectl(&delete).unwrap();
}

/// Deletes a pod of the relay, and waits until there are two others.
fn replace(site: &Site, pod: &String) {
    delete(site, std::slice::from_ref(pod), &[]);
    site.wait("another relay pod", |site| {
        let now = site.relays();
        now.len() == 2 && !now.contains(pod)
    });
}

#[test]
#[ignore = "needs the lab"]
fn without_any_kdev_other_relay_pods_pass_all_on() {
    if lab::leaves_out_long() {
        return;
    }
    let stage = Stage::set_up("orphans", POOLED);
    let Stage {
        team,
        ann,
        live,
        load,
    } = stage;
    let killed = now();
    live.kill();
    pause(1);
    let site = &team.place.site;
    let mut one_by_one = Fault::now("one by one", 0.0);
    for pod in &site.await_relays(2) {
        replace(site, pod);
    }
    pause(12);
    one_by_one.over = now();
    let both = replace_both(site, "both at once", &[]);
    pause(14);
    let by_force = replace_both(site, "both by force", &["--force", "--grace-period=0"]);
    pause(14);
    let calls = load.stop();
    assert_eq!(one_by_one.noticed(&calls).failed, 0);
    let faults = [both, by_force];
    for fault in faults {
        fault.noticed(&calls);
    }
    assert_others_served(&calls, &faults);
    // Nobody in the cluster knows of the intercept by now, and pods answer.
    for call in calls.of("ann").filter(|call| call.begun > killed) {
        let touched = faults.iter().any(|fault| fault.touches(call));
        assert!(
            touched || matches!(call.status, 200 | 502 | 503),
            "{call:?}"
        );
        assert!(touched || call.took < ANSWERED, "{call:?}");
    }
    let last = calls.of("ann").last().unwrap();
    assert!(last.answer.starts_with("orders-"), "{last:?}");
    drop(ann);
    let mut restore = team.place.command(&["restore", "--force"]);
    crate::program::finish(&mut restore, b"").ok();
    assert_eq!(selector(&team), r#"{"app":"orders"}"#);
}

fn selector(team: &Team) -> String {
    team.place.site.field("service/orders", ".spec.selector")
}

fn scale(team: &Team, replicas: &str) {
    let scale = [
        "scale",
        "deployment/kdev-relay",
        &format!("--replicas={replicas}"),
    ];
    team.place.site.kubectl(&scale).unwrap();
}

/// Waits until the intercept said `text` in a note.
fn said(live: &Intercept, text: &str) {
    let begun = Instant::now();
    let has = |note: &serde_json::Value| note["text"].as_str().unwrap_or_default().contains(text);
    while !live.events("note").iter().any(has) {
        assert!(begun.elapsed() < EVICTED, "{}", live.told());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_kdev_without_a_relay_gives_the_service_back_until_there_is_one() {
    if lab::leaves_out_long() {
        return;
    }
    let stage = Stage::set_up("gone", POOLED);
    let (team, live) = (&stage.team, &stage.live);
    // Somebody whose kdev is dead has a claim too, which is kept for when they come back.
    let bob = App::of("bob");
    Intercept::live(team, &bob, &["orders", "--header", "x-user: bob"]).kill();
    let mut faults = Vec::new();
    let mut away = Vec::new();

    let mut absent = Fault::now("no relay", NONE);
    faults.push(absent);
    scale(team, "0");
    said(live, "no replica of the relay is ready");
    println!("given back after {:.2} s", now() - absent.at);
    assert_eq!(selector(team), r#"{"app":"orders"}"#, "{}", live.told());
    pause(10);
    let back = Instant::now();
    scale(team, "2");
    team.place.site.await_relays(2);
    println!("two replicas after {:?}", back.elapsed());
    absent.over = stage.comes("a relay again");
    away.push(absent);
    assert_eq!(selector(team), r#"{"app":"kdev-relay"}"#, "{}", live.told());
    pause(5);

    // Those that do not answer are none either, and cannot be asked to let go.
    let frozen: Vec<_> = processes(team).iter().map(|[_, worker]| *worker).collect();
    let mut both = Fault::now("both frozen", NONE + 4.0);
    faults.push(both);
    let frozen = Frozen::new(&frozen);
    let before = live.events("note").len();
    let begun = Instant::now();
    while selector(team) != r#"{"app":"orders"}"# {
        assert!(begun.elapsed() < EVICTED, "{}", live.told());
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("given back after {:?}", begun.elapsed());
    pause(6);
    assert!(live.events("note").len() > before, "{}", live.told());
    drop(frozen);
    team.place.site.await_relays(2);
    both.over = stage.comes("thawed");
    away.push(both);
    pause(3);

    println!("{}", stage.live.told());
    let past = stage.end();
    assert!(call(&past.team.address("orders"), &["-H", ANNS]).starts_with("orders-"));
    for fault in &faults {
        fault.noticed(&past.calls);
    }
    assert_others_served(&past.calls, &faults);
    let elsewhere = |call: &&Call| call.answer != past.ann.name;
    for call in past.owners().filter(elsewhere) {
        assert!(away.iter().any(|fault| fault.touches(call)), "{call:?}");
    }
}
