//! A claim as it is kept in the cluster, and who is in whose way there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::claim::{Claim, Judge, Verdict};
use crate::rule;

/// Where the number of the Service's port stands, beside what the relay gets of the claim.
const PORT: &str = "port";
/// Where the claim's conditions stand.
const CONDITIONS: &str = "when";

/// What is put on record of `claim` on the Service's port `port`.
///
/// # Panics
/// Never: a claim is a map with texts as keys.
#[must_use]
pub fn record(port: u16, claim: &rule::Claim) -> Claim {
    let mut rule = match serde_json::to_value(claim) {
        Ok(Value::Object(rule)) => rule,
        _ => serde_json::Map::new(),
    };
    rule.remove("id");
    rule.remove("owner");
    rule.insert(PORT.to_owned(), json!(port));
    Claim {
        id: claim.id.clone(),
        owner: claim.owner.clone(),
        rule,
    }
}

/// The Service's port and the claim that are on record.
///
/// # Errors
/// Why it is none that this version understands.
pub fn recorded(claim: &Claim) -> Result<(u16, rule::Claim), String> {
    let mut rule = claim.rule.clone();
    let port = rule.remove(PORT);
    let port = port.and_then(|port| u16::try_from(port.as_u64()?).ok());
    let port = port.ok_or("it says no port")?;
    rule.insert("id".to_owned(), json!(claim.id));
    rule.insert("owner".to_owned(), json!(claim.owner));
    let claim = serde_json::from_value(Value::Object(rule));
    claim
        .map(|claim| (port, claim))
        .map_err(|error| error.to_string())
}

/// The Service's port and the value of `--mine` that are on record, where that is one of the claim's
/// conditions. Cheap: patterns are not compiled.
#[must_use]
pub fn mine(claim: &Claim) -> Option<(u16, &str)> {
    let port = u16::try_from(claim.rule.get(PORT)?.as_u64()?).ok()?;
    Some((port, rule::mine_of(claim.rule.get(CONDITIONS)?)?))
}

/// How the kdev of a claim is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// The relay does not know it, and its kdev has no tunnel: it was killed, or broken off.
    Dead,
    /// The relay does not know it any more.
    Gone,
    /// The relay does not know it yet: it is on record since a moment ago.
    Beginning,
    /// It has no tunnel at the moment.
    Silent,
    /// It has one.
    Live,
}

impl Life {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dead | Self::Gone => "gone",
            Self::Beginning => "beginning",
            Self::Silent => "silent",
            Self::Live => "live",
        }
    }
}

/// How long a claim may be on record before the relay knows it, in milliseconds: what is looked at
/// before a Service is changed takes some seconds.
const BEGINNING: u64 = 30_000;

impl Life {
    /// That of a claim which the relay does not know, at `now` in milliseconds since 1970. One of a
    /// laptop whose clock is far off is not known to begin.
    #[must_use]
    pub fn unknown(claim: &rule::Claim, now: u64) -> Self {
        match claim.since.abs_diff(now) < BEGINNING {
            true => Self::Beginning,
            false => Self::Gone,
        }
    }
}

/// Judges whether `claim` may join others on the Service's port `port`, where it is known of some
/// how they do (by id). With `take_over`, what is in its way goes.
pub fn judge(
    port: u16,
    claim: rule::Claim,
    lives: BTreeMap<String, Life>,
    take_over: bool,
) -> Judge {
    std::sync::Arc::new(move |others, _| {
        let (mut goes, mut beside) = (Vec::new(), Vec::new());
        for other in others {
            let (theirs, known) = match recorded(other) {
                Ok((theirs, known)) => (theirs, known),
                Err(_) if take_over => {
                    goes.push(other.id.clone());
                    continue;
                }
                Err(why) => {
                    return Verdict::Conflict(format!(
                        "claim {} of {} on it is of another version of kdev ({why}); `kdev \
                         upgrade` or --take-over",
                        other.id, other.owner
                    ));
                }
            };
            if theirs != port {
                continue;
            }
            if claim.verdict(&known) != rule::Verdict::Conflicts {
                beside.push(known);
                continue;
            }
            let unknown = || Life::unknown(&known, claim.since);
            let life = lives.get(&other.id).copied().unwrap_or_else(unknown);
            if take_over || is_ghost(&claim, &known, life) {
                goes.push(other.id.clone());
                continue;
            }
            return Verdict::Conflict(conflict(&claim, &known, life));
        }
        if let Err(invalid) = rule::room(&claim, &beside) {
            return Verdict::Conflict(invalid.to_string());
        }
        match goes.is_empty() {
            true => Verdict::Admitted,
            false => Verdict::InPlaceOf(goes),
        }
    })
}

