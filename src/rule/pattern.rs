//! Regular expressions over a whole value.

use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;

use super::{Invalid, LONGEST_TEXT, MOST_PATTERNS, syntax};

/// Bytes of an automaton: a thousand states and more, where the usual expression has some dozens.
/// What counts far after a wildcard needs more.
const LARGEST: usize = 128 << 10;
/// Bytes of the steps that lead to it, and of the sets of them that its states stand for. They bound
/// the time that it takes, to some tens of milliseconds.
const LARGEST_STEPS: usize = 256 << 10;
const LARGEST_SETS: usize = 128 << 10;
/// Longest value that is looked at; nothing longer matches.
pub(super) const LONGEST_VALUE: usize = 4096;
/// Bytes that the patterns of a port look at for one request, together: what as many as there may
/// be that are tried for each request take of the longest value, so that these always have it. One
/// byte takes 1.6 ns.
pub(super) const MOST_WORK: usize = MOST_PATTERNS * LONGEST_VALUE;

/// What examples are made of, what is preferred first.
const EXAMPLES: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ/-_.=";

/// A regular expression that must match a value from its beginning to its end: no look-around, no
/// back-references, classes of ASCII. It is compiled to the end when it is made, so a value costs
/// one step for each byte, whatever it is.
#[derive(Clone)]
pub(super) struct Pattern(Arc<Compiled>);

struct Compiled {
    text: String,
    automaton: dense::DFA<Vec<u32>>,
    start: StateID,
}

/// What patterns may still look at for a request.
pub(super) struct Work(Cell<usize>);

impl Work {
    pub(super) fn of_request() -> Self {
        Self(Cell::new(MOST_WORK))
    }

    /// Bytes that were looked at.
    #[cfg(test)]
    pub(super) fn done(&self) -> usize {
        MOST_WORK - self.0.get()
    }
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("the regular expression is empty"));
        }
        if text.len() > LONGEST_TEXT {
            return Err(Invalid(format!(
                "the regular expression has {} bytes, more than {LONGEST_TEXT}",
                text.len()
            )));
        }
        let hir = syntax::whole(text);
        let hir =
            hir.map_err(|why| Invalid(format!("{text:?} is not a regular expression: {why}")))?;
        let too_large = || {
            Invalid(format!(
                "the regular expression {text:?} needs an automaton of more than {} KiB: count \
                 less far, or leave out what follows a wildcard",
                LARGEST >> 10
            ))
        };
        // Whether a value is UTF-8 is asked beside it.
        let steps = thompson::Config::new()
            .utf8(false)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(LARGEST_STEPS));
        let nfa = thompson::Compiler::new()
            .configure(steps)
            .build_from_hir(&hir)
            .map_err(|_| too_large())?;
        let states = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .accelerate(false)
            .dfa_size_limit(Some(LARGEST))
            .determinize_size_limit(Some(LARGEST_SETS));
        let automaton = dense::Builder::new()
            .configure(states)
            .build_from_nfa(&nfa)
            .map_err(|_| too_large())?;
        let begin = start::Config::new().anchored(Anchored::Yes);
        let start = automaton.start_state(&begin).map_err(|_| too_large())?;
        Ok(Self(Arc::new(Compiled {
            text: text.to_owned(),
            automaton,
            start,
        })))
    }

    /// Whether it matches, as far as there is `work` left.
    pub(super) fn matches(&self, value: &[u8], work: &Work) -> bool {
        value.len() <= LONGEST_VALUE
            && value.len() <= work.0.get()
            && self.0.accepts(value, work)
            && std::str::from_utf8(value).is_ok()
    }

    /// As [`matches`](Self::matches), of a value that is no request's.
    pub(super) fn matches_text(&self, value: &str) -> bool {
        self.matches(value.as_bytes(), &Work::of_request())
    }

    /// The shortest text that begins with `begin` and matches, of letters, digits and a few marks that
    /// stand for themselves wherever a request is written; none where there is none of these.
    pub(super) fn example(&self, begin: &str) -> Option<String> {
        let automaton = &self.0.automaton;
        let mut first = self.0.start;
        for byte in begin.bytes() {
            first = automaton.next_state(first, byte);
        }
        let mut seen = HashSet::from([first]);
        let mut next = VecDeque::from([(first, begin.to_owned())]);
        // Each state once, of which there are some thousands at most.
        while let Some((state, text)) = next.pop_front() {
            if !text.is_empty() && automaton.is_match_state(automaton.next_eoi_state(state)) {
                return Some(text).filter(|text| self.matches_text(text));
            }
            for letter in EXAMPLES {
                let after = automaton.next_state(state, *letter);
                if !automaton.is_dead_state(after) && seen.insert(after) {
                    next.push_back((after, format!("{text}{}", char::from(*letter))));
                }
            }
        }
        None
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Compiled>() + self.0.text.len() + self.0.automaton.memory_usage()
    }
}

impl Compiled {
    fn accepts(&self, value: &[u8], work: &Work) -> bool {
        let mut state = self.start;
        for (place, byte) in value.iter().enumerate() {
            state = self.automaton.next_state(state, *byte);
            if self.automaton.is_dead_state(state) {
                work.0.set(work.0.get() - place - 1);
                return false;
            }
        }
        work.0.set(work.0.get() - value.len());
        let end = self.automaton.next_eoi_state(state);
        self.automaton.is_match_state(end)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
