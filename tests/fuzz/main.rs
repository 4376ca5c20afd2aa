//! Fuzzing on the stable toolchain: seeded inputs, mutated, against everything that parses a
//! peer's bytes. A few hundred inputs in each test run; `KDEV_FUZZ_SECONDS=60` goes on for so
//! long per target, from a seed of its own that a failure prints.

#![allow(clippy::unwrap_used, missing_docs)]

mod dns;
mod http;
mod socks;
mod spdy;
mod websocket;

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Inputs per target where `KDEV_FUZZ_SECONDS` does not say more.
const INPUTS: usize = 400;
/// Longest input. Longer ones find no other code, only the limits, which have tests of their own.
const MAX_INPUT: usize = 4096;

/// Panics so far, wherever they were: one in a task of its own ends only that task.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Calls `check` with `seeds` and with what becomes of them.
pub(crate) fn fuzz(name: &str, seeds: &[&[u8]], mut check: impl FnMut(&[u8], &mut Random)) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
    });
    let seconds = std::env::var("KDEV_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let seed = until.map_or(1, |_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 | 1
    });
    let mut random = Random(seed);
    let mut inputs = 0;
    for n in 0.. {
        if until.map_or(n >= INPUTS, |until| Instant::now() >= until) {
            break;
        }
        let mut input = match seeds.get(n) {
            Some(seed) => seed.to_vec(),
            None => random.mutate(seeds),
        };
        input.truncate(MAX_INPUT);
        let shown = Shown { name, seed, input };
        check(&shown.input, &mut random);
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked");
        inputs += 1;
    }
    println!("{name}: {inputs} inputs from seed {seed}");
}

/// Prints the input that a failure came from.
struct Shown<'a> {
    name: &'a str,
    seed: u64,
    input: Vec<u8>,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}: seed {}, input: {}",
                self.name,
                self.seed,
                self.input.escape_ascii()
            );
        }
    }
}

/// A xorshift generator: the same inputs from the same seed on every machine.
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, or 0 where that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    fn mutate(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(input.len());
            match self.below(8) {
                0 => input.truncate(at),
                1 if at < input.len() => input[at] ^= 1 << self.below(8),
                2 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => input.insert(at, self.below(256) as u8),
                4 if at < input.len() => {
                    input.remove(at);
                }
                // A part of it twice: repeated fields, lengths that lie.
                5 => {
                    let end = at + self.below(input.len() - at);
                    let part = input[at..end].to_vec();
                    input.splice(at..at, part);
                }
                // The rest of another seed.
                6 => {
                    let other = seeds[self.below(seeds.len())];
                    input.truncate(at);
                    input.extend(&other[self.below(other.len())..]);
                }
                _ => {
                    let run = vec![self.below(256) as u8; self.below(300)];
                    input.splice(at..at, run);
                }
            }
        }
        input
    }
}
