//! What callers noticed of a fault, with times measured from it.

use std::time::Duration;

use super::app::App;
use super::beside::{now, with};
use super::faults::{ANNS, ANSWERED, pause};
use super::session::{Intercept, LAG};
use super::{call, from_a_pod};
use crate::callers::{Call, Calls, Load, Manner, PLAIN};
use crate::team::Team;

/// Callers that are not the owner's, and have looked at a kept connection before they use it, as pools of
/// connections do: a worker that dies takes its connections along, and that is no failed request yet.
pub(super) const POOLED: [Manner; 2] = {
    let [fresh, kept] = PLAIN;
    [
        fresh,
        Manner {
            looks: true,
            ..kept
        },
    ]
};
/// The owner's callers.
pub(super) const ANN: Manner = with("ann", &[("x-user", "ann")]);
/// How long a matching request may go elsewhere after the way is there again.
pub(super) const BACK: Duration = Duration::from_secs(10);

/// A team, somebody's intercept of their own requests, and callers who came after it.
pub(super) struct Stage {
    pub(super) team: Team,
    pub(super) ann: App,
    pub(super) live: Intercept,
    pub(super) load: Load,
}

impl Stage {
    pub(super) fn set_up(what: &str, unmatched: [Manner; 2]) -> Self {
        let team = Team::set_up(what, true);
        let ann = App::of("ann");
        let live = Intercept::live(&team, &ann, &["orders", "--header", ANNS]);
        Self::watch(team, ann, live, unmatched)
    }

    /// With an intercept that is live.
    pub(super) fn watch(team: Team, ann: App, live: Intercept, unmatched: [Manner; 2]) -> Self {
        std::thread::sleep(LAG);
        let [fresh, kept] = unmatched;
        let load = team.load_of("orders", &[fresh, kept, ANN]);
        pause(3);
        Self {
            team,
            ann,
            live,
            load,
        }
    }

    /// The intercept ends, then the calls do.
    pub(super) fn end(self) -> Past {
        let Self {
            team,
            ann,
            live,
            load,
        } = self;
        let until = now();
        live.end();
        pause(1);
        let calls = load.stop();
        Past {
            team,
            ann,
            calls,
            until,
        }
    }

    /// Waits until a matching request reaches the laptop, and says how long that took.
    pub(super) fn comes(&self, what: &str) -> f64 {
        let (orders, begun) = (self.team.address("orders"), now());
        while call(&orders, &["-H", ANNS]) != self.ann.name {
            let waited = now() - begun;
            let limit = BACK.as_secs_f64();
            assert!(waited < limit, "{what}: {}", self.live.told());
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{what}: at the laptop after {:.2} s", now() - begun);
        now()
    }
}

/// A fault, and until when it may be noticed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) at: f64,
    pub(super) over: f64,
}

impl Fault {
    /// One that may be noticed until `seconds` from now at most.
    pub(super) fn now(what: &'static str, seconds: f64) -> Self {
        let at = now();
        let over = at + seconds;
        Self { what, at, over }
    }

    pub(super) fn touches(&self, call: &Call) -> bool {
        call.begun < self.over && call.begun + call.took > self.at
    }

    /// What those noticed of it who are not the owner's.
    pub(super) fn noticed(&self, calls: &Calls) -> Noticed {
        let touched: Vec<_> = others(calls).filter(|call| self.touches(call)).collect();
        let failed: Vec<_> = touched.iter().filter(|call| !is_served(call)).collect();
        let last = failed.iter().map(|call| call.begun).reduce(f64::max);
        let slowest = touched.iter().map(|call| call.took).reduce(f64::max);
        let noticed = Noticed {
            failed: failed.len(),
            gap: last.map_or(0.0, |last| (last - self.at).max(0.0)),
        };
        println!(
            "{}: {} of {} failed, the last one begun {:.2} s after; the slowest took {:.2} s",
            self.what,
            noticed.failed,
            touched.len(),
            noticed.gap,
            slowest.unwrap_or_default()
        );
        for call in failed.iter().take(3) {
            println!("    {:+.2} s: {call:?}", call.begun - self.at);
        }
        noticed
    }
}

/// Calls that are not the owner's, around a fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noticed {
    pub(super) failed: usize,
    /// From the fault to the last call that was made and failed, in seconds.
    pub(super) gap: f64,
}

/// Whether a pod has answered, as they do without an intercept.
fn is_served(call: &Call) -> bool {
    call.status == 200 && from_a_pod(&call.answer)
}

fn others(calls: &Calls) -> impl Iterator<Item = &Call> {
    calls.0.iter().filter(|call| call.manner != ANN.name)
}

/// Nobody else's calls failed but those that `faults` touched.
pub(super) fn assert_others_served(calls: &Calls, faults: &[Fault]) {
    let mut count = 0;
    for call in others(calls) {
        let touched = || faults.iter().any(|fault| fault.touches(call));
        assert!(is_served(call) || touched(), "{call:?} {faults:?}");
        count += 1;
    }
    assert!(count > 500, "{count}");
}

/// What is left of a [`Stage`]: all calls.
pub(super) struct Past {
    pub(super) team: Team,
    pub(super) ann: App,
    pub(super) calls: Calls,
    /// When the intercept was about to end.
    until: f64,
}

impl Past {
    /// The owner's calls that were answered before the end.
    pub(super) fn owners(&self) -> impl Iterator<Item = &Call> {
        let until = self.until;
        let own = self.calls.of(ANN.name);
        own.filter(move |call| call.begun + call.took < until)
    }

    /// The owner's calls reached the laptop but where `faults` touched them; those were answered all the
    /// same, if not always by it, and soon enough.
    pub(super) fn assert_matched(&self, faults: &[Fault]) {
        let (mut there, mut passed) = (0, 0);
        for call in self.owners() {
            let at_the_laptop = call.status == 200 && call.answer == self.ann.name;
            let touched = faults.iter().any(|fault| fault.touches(call));
            let answered = is_served(call) || matches!(call.status, 502 | 503);
            assert!(at_the_laptop || touched && answered, "{call:?} {faults:?}");
            assert!(call.took < ANSWERED, "{call:?}");
            there += usize::from(at_the_laptop);
            passed += usize::from(is_served(call));
        }
        println!("the owner's: {there} at the laptop, {passed} at the pods");
        assert!(there > 50, "{there}");
    }
}
