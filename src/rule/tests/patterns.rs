//! Regular expressions: what they match, and what they may cost.

use proptest::prelude::*;
use serde_json::json;

use super::super::pattern::{LONGEST_VALUE, MOST_WORK, Pattern, Work};
use super::super::{MOST_PATTERNS, MOST_PATTERNS_OF_CLAIM, MOST_PATTERNS_OF_SESSION, room};
use super::*;

/// What scans a value to its end, and finds nothing.
fn costly(number: usize) -> String {
    format!("(?:[a-y]{{0,3}})*Z{number}")
}

fn set_of(patterns: &[String]) -> RuleSet<usize> {
    let conditions = patterns.iter().map(|text| {
        let one = Condition::header(&format!("x-h~={text}")).unwrap();
        Conditions::new(vec![one]).unwrap()
    });
    RuleSet::new(conditions.zip(0..).map(|(c, n)| (c, n as u64, n)).collect())
}

/// Pieces of expressions, valid and not.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a",
        "b",
        "k",
        "é",
        "ß",
        ".",
        r"\d",
        r"\D",
        r"\w",
        r"\W",
        r"\s",
        r"\S",
        "[ab]",
        "[^a]",
        r"[^\d]",
        r"[\wé]",
        "[a-zé]",
        "[é-ß]",
        "[[:alpha:]]",
        "[[:^alpha:]_]",
        r"\b",
        r"\B",
        "^",
        "$",
        r"\A",
        r"\z",
        r"\x61",
        r"\u{e9}",
        r"\n",
        "(?i)",
        "(?-i)",
        "(?s)",
        "(?m)",
        "(?R)",
        "(?x) a ",
        "",
        r"\b{start}",
        r"\b{end-half}",
        "]",
        "-",
        "[]a]",
        "[a-]",
    ]);
    leaf.prop_map(str::to_owned)
        .prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| a + &b),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}|{b}")),
                inner.clone().prop_map(|a| format!("({a})")),
                inner.clone().prop_map(|a| format!("(?i:{a})")),
                inner.clone().prop_map(|a| format!("(?s-i:{a})")),
                (
                    inner,
                    prop::sample::select(vec!["*", "+", "?", "{0,2}", "{2}", "{1,}", "*?"])
                )
                    .prop_map(|(a, times)| format!("(?:{a}){times}")),
            ]
        })
}

proptest! {
    /// Conditions that people wrote go on meaning what they did.
    #[test]
    fn what_matches_is_what_regex_lite_matches(
        text in expression(),
        values in prop::collection::vec("[a-cA-CkK1 _éßÉKſ\n\r-]{0,6}", 8),
    ) {
        let before = regex_lite::Regex::new(&text)
            .and_then(|_| regex_lite::Regex::new(&format!("^(?:{text})$")));
        if let Ok(before) = before && !text.is_empty() {
            let now = Pattern::new(&text);
            let now = now.unwrap_or_else(|error| panic!("{text:?}: {error}"));
            for value in &values {
                prop_assert_eq!(
                    now.matches_text(value), before.is_match(value), "{:?} {:?}", text, value
                );
            }
        }
    }
}

