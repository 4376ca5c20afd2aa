//! Workers of the relay that die or freeze.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::beside::now;
use super::faults::{ANNS, ANSWERED, pause};
use super::noticed::{ANN, Fault, POOLED, Stage, assert_others_served};
use super::session::Intercept;
use crate::callers::{Calls, Manner, PLAIN};
use crate::hostile::pod::Pod;
use crate::team::Team;

/// What may fail when workers are killed: what they had in hand. Who comes before there are others waits.
const IN_HAND: usize = 2;
/// How long a killed worker may be noticed, in seconds.
const KILLED: f64 = 2.0;
/// How long it may take until a frozen worker's pod is not ready, in seconds: it is asked once in a second,
/// has one to answer, and must fail twice. A busy kubelet is late.
const FROZEN: f64 = 6.0;
/// How long nodes may take to learn of it, in seconds.
const LEARNED: f64 = 2.0;

/// Processes of the relay's pods: the supervisor, then its worker.
pub(super) fn processes(team: &Team) -> Vec<[Pid; 2]> {
    let site = &team.place.site;
    let of = |pod: &String| {
        let all = Pod::find(&site.0, pod).processes();
        let [supervisor, worker] = all[..] else {
            panic!("{pod}: {all:?}")
        };
        [supervisor, worker].map(|pid| Pid::from_raw(i32::try_from(pid).unwrap()))
    };
    site.await_relays(2).iter().map(of).collect()
}

/// Kills the first `count` workers at once.
fn kill_workers(team: &Team, what: &'static str, count: usize) -> Fault {
    let all = processes(team);
    let fault = Fault::now(what, KILLED);
    for [_, worker] in all.iter().take(count) {
        kill(*worker, Signal::SIGKILL).unwrap();
    }
    fault
}

fn assert_in_hand(calls: &Calls, faults: &[Fault]) {
    for fault in faults {
        let failed = fault.noticed(calls).failed;
        assert!(failed <= IN_HAND, "{}: {failed} failed", fault.what);
    }
    assert_others_served(calls, faults);
}

#[test]
#[ignore = "needs the lab"]
fn a_killed_worker_costs_what_it_had_in_hand() {
    let stage = Stage::set_up("workers", POOLED);
    let mut faults = Vec::new();
    for (what, count) in [("one worker", 1), ("both workers", 2), ("both again", 2)] {
        faults.push(kill_workers(&stage.team, what, count));
        stage.comes(what);
        // A worker that lived for less has its successor wait.
        pause(8);
    }
    // What it missed meanwhile its owner hears of.
    let unread = "went to the original pods unread, yours perhaps among them: relay started";
    stage.live.notes(unread, Duration::from_secs(1));
    let past = stage.end();
    assert_in_hand(&past.calls, &faults);
    // Until kdev has its tunnel to the new worker nobody there knows of the intercept.
    for call in past.owners() {
        let fault = faults.iter().find(|fault| fault.touches(call));
        assert!(call.answer == past.ann.name || fault.is_some(), "{call:?}");
        let in_hand = fault.is_some_and(|fault| call.begun < fault.at + 0.5);
        assert!(call.status == 200 || in_hand, "{call:?}");
    }

    // Right after a swap the nodes may not even know of it.
    let team = &past.team;
    let load = team.load_of("orders", &POOLED);
    pause(2);
    let live = Intercept::live(team, &past.ann, &["orders", "--header", ANNS]);
    let fault = kill_workers(team, "both right after a swap", 2);
    pause(6);
    live.end();
    pause(1);
    assert_in_hand(&load.stop(), &[fault]);
}

/// Continues processes when dropped, so that a scenario that fails leaves none frozen.
pub(super) struct Frozen(Vec<Pid>);

impl Frozen {
    pub(super) fn new(pids: &[Pid]) -> Self {
        pids.iter()
            .for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
        Self(pids.to_vec())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that was killed meanwhile needs no more.
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

/// Whoever waits does not call, so these do not wait for long.
const IMPATIENT: [Manner; 2] = {
    let [fresh, kept] = PLAIN;
    let patience = Duration::from_secs(2);
    [Manner { patience, ..fresh }, Manner { patience, ..kept }]
};

#[test]
#[ignore = "needs the lab"]
fn a_frozen_worker_is_left_out_once_it_does_not_answer() {
    let stage = Stage::set_up("frozen", IMPATIENT);
    let (mut faults, mut thawed) = (Vec::new(), Vec::new());
    for (what, supervised) in [("a frozen worker", true), ("and its supervisor", false)] {
        let [supervisor, worker] = processes(&stage.team)[0];
        let mut fault = Fault::now(what, 0.0);
        let frozen = match supervised {
            true => Frozen::new(&[worker]),
            false => Frozen::new(&[supervisor, worker]),
        };
        stage.team.place.site.await_relays(1);
        let noticed = now() - fault.at;
        println!("{what}: not ready after {noticed:.2} s");
        assert!(noticed < FROZEN, "{what}: {noticed:.2} s");
        std::thread::sleep(Duration::from_secs_f64(LEARNED));
        fault.over = now();
        faults.push(fault);
        let [fresh, kept] = PLAIN;
        let later = stage.team.load_of("orders", &[fresh, kept, ANN]);
        pause(8);
        let later = later.sound();
        assert!(later.of("ann").count() > 50);
        assert!(later.of("ann").all(|call| call.answer == stage.ann.name));
        let mut thaw = Fault::now("thawed", 0.0);
        drop(frozen);
        stage.team.place.site.await_relays(2);
        thaw.over = stage.comes("thawed");
        thawed.push(thaw);
        pause(4);
    }
    let past = stage.end();
    let calls = &past.calls;
    for fault in &faults {
        let noticed = fault.noticed(calls);
        assert!(noticed.failed > 0, "nothing was frozen");
    }
    assert_others_served(calls, &faults);
    // What the kernel of a frozen pod took is with that pod, whoever it is for; all others are answered.
    for call in past.owners() {
        let within = |fault: &&Fault| call.begun > fault.at - 0.5 && call.begun < fault.over;
        if let Some(fault) = faults.iter().find(within) {
            let long = call.took > ANSWERED;
            let after = call.begun - fault.at;
            if long {
                println!("{after:+.2} s: {call:?}");
            }
            continue;
        }
        let thawing = thawed.iter().any(|thaw| within(&thaw));
        let at_the_laptop = call.answer == past.ann.name;
        assert!(
            at_the_laptop || thawing && matches!(call.status, 200 | 503),
            "{call:?}"
        );
        assert!(call.took < ANSWERED, "{call:?}");
    }
}
