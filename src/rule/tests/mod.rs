mod patterns;
mod properties;

use http::{HeaderMap, HeaderName, Method, Uri};

use super::control::{Ask, Tell};
use super::*;
use crate::tunnel::SessionId;

/// A condition as the command line has it.
fn flag(text: &str) -> Result<Condition, Invalid> {
    let (flag, value) = text.split_once(' ').unwrap();
    match flag {
        "--header" => Condition::header(value),
        "--path" => Condition::path(value),
        "--path-prefix" => Condition::path_prefix(value),
        "--path-regex" => Condition::path_regex(value),
        "--method" => Condition::method(value),
        "--baggage" => Condition::baggage(value),
        "--mine" => Condition::mine(value),
        _ => panic!("{flag}"),
    }
}

fn conditions(flags: &[&str]) -> Conditions {
    Conditions::new(flags.iter().map(|text| flag(text).unwrap()).collect()).unwrap()
}

/// A request's head.
#[derive(Clone, Debug)]
struct Sent(Method, Uri, HeaderMap);

impl Sent {
    fn new(method: &str, uri: &str, lines: &[(&str, &str)]) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Self(method.parse().unwrap(), uri.parse().unwrap(), headers)
    }

    fn head(&self) -> Head<'_> {
        Head {
            method: &self.0,
            uri: &self.1,
            headers: &self.2,
        }
    }
}

#[test]
fn conditions_hold_or_do_not() {
    let get = |path: &str, lines: &[(&str, &str)]| Sent::new("GET", path, lines);
    for (text, sent, holds) in [
        ("--header X-User: me", get("/", &[("x-user", "me")]), true),
        ("--header x-user:me", get("/", &[("X-User", "me")]), true),
        ("--header x-user: me", get("/", &[("x-user", "Me")]), false),
        ("--header x-user: me", get("/", &[("x-user", "me2")]), false),
        ("--header x-user: me", get("/", &[]), false),
        // Two lines are one value.
        (
            "--header x-user: me",
            get("/", &[("x-user", "me"), ("x-user", "you")]),
            false,
        ),
        (
            "--header x-user: me, you",
            get("/", &[("x-user", "me"), ("x-user", "you")]),
            true,
        ),
        (
            "--header x-user~=.*\\bme\\b.*",
            get("/", &[("x-user", "a"), ("x-user", "me")]),
            true,
        ),
        (
            "--header cookie~=(.*; )?u=1(;.*)?",
            get("/", &[("cookie", "a=2"), ("cookie", "u=1")]),
            true,
        ),
        ("--header x-user~=m.", get("/", &[("x-user", "me")]), true),
        ("--header x-user~=m", get("/", &[("x-user", "me")]), false),
        ("--header x-user~=a|me", get("/", &[("x-user", "me")]), true),
        ("--header x-user~=a|m", get("/", &[("x-user", "me")]), false),
        (
            "--header x-user~=(?i)ME",
            get("/", &[("x-user", "me")]),
            true,
        ),
        ("--header x-user~=.*", get("/", &[("x-user", "")]), true),
        ("--header x-user~=.*", get("/", &[]), false),
        (
            "--header host: web.shop",
            get("http://web.shop/x", &[]),
            true,
        ),
        (
            "--header host: web.shop",
            get("/x", &[("host", "web.shop")]),
            true,
        ),
        ("--path /api", get("/api?x=1", &[]), true),
        ("--path /api", get("/api/", &[]), false),
        ("--path /a%20b", get("/a%20b", &[]), true),
        ("--path-prefix /api", get("/api", &[]), true),
        ("--path-prefix /api/", get("/api", &[]), true),
        ("--path-prefix /api", get("/api/v1?x", &[]), true),
        ("--path-prefix /api", get("/apis", &[]), false),
        ("--path-prefix /", get("/any", &[]), true),
        ("--path-regex /v[12]/.*", get("/v1/x?y", &[]), true),
        ("--path-regex /v[12]", get("/v1/x", &[]), false),
        ("--method get", get("/", &[]), true),
        ("--method POST", get("/", &[]), false),
        (
            "--baggage user=Jörg B",
            get("/", &[("baggage", "a=1,user=J%C3%B6rg%20B;p=1")]),
            true,
        ),
        (
            "--baggage user=me",
            get("/", &[("baggage", "user=me,user=you")]),
            false,
        ),
        ("--mine me", get("/", &[("x-kdev", "me")]), true),
        ("--mine me", get("/", &[("baggage", "kdev=me")]), true),
        // The header decides where there is one, so that nobody's requests are two people's.
        (
            "--mine me",
            get("/", &[("x-kdev", "you"), ("baggage", "kdev=me")]),
            false,
        ),
        ("--mine me", get("/", &[]), false),
    ] {
        assert_eq!(
            flag(text).unwrap().holds(&sent.head()),
            holds,
            "{text} {sent:?}"
        );
        let set = RuleSet::new(vec![(conditions(&[text]), 0, ())]);
        assert_eq!(set.pick(&sent.head()).is_some(), holds, "{text} {sent:?}");
    }
    let long = "a".repeat(5000);
    let sent = get("/", &[("x-user", &long)]);
    assert!(!flag("--header x-user~=a*").unwrap().holds(&sent.head()));
}

