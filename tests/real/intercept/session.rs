//! `kdev intercept`, as one of several people runs it.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::app::App;
use crate::program::Running;
use crate::team::Team;

/// How long it may take until an intercept is live, or refused. A dozen debug builds that start at once on
/// two cores need some of it.
const LIVE_LIMIT: Duration = Duration::from_secs(60);
/// How long Ctrl-C may take on a busy machine: until the Service has its own pods again, and requests that
/// are under way have had their moment.
const END_LIMIT: Duration = Duration::from_secs(8);
/// The same where others end it: the cluster waits 5 s before it deletes what is in a namespace, begins with the pods,
/// and kdev gives the relay's another 3 s to come back.
const OVER_LIMIT: Duration = Duration::from_secs(20);
/// How long other nodes may lag behind what kdev saw.
pub(super) const LAG: Duration = Duration::from_secs(1);

/// A live intercept; killed when dropped.
pub(super) struct Intercept {
    running: Running,
    pub(super) live: Value,
}

/// A refused one: the exit code, and what it said.
pub(super) type Refused = (Option<i32>, String);

/// `kdev intercept` for `owner`.
pub(super) fn command(team: &Team, owner: &str, args: &[&str]) -> Command {
    let mut command = team.place.command(&["intercept", "--json"]);
    command.env("KDEV_OWNER", owner).args(args);
    command
}

impl Intercept {
    /// To `app`; must become live.
    pub(super) fn live(team: &Team, app: &App, args: &[&str]) -> Self {
        Self::live_by(team, app, args)
    }

    pub(super) fn live_by(team: &Team, app: &App, args: &[&str]) -> Self {
        let to = app.port.to_string();
        let args = [args, &["--to", &to]].concat();
        let begun = Instant::now();
        match Self::attempt(&mut command(team, &app.owner, &args)) {
            Ok(live) => {
                println!("{args:?} live after {:?}", begun.elapsed());
                live
            }
            Err(refused) => panic!("{args:?}: {refused:?}"),
        }
    }

    pub(super) fn attempt(command: &mut Command) -> Result<Self, Refused> {
        let mut running = Running::spawn(command);
        let begun = Instant::now();
        loop {
            let mut printed = running.printed().into_iter();
            if let Some(live) = printed.find(|event| event["event"] == "live") {
                return Ok(Self { running, live });
            }
            if let Some(code) = running.ended() {
                return Err((code, running.said()));
            }
            assert!(begun.elapsed() < LIVE_LIMIT, "{}", running.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it told of one kind so far.
    pub(super) fn events(&self, kind: &str) -> Vec<Value> {
        let mut events = self.running.printed();
        events.retain(|event| event["event"] == kind);
        events
    }

    /// The last request that it told of: the first is told a moment after it was answered.
    pub(super) fn request(&self) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(request) = self.events("request").pop() {
                return request;
            }
            assert!(begun.elapsed() < END_LIMIT, "{}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that it told besides requests, to look into a failure.
    pub(super) fn told(&self) -> String {
        let mut events = self.running.printed();
        events.retain(|event| event["event"] != "request");
        format!("{events:?} {}", self.running.said())
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Ends it as Ctrl-C does: at once, whoever still comes by way of the relay.
    pub(super) fn end(self) {
        let begun = Instant::now();
        self.running.interrupt(0, END_LIMIT);
        println!("ended after {:?}", begun.elapsed());
    }

    /// Ends it in no order at all.
    pub(super) fn kill(self) {
        self.signal(Signal::SIGKILL);
    }

    /// Waits until it has ended by itself, and gives the exit code and all that it told.
    pub(super) fn ended(mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        loop {
            if let Some(code) = self.running.ended() {
                return (code, self.told());
            }
            assert!(begun.elapsed() < END_LIMIT, "{}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it notes something with these words.
    pub(super) fn notes(&self, words: &str, limit: Duration) {
        let begun = Instant::now();
        let is_it = |event: &Value| event["text"].as_str().unwrap_or_default().contains(words);
        while !self.events("note").iter().any(is_it) {
            assert!(begun.elapsed() < limit, "no {words:?}: {}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has ended because of somebody else, and tells why it says it has.
    pub(super) fn over(mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        loop {
            if let Some(code) = self.running.ended() {
                let ended = self.events("ended");
                assert_eq!(ended.len(), 1, "{}", self.told());
                return (code, ended[0]["reason"].as_str().unwrap().to_owned());
            }
            assert!(begun.elapsed() < OVER_LIMIT, "{}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
