//! Callers of a Service, on the cluster's side of the wall.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// What is so slow that a caller would notice.
const SLOW: Duration = Duration::from_millis(500);

/// How some of the callers call.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) name: &'static str,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) threads: usize,
    /// Between two calls of one thread.
    pub(crate) pause: Duration,
    /// On one connection, or on a fresh one each time.
    pub(crate) kept: bool,
    /// Whether a kept connection is looked at before it is used again, as pools do: one that was closed
    /// meanwhile costs no call then.
    pub(crate) looks: bool,
    /// How long an answer is waited for.
    pub(crate) patience: Duration,
}

/// Callers with nothing special about them: some 180 calls in a second.
pub(crate) const PLAIN: [Manner; 2] = [plain("fresh", 6, false), plain("kept", 4, true)];

pub(crate) const fn plain(name: &'static str, threads: usize, kept: bool) -> Manner {
    Manner {
        name,
        headers: &[],
        threads,
        pause: Duration::from_millis(50),
        kept,
        looks: false,
        patience: Duration::from_secs(15),
    }
}

impl Manner {
    fn document(&self) -> Value {
        let headers: BTreeMap<_, _> = self.headers.iter().copied().collect();
        json!({"name": self.name, "headers": headers, "threads": self.threads,
               "pause": self.pause.as_secs_f64(), "kept": self.kept, "looks": self.looks,
               "patience": self.patience.as_secs_f64()})
    }
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) manner: String,
    /// Since 1970, in seconds.
    pub(crate) begun: f64,
    pub(crate) took: f64,
    /// 0 when there was no answer.
    pub(crate) status: u64,
    pub(crate) answer: String,
}

/// Callers at work.
pub(crate) struct Load(Child);

impl Load {
    pub(crate) fn start(address: &str, port: u16, manners: &[Manner]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/callers.py");
        let manners: Vec<Value> = manners.iter().map(Manner::document).collect();
        let child = on_the_node()
            .args(["python3", script, address, &port.to_string()])
            .arg(Value::from(manners).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Has them stop, and tells what came of it.
    pub(crate) fn stop(mut self) -> Calls {
        drop(self.0.stdin.take());
        let mut out = String::new();
        std::io::Read::read_to_string(self.0.stdout.as_mut().unwrap(), &mut out).unwrap();
        self.0.wait().unwrap();
        let calls = out.lines().map(|line| {
            let (manner, begun, took, status, answer) = serde_json::from_str(line).unwrap();
            Call {
                manner,
                begun,
                took,
                status,
                answer,
            }
        });
        let calls = Calls(calls.collect());
        calls.print();
        calls
    }

    /// Has them stop, and is sure that nothing failed.
    pub(crate) fn sound(self) -> Calls {
        let calls = self.stop();
        calls.assert_no_failure();
        assert!(calls.of("fresh").count() > 100 && calls.of("kept").count() > 60);
        calls
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All calls of a load.
#[derive(Default)]
pub(crate) struct Calls(pub(crate) Vec<Call>);

impl Calls {
    pub(crate) fn of(&self, manner: &str) -> impl Iterator<Item = &Call> {
        self.0.iter().filter(move |call| call.manner == manner)
    }

    pub(crate) fn slow(&self) -> Vec<&Call> {
        let slow = |call: &&Call| call.took > SLOW.as_secs_f64();
        self.0.iter().filter(slow).collect()
    }

    pub(crate) fn failures(&self) -> Vec<&Call> {
        self.0.iter().filter(|call| call.status != 200).collect()
    }

    pub(crate) fn assert_no_failure(&self) {
        let failures = self.failures();
        let first = &failures[..failures.len().min(5)];
        assert!(first.is_empty(), "{} failed: {first:#?}", failures.len());
    }

    fn print(&self) {
        let mut all: BTreeMap<(&str, u64, &str), usize> = BTreeMap::new();
        for call in &self.0 {
            *all.entry((&call.manner, call.status, &call.answer))
                .or_default() += 1;
        }
        println!("callers: {all:?}");
        let slow = self.slow();
        println!("{} slow: {:?}", slow.len(), slow.iter().take(3));
    }
}

/// A command on the cluster's side of the wall.
pub(crate) fn on_the_node() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/lab/node"))
}