#[test]
fn what_is_no_condition_is_refused_with_the_reason() {
    let long = "x".repeat(300);
    for (text, word) in [
        ("--header x-user=me", "'NAME: VALUE'"),
        ("--header : me", "is empty"),
        ("--header x-user:", "is empty"),
        ("--header x user: me", "cannot be the name"),
        ("--header x-user: m\u{7}e", "printable ASCII"),
        ("--header x-user: mé", "printable ASCII"),
        ("--header x-user~=", "is empty"),
        ("--header x-user~=(", "not a regular expression"),
        ("--header x-user~=a)|(b", "not a regular expression"),
        ("--header x-user~=(?=a)b", "not a regular expression"),
        ("--header x-user~=((a{100}){100}){100}", "more than 128 KiB"),
        (&format!("--header x: {long}"), "more than 256"),
        (&format!("--path-regex {long}"), "more than 256"),
        ("--path api", "begins with /"),
        ("--path /api?x=1", "cannot stand in one"),
        ("--path /a b", "cannot stand in one"),
        ("--path-prefix api", "begins with /"),
        ("--method G T", "is no method"),
        ("--method ", "is empty"),
        ("--baggage kdev", "NAME=VALUE"),
        ("--baggage k v=x", "cannot be the name"),
        ("--baggage k=", "is empty"),
        ("--mine a b", "printable ASCII"),
    ] {
        let error = flag(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
    let both = ["--method GET", "--method POST"].map(|text| flag(text).unwrap());
    let error = Conditions::new(both.to_vec()).unwrap_err().to_string();
    assert!(
        error.contains("both --method GET and --method POST"),
        "{error}"
    );
    let many = (0..17).map(|n| Condition::header(&format!("x-{n}: 1")).unwrap());
    assert!(Conditions::new(many.collect()).is_err());
    let large = (0..6).map(|n| Condition::header(&format!("x-{n}: {}", "v".repeat(200))).unwrap());
    assert!(Conditions::new(large.collect()).is_err());
}

#[test]
fn conditions_are_shown_as_they_are_written() {
    let all = conditions(&[
        "--method get",
        "--path-prefix /api/",
        "--header X-User:  it's me",
        "--header x-user~=it.*",
        "--header x-user~=it.*",
        "--baggage team=a",
    ]);
    let shown = r"--header 'x-user: it'\''s me' --baggage team=a --path-prefix /api --method GET --header 'x-user~=it.*'";
    assert_eq!(all.to_string(), shown);
    assert_eq!(Conditions::everything().to_string(), "all requests");
    assert_eq!(conditions(&["--mine me"]).to_string(), "--mine (me)");
}

fn claim(id: &str, flags: &[&str]) -> Claim {
    Claim {
        id: id.to_owned(),
        owner: "ann@laptop".to_owned(),
        session: SessionId([7; 16]),
        conditions: conditions(flags),
        since: 1_764_000_000_000,
        mirror: false,
        fallback: false,
        strict: false,
        protocol: AppProtocol::Auto,
    }
}

#[test]
fn a_claim_is_small_and_comes_back_from_json() {
    let mut one = claim(
        "k3fz9q2m",
        &["--header x-user: margret", "--path-prefix /api/v1"],
    );
    let text = serde_json::to_string(&one).unwrap();
    assert!(text.len() <= 246, "{} {text}", text.len());
    assert_eq!(serde_json::from_str::<Claim>(&text).unwrap(), one);
    one.conditions = conditions(&[
        "--header x~=a.c",
        "--mine me",
        "--baggage k=ü",
        "--path /x",
        "--path-regex /x",
        "--method PUT",
        "--path-prefix /",
    ]);
    (one.mirror, one.fallback, one.protocol) = (true, true, AppProtocol::Grpc);
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Claim>(&text).unwrap(), one);
    assert!(one.check().is_ok());
    for (id, owner) in [("", "ann"), ("a b", "ann"), ("a", ""), ("a", "ann\n")] {
        let odd = Claim {
            id: id.to_owned(),
            owner: owner.to_owned(),
            ..one.clone()
        };
        assert!(odd.check().is_err());
    }
    let strict = Claim {
        strict: true,
        ..one.clone()
    };
    assert!(strict.check().is_err());
    let strict = Claim {
        mirror: false,
        fallback: false,
        ..strict
    };
    assert!(strict.check().is_ok());
    let text = serde_json::to_string(&strict).unwrap();
    assert_eq!(serde_json::from_str::<Claim>(&text).unwrap(), strict);
}

#[test]
fn a_line_of_curl_says_what_conditions_do() {
    for (flags, line) in [
        (&[][..], "http://web:80/"),
        (
            &[
                "--header x-user: ann",
                "--path-prefix /a",
                "--path-prefix /a/b",
            ],
            "-H 'x-user: ann' http://web:80/a/b",
        ),
        (
            &["--path /it's;here&[1]"],
            r"--globoff 'http://web:80/it'\''s;here&[1]'",
        ),
        (&["--path /a/../b"], "--path-as-is http://web:80/a/../b"),
        // The shortest that certainly matches.
        (&["--path-regex .*"], "http://web:80/"),
        (&["--path-regex /v[0-9]+/.*"], "http://web:80/v0/"),
        (
            &["--path-prefix /api", "--path-regex .*/(orders|carts)/[^/]+"],
            "http://web:80/api/carts/a",
        ),
        (
            &["--path-regex .*[0-9]", "--path-regex /[a-z]+0"],
            "http://web:80/a0",
        ),
        (
            &["--header x-n~=[1-9][0-9]{2}", "--path /a"],
            "-H 'x-n: 100' http://web:80/a",
        ),
        (
            &["--header x-n: 7", "--header x-n~=[0-9]"],
            "-H 'x-n: 7' http://web:80/",
        ),
        (
            &["--header x-kdev: me", "--mine me"],
            "-H 'x-kdev: me' http://web:80/",
        ),
        (&["--method HEAD"], "-I http://web:80/"),
        (
            &["--method PUT", "--mine me"],
            "-H 'x-kdev: me' -X PUT http://web:80/",
        ),
        (
            &["--baggage k=a b,\u{fc}"],
            "-H 'baggage: k=a%20b%2C%C3%BC' http://web:80/",
        ),
    ] {
        let (said, open) = conditions(flags).as_curl("http://web:80");
        assert_eq!(said, line);
        assert!(open.is_empty(), "{open:?}");
    }
    let sent = Sent::new("GET", "/", &[("baggage", "k=a%20b%2C%C3%BC")]);
    let one = conditions(&["--baggage k=a b,\u{fc}"]);
    assert!(one.iter().all(|one| one.holds(&sent.head())));
}

#[test]
fn what_no_example_is_known_of_is_left_open() {
    for (flags, line, left) in [
        (
            &["--path-regex /(%41|%42)", "--header x-user: ann"][..],
            "-H 'x-user: ann' http://web:80",
            "any path that matches /(%41|%42)",
        ),
        // Each alone has one, and both together another that is not searched for.
        (
            &["--path-regex /a*b?c?", "--path-regex /.*[bc].*[bc]"],
            "http://web:80",
            "any path that matches /.*[bc].*[bc]",
        ),
        (
            &["--header x-n~=a.*", "--header x-n~=.*b"],
            "http://web:80/",
            "a header x-n that matches .*b",
        ),
    ] {
        let (said, open) = conditions(flags).as_curl("http://web:80");
        assert_eq!(said, line);
        assert!(open.iter().any(|one| one == left), "{open:?}");
    }
}

#[test]
fn what_a_version_does_not_know_is_an_error_and_names_itself() {
    let text = serde_json::to_string(&claim("a", &["--method GET"])).unwrap();
    for (from, to, word) in [
        ("\"method\"", "\"weather\"", "weather"),
        ("\"since\"", "\"weight\":3,\"since\"", "weight"),
        ("\"GET\"", "\"G T\"", "no method"),
        (&"07".repeat(16), "07", "32 hexadecimal"),
    ] {
        let odd = text.replace(from, to);
        assert_ne!(odd, text);
        let error = serde_json::from_str::<Claim>(&odd).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        let ask = format!(r#"{{"do":"attach","port":20000,"claim":{odd}}}"#);
        let error = serde_json::from_str::<Ask>(&ask).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let tell: Tell = serde_json::from_str(r#"{"is":"newer","port":1}"#).unwrap();
    assert_eq!(tell, Tell::Other);
}

#[test]
fn how_two_claims_stand_to_each_other() {
    use Relation::{Disjoint, Equal, Overlap, Subset, Superset};
    for (a, b, relation) in [
        (&[][..], &[][..], Equal),
        (&[], &["--mine me"], Superset),
        (&[], &["--path-regex .*"], Equal),
        (&["--header x: 1"], &["--header x: 1"], Equal),
        (&["--header x: 1"], &["--header x: 2"], Disjoint),
        (&["--header x: 1"], &["--header y: 1"], Overlap),
        (
            &["--header x: 1", "--method GET"],
            &["--header x: 1"],
            Subset,
        ),
        (
            &["--header x: 1"],
            &["--header x: 1", "--path /a"],
            Superset,
        ),
        (
            &["--header x: 1", "--path /a"],
            &["--header x: 1", "--method GET"],
            Overlap,
        ),
        (
            &["--header x: 1", "--path /a"],
            &["--header x: 1", "--path /b"],
            Disjoint,
        ),
        (&["--header x: 12"], &["--header x~=1."], Subset),
        (&["--header x: 2"], &["--header x~=1."], Disjoint),
        (&["--header x~=1."], &["--header x~=.2"], Overlap),
        (&["--header x~=1."], &["--header x~=1."], Equal),
        (&["--mine me"], &["--mine you"], Disjoint),
        (&["--mine me"], &["--header x-kdev: me"], Superset),
        (&["--mine me"], &["--header x-kdev: you"], Disjoint),
        (&["--mine me"], &["--baggage kdev=me"], Overlap),
        (&["--baggage a=1"], &["--baggage a=2"], Disjoint),
        (&["--baggage a=1"], &["--baggage b=1"], Overlap),
        (&["--header baggage: a=1,b=2"], &["--baggage a=1"], Subset),
        (&["--header baggage: a=1,b=2"], &["--baggage a=2"], Disjoint),
        (&["--path /a/b"], &["--path-prefix /a"], Subset),
        (&["--path /ab"], &["--path-prefix /a"], Disjoint),
        (&["--path /a/b"], &["--path-regex /a/."], Subset),
        (&["--path /a/b"], &["--path-regex /a"], Disjoint),
        (&["--path-prefix /a"], &["--path-prefix /a/b"], Superset),
        (&["--path-prefix /a"], &["--path-prefix /ab"], Disjoint),
        (&["--path-prefix /"], &["--path-prefix /ab"], Superset),
        (&["--path-prefix /a"], &["--path-regex /a.*"], Overlap),
        (&["--method GET"], &["--method POST"], Disjoint),
    ] {
        let (one, other) = (claim("a", a), claim("b", b));
        let found = one.conditions.relation(&other.conditions);
        assert_eq!(found, relation, "{a:?} {b:?}");
        let verdict = match relation {
            Equal | Subset | Superset => Verdict::Conflicts,
            Overlap => Verdict::Overlaps,
            Disjoint => Verdict::Apart,
        };
        assert_eq!(one.verdict(&other), verdict);
        assert_eq!(other.verdict(&one), verdict);
        let mirror = Claim {
            mirror: true,
            ..one
        };
        assert_eq!(mirror.verdict(&other), Verdict::Apart);
        assert_eq!(other.verdict(&mirror), Verdict::Apart);
    }
}

#[test]
fn more_conditions_go_first_and_then_the_older() {
    let set = RuleSet::new(vec![
        (conditions(&[]), 1, "all"),
        (conditions(&["--header x: 1"]), 9, "younger"),
        (conditions(&["--path-prefix /a"]), 2, "older"),
        (conditions(&["--header x: 1", "--header y: 1"]), 9, "two"),
    ]);
    let pick = |path: &str, lines: &[(&str, &str)]| {
        *set.pick(&Sent::new("GET", path, lines).head()).unwrap()
    };
    assert_eq!(pick("/", &[]), "all");
    assert_eq!(pick("/", &[("x", "1")]), "younger");
    assert_eq!(pick("/a", &[("x", "1")]), "older");
    assert_eq!(pick("/a", &[("x", "1"), ("y", "1")]), "two");
    assert_eq!(set.everything(), Some(&"all"));
    let order: Vec<_> = set.iter().copied().collect();
    assert_eq!(order, ["two", "older", "younger", "all"]);
    let mut found = Vec::new();
    set.each(&Sent::new("GET", "/a", &[("x", "1")]).head(), |name| {
        found.push(*name)
    });
    found.sort_unstable();
    assert_eq!(found, ["all", "older", "younger"]);
    assert!(
        RuleSet::<()>::default()
            .pick(&Sent::new("GET", "/", &[]).head())
            .is_none()
    );
}

#[test]
fn services_say_what_their_callers_speak() {
    use AppProtocol::{Auto, Grpc, H2c, Http, Tcp};
    for (app_protocol, name, expected) in [
        (None, None, Auto),
        (None, Some("http"), Http),
        (None, Some("http-web"), Http),
        (None, Some("https"), Tcp),
        (None, Some("grpc-api"), Grpc),
        (None, Some("web"), Auto),
        (Some("kubernetes.io/h2c"), Some("http"), H2c),
        (Some("HTTP"), None, Http),
        (Some("example.com/own"), Some("mysql"), Tcp),
    ] {
        assert_eq!(AppProtocol::of_port(app_protocol, name), expected);
    }
    for name in ["auto", "http", "h1", "h2c", "grpc", "tcp"] {
        assert_eq!(name.parse::<AppProtocol>().unwrap().to_string(), name);
    }
    assert!("quic".parse::<AppProtocol>().is_err());
}
