//! What holds for all conditions and all requests.

use proptest::prelude::*;

use super::*;

/// Few values, so that what is made meets.
fn any_condition() -> impl Strategy<Value = Condition> {
    let path = || prop::sample::select(vec!["/", "/a", "/a/b", "/ab", "/a/b/c", "/b"]);
    let value = || prop::sample::select(vec!["1", "2", "12", "kdev=1", "kdev=2,a=1"]);
    let name = || prop::sample::select(vec!["x", "x-kdev", "baggage", "y"]);
    let regex = || prop::sample::select(vec![".*", "1.*", ".*2", "/a.*", "/a/.*", "1|2", "/."]);
    prop_oneof![
        (name(), value()).prop_map(|(n, v)| Condition::header(&format!("{n}: {v}"))),
        (name(), regex()).prop_map(|(n, r)| Condition::header(&format!("{n}~={r}"))),
        path().prop_map(Condition::path),
        path().prop_map(Condition::path_prefix),
        regex().prop_map(Condition::path_regex),
        prop::sample::select(vec!["GET", "POST"]).prop_map(Condition::method),
        ("[ak]|kdev", "[12]").prop_map(|(k, v)| Condition::baggage(&format!("{k}={v}"))),
        "[12]".prop_map(|v| Condition::mine(&v)),
    ]
    .prop_map(Result::unwrap)
}

fn any_conditions() -> impl Strategy<Value = Conditions> {
    prop::collection::vec(any_condition(), 0..4)
        .prop_filter_map("no request fulfils them", |all| Conditions::new(all).ok())
}

fn any_request() -> impl Strategy<Value = Sent> {
    let method = prop::sample::select(vec!["GET", "POST", "PUT"]);
    let path = prop::sample::select(vec![
        "/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/b", "/a?x",
    ]);
    let name = prop::sample::select(vec!["x", "x-kdev", "baggage", "y", "host"]);
    let value = prop::sample::select(vec![
        "1",
        "2",
        "12",
        "kdev=1",
        "kdev=2,a=1",
        "kdev=2",
        "k=1",
    ]);
    let lines = prop::collection::vec((name, value), 0..5);
    (method, path, lines).prop_map(|(method, path, lines)| Sent::new(method, path, &lines))
}

proptest! {
    #[test]
    fn what_a_relation_says_is_so_for_every_request(
        a in any_conditions(),
        b in any_conditions(),
        sent in prop::collection::vec(any_request(), 60),
    ) {
        let relation = a.relation(&b);
        for sent in &sent {
            let (of_a, of_b) = (a.hold(&sent.head()), b.hold(&sent.head()));
            prop_assert!(match relation {
                Relation::Equal => of_a == of_b,
                Relation::Subset => !of_a || of_b,
                Relation::Superset => of_a || !of_b,
                Relation::Disjoint => !(of_a && of_b),
                Relation::Overlap => true,
            }, "{a}; {b}; {relation:?}; {sent:?}");
        }
        let reverse = match relation {
            Relation::Subset => Relation::Superset,
            Relation::Superset => Relation::Subset,
            same => same,
        };
        prop_assert_eq!(b.relation(&a), reverse);
    }

    #[test]
    fn a_rule_set_picks_what_trying_all_would(
        rules in prop::collection::vec((any_conditions(), 0..5_u64), 0..12),
        sent in prop::collection::vec(any_request(), 20),
    ) {
        let rules: Vec<_> = rules.into_iter().zip(0..).map(|((c, since), n)| (c, since, n)).collect();
        let set = RuleSet::new(rules.clone());
        for sent in &sent {
            let head = sent.head();
            let mut all: Vec<_> = rules.iter().filter(|(c, ..)| c.hold(&head)).collect();
            all.sort_by_key(|(c, since, n)| (usize::MAX - c.len(), *since, *n));
            prop_assert_eq!(set.pick(&head), all.first().map(|(_, _, n)| n));
            let mut found = Vec::new();
            set.each(&head, |n| found.push(*n));
            found.sort_unstable();
            let mut expected: Vec<_> = all.iter().map(|(_, _, n)| *n).collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn json_and_what_is_shown_say_the_same(conditions in any_conditions()) {
        let text = serde_json::to_string(&conditions).unwrap();
        let back: Conditions = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back.to_string(), conditions.to_string());
        prop_assert_eq!(back, conditions);
    }

    #[test]
    fn nothing_that_is_written_makes_it_panic(text in "\\PC{0,40}", other in ".{0,40}") {
        for text in [text, other] {
            for make in [
                Condition::header, Condition::path, Condition::path_prefix, Condition::path_regex,
                Condition::method, Condition::baggage, Condition::mine,
            ] {
                if let Ok(condition) = make(&text) {
                    let _ = condition.holds(&Sent::new("GET", "/a", &[("x", "1")]).head());
                }
            }
            let _ = serde_json::from_str::<Claim>(&text);
        }
    }
}
