//! Finds the rule of a request among many.

use std::collections::HashMap;
use std::hash::Hash;

use http::HeaderName;

use super::condition::{Condition, Kind, begins_with, mine_header};
use super::pattern::Work;
use super::{Conditions, Head, MINE_BAGGAGE, baggage};

/// The rules of one port, in their order: more conditions first, then the older.
///
/// A rule stands where the condition is looked up that it shares with the fewest others (exact
/// header, `--mine`, baggage, exact path, path prefix), so a thousand of these cost what one does.
/// Those with nothing but regular expressions and methods are tried one after the other; what all
/// regular expressions may cost for one request is bounded, and [`super::room`] sees to it that
/// those which are always tried stay within.
#[derive(Debug)]
pub struct RuleSet<T> {
    rules: Vec<Rule<T>>,
    headers: HashMap<HeaderName, Places<Box<[u8]>>>,
    mine: Places<Box<str>>,
    baggage: HashMap<Box<str>, Places<Box<str>>>,
    paths: Places<Box<str>>,
    prefixes: Places<Box<str>>,
    /// The lengths that prefixes have, each once.
    lengths: Vec<usize>,
    others: Vec<u32>,
}

/// Which rules a value leads to, in their order.
type Places<K> = HashMap<K, Vec<u32>>;

#[derive(Debug)]
struct Rule<T> {
    conditions: Conditions,
    value: T,
}

impl<T> Default for RuleSet<T> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<T> RuleSet<T> {
    /// Rules with their age, in milliseconds since 1970, and what they lead to.
    #[must_use]
    pub fn new(mut all: Vec<(Conditions, u64, T)>) -> Self {
        all.sort_by_key(|(conditions, since, _)| (usize::MAX - conditions.len(), *since));
        let mut set = Self {
            rules: Vec::with_capacity(all.len()),
            headers: HashMap::new(),
            mine: HashMap::new(),
            baggage: HashMap::new(),
            paths: HashMap::new(),
            prefixes: HashMap::new(),
            lengths: Vec::new(),
            others: Vec::new(),
        };
        let mut shared: HashMap<String, u32> = HashMap::new();
        for condition in all.iter().flat_map(|(conditions, ..)| conditions.iter()) {
            *shared.entry(condition.to_string()).or_default() += 1;
        }
        for (place, (conditions, _, value)) in (0..).zip(all) {
            let known = conditions
                .iter()
                .filter(|condition| condition.0.is_looked_up());
            let by = known.min_by_key(|condition| shared[&condition.to_string()]);
            set.place(place, by);
            set.rules.push(Rule { conditions, value });
        }
        set.lengths = set.prefixes.keys().map(|prefix| prefix.len()).collect();
        set.lengths.sort_unstable();
        set.lengths.dedup();
        set
    }

    /// Puts a rule where one of its conditions leads.
    fn place(&mut self, place: u32, by: Option<&Condition>) {
        let key = |text: &String| text.as_str().into();
        match by.map(|condition| &condition.0) {
            Some(Kind::Header(name, value)) => {
                let values = self.headers.entry(name.clone()).or_default();
                let places = values.entry(value.as_bytes().into()).or_default();
                places.push(place);
            }
            Some(Kind::Mine(value)) => self.mine.entry(key(value)).or_default().push(place),
            Some(Kind::Baggage(name, value)) => {
                let values = self.baggage.entry(key(name)).or_default();
                values.entry(key(value)).or_default().push(place);
            }
            Some(Kind::Path(path)) => self.paths.entry(key(path)).or_default().push(place),
            Some(Kind::PathPrefix(prefix)) => {
                self.prefixes.entry(key(prefix)).or_default().push(place);
            }
            _ => self.others.push(place),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// What the rules lead to, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.rules.iter().map(|rule| &rule.value)
    }

    /// What the rule without conditions leads to, if there is one.
    #[must_use]
    pub fn everything(&self) -> Option<&T> {
        let last = self.rules.last()?;
        last.conditions.is_everything().then_some(&last.value)
    }

    /// Where a request goes: the first rule, in their order, all of whose conditions hold.
    #[must_use]
    pub fn pick(&self, head: &Head<'_>) -> Option<&T> {
        self.pick_within(head, &Work::of_request())
    }

    pub(super) fn pick_within(&self, head: &Head<'_>, work: &Work) -> Option<&T> {
        let mut best = u32::MAX;
        self.candidates(head, |places| {
            let before = places.iter().take_while(|place| **place < best);
            let found = before.copied().find(|place| self.holds(*place, head, work));
            best = found.unwrap_or(best);
        });
        self.rules.get(best as usize).map(|rule| &rule.value)
    }

    /// All rules that hold for a request, in no order.
    pub fn each<'a>(&'a self, head: &Head<'_>, mut found: impl FnMut(&'a T)) {
        let work = Work::of_request();
        self.candidates(head, |places| {
            for place in places
                .iter()
                .filter(|place| self.holds(**place, head, &work))
            {
                found(&self.rules[*place as usize].value);
            }
        });
    }

    fn holds(&self, place: u32, head: &Head<'_>, work: &Work) -> bool {
        self.rules[place as usize]
            .conditions
            .hold_within(head, work)
    }

    /// The rules that stand where a condition holds, or might.
    fn candidates<'a>(&'a self, head: &Head<'_>, mut found: impl FnMut(&'a [u32])) {
        self.by_header(head, &mut found);
        if !self.mine.is_empty() {
            let header = head.value(&mine_header());
            let value = match &header {
                Some(value) => std::str::from_utf8(value).ok().map(Into::into),
                None => baggage::value(head.headers, MINE_BAGGAGE),
            };
            take(&self.mine, value.as_deref(), &mut found);
        }
        self.by_baggage(head, &mut found);
        let path = head.path();
        take(&self.paths, Some(path), &mut found);
        for length in self
            .lengths
            .iter()
            .take_while(|length| **length <= path.len())
        {
            let prefix = path
                .get(..*length)
                .filter(|prefix| begins_with(path, prefix));
            take(&self.prefixes, prefix, &mut found);
        }
        if !self.others.is_empty() {
            found(&self.others);
        }
    }

    fn by_header<'a>(&'a self, head: &Head<'_>, found: &mut impl FnMut(&'a [u32])) {
        let mut look = |name: &HeaderName, values: &'a Places<Box<[u8]>>| {
            take(values, head.value(name).as_deref(), found);
        };
        // Whichever are fewer. The host may stand elsewhere than among the headers.
        if self.headers.len() <= head.headers.keys_len() {
            for (name, values) in &self.headers {
                look(name, values);
            }
        } else {
            let host = http::header::HOST;
            let implied = (!head.headers.contains_key(&host)).then_some(&host);
            for name in head.headers.keys().chain(implied) {
                if let Some(values) = self.headers.get(name) {
                    look(name, values);
                }
            }
        }
    }

    fn by_baggage<'a>(&'a self, head: &Head<'_>, found: &mut impl FnMut(&'a [u32])) {
        if self.baggage.is_empty() {
            return;
        }
        let mut seen: Vec<&str> = Vec::new();
        for (key, value) in baggage::members(head.headers) {
            if let Some(values) = self.baggage.get(key)
                // Only the last one of a name counts, which comes first here.
                && !seen.contains(&key)
            {
                seen.push(key);
                take(values, Some(&*value), found);
            }
        }
    }
}

fn take<'a, K, Q>(places: &'a Places<K>, key: Option<&Q>, found: &mut impl FnMut(&'a [u32]))
where
    K: std::borrow::Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(key) = key
        && !places.is_empty()
        && let Some(list) = places.get(key)
    {
        found(list);
    }
}