#[test]
fn what_is_no_expression_says_why() {
    for (text, word) in [
        (r"\pL", "Unicode classes"),
        ("[\\p{Greek}]", "Unicode classes"),
        ("(?u)a", "flag u"),
        ("[a&&b]", "not supported"),
        ("(?=a)", "look-around"),
        (r"(a)\1", "backreferences"),
        ("(a", "unclosed"),
        ("a{2,1}", "range"),
        ("*", "repetition"),
        (&format!("{}a{}", "(".repeat(99), ")".repeat(99)), "nest"),
    ] {
        let error = Pattern::new(text).unwrap_err().to_string();
        assert!(error.contains("not a regular expression"), "{error}");
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn what_would_take_too_much_is_refused_when_it_is_made() {
    for usual in [
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        r".*foo.*bar.*",
        r"\w+@\w+\.(com|org|net)",
        r"(?i)(?:.*;\s*)?user=(ann|bob|carla|dieter|egon)(?:;.*)?",
        r"/api/v[0-9]+/(users|orders|items)/[^/]+(/.*)?",
        r".*(session|sid|token)=([0-9a-f]{32}|[0-9a-z]{26})(;.*)?",
        r".{0,200}x",
        r"\w{1,256}",
    ] {
        let made = Pattern::new(usual).unwrap();
        assert!(made.memory() < 129 << 10, "{usual}: {}", made.memory());
    }
    for large in [
        r"(a|b)*a(a|b){12}",
        r"(?:[a-y]{0,200})*Z1",
        r".*(a|b|c).{6}(d|e|f).{6}",
        r"(((.{1,50}){1,50}){1,50}){1,50}",
        r".*a.{100}b",
    ] {
        let error = Pattern::new(large).unwrap_err().to_string();
        assert!(error.contains("more than 128 KiB"), "{error}");
        assert!(error.contains("count less far"), "{error}");
    }
}

#[test]
fn a_value_is_looked_at_once_and_only_up_to_a_length() {
    let costly = Pattern::new(&costly(1)).unwrap();
    let work = Work::of_request();
    assert!(!costly.matches(&[b'a'; 100], &work));
    assert_eq!(work.done(), 100);
    // What cannot match any more is not looked at to its end.
    assert!(!Pattern::new("bob.*").unwrap().matches(&[b'a'; 100], &work));
    assert_eq!(work.done(), 101);

    let all = Pattern::new("a*").unwrap();
    assert!(all.matches(&[b'a'; LONGEST_VALUE], &Work::of_request()));
    assert!(!all.matches(&[b'a'; LONGEST_VALUE + 1], &Work::of_request()));
    // Nor when it stands in several lines.
    let half = "a".repeat(LONGEST_VALUE / 2);
    let lines = [("x-h", &*half); 3];
    let condition = Condition::header("x-h~=[a, ]*").unwrap();
    assert!(condition.holds(&Sent::new("GET", "/", &lines[..1]).head()));
    assert!(!condition.holds(&Sent::new("GET", "/", &lines).head()));
    // Bytes that are no text match nothing.
    assert!(
        !Pattern::new(".*")
            .unwrap()
            .matches(b"\xff", &Work::of_request())
    );
    assert!(
        !Pattern::new("(?s).")
            .unwrap()
            .matches(b"\xc3", &Work::of_request())
    );
}

#[test]
fn a_request_costs_a_bounded_number_of_steps_whatever_is_claimed() {
    let value = "a".repeat(LONGEST_VALUE);
    let sent = Sent::new("GET", "/", &[("x-h", &value)]);
    let patterns = |count: usize| (0..count).map(costly).collect::<Vec<_>>();
    // As many as may be cost all that there is.
    let work = Work::of_request();
    let set = set_of(&patterns(MOST_PATTERNS));
    assert_eq!(set.pick_within(&sent.head(), &work), None);
    assert_eq!(work.done(), MOST_WORK);
    // More than may be cost no more.
    let work = Work::of_request();
    let set = set_of(&patterns(1000));
    assert_eq!(set.pick_within(&sent.head(), &work), None);
    assert_eq!(work.done(), MOST_WORK);
    // Usual ones are done with after a few bytes.
    let work = Work::of_request();
    let names: Vec<_> = (0..1000).map(|n| format!("user-{n}-.*")).collect();
    let set = set_of(&names);
    assert_eq!(set.pick_within(&sent.head(), &work), None);
    assert_eq!(work.done(), 1000);
    let named = Sent::new("GET", "/", &[("x-h", "user-999-eu")]);
    assert_eq!(set.pick(&named.head()), Some(&999));
    // Of those with something else to look up only its own is tried.
    let looked_up = (0..500).map(|n| {
        let one = Condition::header(&format!("x-user: {n}")).unwrap();
        let two = Condition::header(&format!("x-h~={}", costly(n))).unwrap();
        (Conditions::new(vec![one, two]).unwrap(), 0, n)
    });
    let set = RuleSet::new(looked_up.collect());
    let both = Sent::new("GET", "/", &[("x-h", &value), ("x-user", "7")]);
    let work = Work::of_request();
    assert_eq!(set.pick_within(&both.head(), &work), None);
    assert_eq!(work.done(), LONGEST_VALUE);
}

#[test]
fn patterns_have_room_for_each_session_and_for_all() {
    let by = |session: u8, id: usize, count: usize, more: &[&str]| {
        let patterns = (0..count).map(|n| format!("--header x{n}~=.*{id}"));
        let flags: Vec<_> = patterns
            .chain(more.iter().map(|s| (*s).to_owned()))
            .collect();
        let mut one = claim(&format!("{session}-{id}"), &[]);
        one.conditions = conditions(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        one.session = SessionId([session; 16]);
        one
    };
    let full = MOST_PATTERNS_OF_CLAIM;
    let of_session = MOST_PATTERNS_OF_SESSION / full;
    let mut all: Vec<Claim> = Vec::new();
    for session in 0..(MOST_PATTERNS / MOST_PATTERNS_OF_SESSION) as u8 {
        for id in 0..of_session {
            let one = by(session, id, full, &[]);
            room(&one, &all).unwrap();
            all.push(one);
        }
        let why = room(&by(session, 99, 1, &[]), &all)
            .unwrap_err()
            .to_string();
        assert!(why.contains("33 of this kdev's"), "{why}");
        assert!(why.contains("--mine"), "{why}");
    }
    let why = room(&by(77, 0, 1, &[]), &all).unwrap_err().to_string();
    assert!(why.contains("129 of all people's"), "{why}");
    // What is looked up first is not tried for each request; again is not once more.
    room(&by(77, 0, full, &["--mine me"]), &all).unwrap();
    room(&by(77, 0, 0, &["--method GET"]), &all).unwrap();
    room(&all[0].clone(), &all).unwrap();
}

#[test]
fn what_is_too_much_is_refused_before_it_is_compiled() {
    let broken = |count: usize| {
        let when = vec![json!({"header-regex": ["x", "("]}); count];
        let mut one = serde_json::to_value(claim("a", &["--method GET"])).unwrap();
        one["when"] = json!(when);
        serde_json::from_value::<Claim>(one)
            .unwrap_err()
            .to_string()
    };
    assert!(broken(1).contains("not a regular expression"));
    let many = broken(MOST_PATTERNS_OF_CLAIM + 1);
    assert!(
        many.contains("9 regular expressions are more than the 8"),
        "{many}"
    );
    assert!(broken(3000).contains("3000 conditions are more than 16"));
}