/// Whether `there` is what a former kdev of the same owner left behind: nobody needs permission to
/// clean up after themselves.
fn is_ghost(claim: &rule::Claim, there: &rule::Claim, life: Life) -> bool {
    let gone = match life {
        Life::Dead | Life::Silent | Life::Gone => true,
        Life::Beginning | Life::Live => false,
    };
    claim.owner == there.owner && gone
}

fn conflict(claim: &rule::Claim, there: &rule::Claim, life: Life) -> String {
    let rule::Claim {
        id,
        owner,
        conditions,
        ..
    } = there;
    let whose = match *owner == claim.owner {
        true => "you have".to_owned(),
        false => format!("{owner} has"),
    };
    format!(
        "{whose} {conditions} of it already (claim {id}, {}); other conditions, --take-over, or \
         `kdev leave {id}{}`",
        life.name(),
        if *owner == claim.owner {
            ""
        } else {
            " --force"
        }
    )
}

/// Claims on the same port that a request may fulfil as well, for whoever makes `claim`.
pub fn overlapping(port: u16, claim: &rule::Claim, others: &[Claim]) -> Vec<rule::Claim> {
    let others = others.iter().filter_map(|other| recorded(other).ok());
    let overlapping = others.filter(|(theirs, other)| {
        *theirs == port && other.id != claim.id && claim.verdict(other) == rule::Verdict::Overlaps
    });
    overlapping.map(|(_, other)| other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{AppProtocol, Condition, Conditions};
    use crate::tunnel::Identity;

    fn claim(id: &str, owner: &str, since: u64, headers: &[&str]) -> rule::Claim {
        let conditions = headers.iter().map(|text| Condition::header(text).unwrap());
        rule::Claim {
            id: id.to_owned(),
            owner: owner.to_owned(),
            session: Identity::random().session(),
            conditions: Conditions::new(conditions.collect()).unwrap(),
            since,
            mirror: false,
            fallback: false,
            strict: false,
            protocol: AppProtocol::Auto,
        }
    }

    fn verdict(mine: &rule::Claim, there: &rule::Claim, life: Option<Life>, over: bool) -> Verdict {
        let lives = life.map(|life| (there.id.clone(), life));
        let judge = judge(80, mine.clone(), lives.into_iter().collect(), over);
        judge(&[record(80, there)], &record(80, mine))
    }

    #[test]
    fn what_is_on_record_comes_back() {
        let one = claim("a", "ada", 7, &["x-user: ada", "x-n~=[0-9]+"]);
        let text = serde_json::to_string(&record(8080, &one)).unwrap();
        let read: Claim = serde_json::from_str(&text).unwrap();
        assert_eq!(recorded(&read), Ok((8080, one)));
    }

    #[test]
    fn whose_requests_it_is_about_is_seen_at_a_glance() {
        let mut hers = claim("a", "ada", 7, &[]);
        assert_eq!(mine(&record(8080, &hers)), None);
        hers.conditions = Conditions::new(vec![Condition::mine("ada").unwrap()]).unwrap();
        assert_eq!(mine(&record(8080, &hers)), Some((8080, "ada")));
    }

    #[test]
    fn a_newer_record_is_in_the_way_until_it_is_taken_over() {
        let mine = claim("a", "ada", 7, &["x: 1"]);
        let mut newer = record(80, &claim("b", "bob", 1, &["x: 2"]));
        newer.rule.insert("phase-of-moon".into(), json!("new"));
        let decide = |over| judge(80, mine.clone(), BTreeMap::new(), over);
        let refused = decide(false)(std::slice::from_ref(&newer), &record(80, &mine));
        assert!(matches!(refused, Verdict::Conflict(why) if why.contains("bob")));
        let taken = decide(true)(&[newer], &record(80, &mine));
        assert_eq!(taken, Verdict::InPlaceOf(vec!["b".into()]));
    }

    #[test]
    fn only_what_is_in_the_way_and_alive_is_refused() {
        let mine = claim("a", "ada", 100_000, &["x: 1"]);
        let bobs = claim("b", "bob", 1, &["x: 1"]);
        let why = verdict(&mine, &bobs, Some(Life::Live), false);
        assert!(
            matches!(&why, Verdict::Conflict(why) if why.contains("bob") && why.contains("x: 1")),
            "{why:?}"
        );
        // Somebody else's stays also while they are away.
        let why = verdict(&mine, &bobs, Some(Life::Silent), false);
        assert!(matches!(why, Verdict::Conflict(_)));
        let over = verdict(&mine, &bobs, Some(Life::Live), true);
        assert_eq!(over, Verdict::InPlaceOf(vec!["b".into()]));
        let apart = claim("c", "bob", 1, &["x: 2"]);
        assert_eq!(verdict(&mine, &apart, None, false), Verdict::Admitted);
    }

    #[test]
    fn ones_own_ghost_goes_and_ones_own_beginning_stays() {
        let mine = claim("a", "ada", 100_000, &["x: 1"]);
        let old = claim("b", "ada", 1, &["x: 1"]);
        let goes = Verdict::InPlaceOf(vec!["b".into()]);
        assert_eq!(verdict(&mine, &old, Some(Life::Silent), false), goes);
        assert_eq!(verdict(&mine, &old, None, false), goes);
        let live = verdict(&mine, &old, Some(Life::Live), false);
        assert!(matches!(live, Verdict::Conflict(why) if why.contains("you have")));
        let beginning = claim("b", "ada", 99_000, &["x: 1"]);
        let waits = verdict(&mine, &beginning, None, false);
        assert!(matches!(waits, Verdict::Conflict(why) if why.contains("beginning")));
        // Unless its kdev is known to be no more.
        assert_eq!(verdict(&mine, &beginning, Some(Life::Dead), false), goes);
        // Of two who begin at one instant the other one has won, and is not gone.
        let winner = claim("b", "bob", 100_500, &["x: 1"]);
        let lost = verdict(&mine, &winner, None, false);
        assert!(
            matches!(&lost, Verdict::Conflict(why) if why.contains("(claim b, beginning)")),
            "{lost:?}"
        );
        let bobs = claim("b", "bob", 99_000, &["x: 1"]);
        let stays = verdict(&mine, &bobs, Some(Life::Dead), false);
        assert!(matches!(stays, Verdict::Conflict(_)));
    }

    #[test]
    fn patterns_without_room_are_refused_before_anything_is_changed() {
        let eight = |id: usize| {
            let headers: Vec<_> = (0..8).map(|n| format!("x{n}~=.*{id}")).collect();
            let headers: Vec<_> = headers.iter().map(String::as_str).collect();
            claim(&format!("c{id}"), "bob", 1, &headers)
        };
        let full: Vec<_> = (0..16).map(|id| record(80, &eight(id))).collect();
        let mine = claim("a", "ada", 9, &["x-user~=a.*"]);
        let decide = |others: &[Claim]| {
            let judge = judge(80, mine.clone(), BTreeMap::new(), false);
            judge(others, &record(80, &mine))
        };
        let why = decide(&full);
        assert!(
            matches!(&why, Verdict::Conflict(why) if why.contains("regular expressions")),
            "{why:?}"
        );
        assert_eq!(decide(&full[1..]), Verdict::Admitted);
    }

    #[test]
    fn another_port_is_another_matter() {
        let (mine, theirs) = (claim("a", "ada", 9, &[]), claim("b", "bob", 1, &[]));
        let judge = judge(80, mine.clone(), BTreeMap::new(), false);
        let admitted = judge(&[record(81, &theirs)], &record(80, &mine));
        assert_eq!(admitted, Verdict::Admitted);
        let both = claim("c", "cy", 1, &["y: 1"]);
        let found = overlapping(80, &claim("a", "ada", 9, &["x: 1"]), &[record(80, &both)]);
        assert_eq!(found, [both]);
    }
}
