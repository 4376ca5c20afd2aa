//! Regular expressions of claims: what one request costs that carries a header of 4 KiB, against
//! `regex-lite`, which decided about it before.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Uri};
use kdev::rule::{Condition, Conditions, Head, RuleSet};

/// Expressions that a request is tried against.
const COUNTS: [usize; 4] = [1, 128, 480, 1000];
/// Bytes of the header.
const VALUE: usize = 4090;
/// How often each is measured; the fastest counts, as nothing but the processor is measured.
const ROUNDS: usize = 20;
/// How long one thing is measured at most.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes the expression with this number.
type Numbered = fn(usize) -> String;

/// What people write, and what somebody careless or hostile does.
const KINDS: [(&str, Numbered); 3] = [
    ("`user-N-.*`", |n| format!("user-{n}-.*")),
    ("`.*fooN.*`", |n| format!(".*foo{n}.*")),
    ("`(?:[a-y]{0,9})*ZN`", |n| format!("(?:[a-y]{{0,9}})*Z{n}")),
];

fn main() {
    let value = "a".repeat(VALUE);
    let mut headers = HeaderMap::new();
    headers.insert("x-h", value.parse().unwrap());
    let (method, uri) = (Method::GET, Uri::from_static("/"));
    let head = Head {
        method: &method,
        uri: &uri,
        headers: &headers,
    };
    println!("| expressions | | regex-lite, µs | kdev, µs | ratio |");
    println!("|---|---:|---:|---:|---:|");
    for (name, pattern) in KINDS {
        let before: Vec<_> = (0..1000)
            .map(|n| regex_lite::Regex::new(&format!("^(?:{})$", pattern(n))).unwrap())
            .collect();
        let rules = (0..1000).map(|n| {
            let condition = Condition::header(&format!("x-h~={}", pattern(n))).unwrap();
            (Conditions::new(vec![condition]).unwrap(), n as u64, n)
        });
        let rules: Vec<_> = rules.collect();
        for count in COUNTS {
            let set = RuleSet::new(rules[..count].to_vec());
            let lite = fastest(|| {
                black_box(before[..count].iter().position(|one| one.is_match(&value)));
            });
            let kdev = fastest(|| {
                black_box(set.pick(&head));
            });
            println!(
                "| {name} | {count} | {lite:.1} | {kdev:.2} | {:.5} |",
                kdev / lite
            );
        }
    }
}

/// The fastest of some runs, in microseconds.
fn fastest(run: impl Fn()) -> f64 {
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let one = Instant::now();
        run();
        best = best.min(one.elapsed().as_secs_f64() * 1e6);
        if begun.elapsed() > LIMIT {
            break;
        }
    }
    best
}
