//! Whether one reaches another, as all policies together have it.

use super::party::Party;
use super::spec::{Policy, Rule};

/// Whether one reaches another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Nothing keeps it from there.
    Open,
    /// The policies that isolate one of both, none of which has a rule that lets it pass.
    Shut(Direction, Vec<&'a Policy>),
}

/// Whose policies these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Those of whoever connects.
    Egress,
    /// Those of whoever is connected to.
    Ingress,
}

/// Whether `from` reaches TCP port `port` of `to`, which is another one: no policy keeps a pod from
/// itself.
#[must_use]
pub fn reaches<'a>(policies: &'a [Policy], from: &Party, to: &Party, port: u16) -> Verdict<'a> {
    let egress = passes(
        policies,
        from,
        to,
        |policy| policy.egress.as_ref(),
        to,
        port,
    );
    if let Some(shut) = egress {
        return Verdict::Shut(Direction::Egress, shut);
    }
    let ingress = passes(
        policies,
        to,
        from,
        |policy| policy.ingress.as_ref(),
        to,
        port,
    );
    match ingress {
        Some(shut) => Verdict::Shut(Direction::Ingress, shut),
        None => Verdict::Open,
    }
}

/// The policies that isolate `subject` where none of them lets `peer` pass.
fn passes<'a>(
    policies: &'a [Policy],
    subject: &Party,
    peer: &Party,
    rules: fn(&Policy) -> Option<&Vec<Rule>>,
    to: &Party,
    port: u16,
) -> Option<Vec<&'a Policy>> {
    let isolating = policies
        .iter()
        .filter(|policy| rules(policy).is_some() && policy.selects(subject));
    let isolating: Vec<&Policy> = isolating.collect();
    let lets = |policy: &&Policy| {
        let mut all = rules(policy).into_iter().flatten();
        all.any(|rule| rule.allows(&policy.namespace, peer, to, port))
    };
    match isolating.is_empty() || isolating.iter().any(lets) {
        true => None,
        false => Some(isolating),
    }
}

impl Verdict<'_> {
    /// Whether it does.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Verdict::Open
    }
}
