use proptest::prelude::*;

use super::*;

fn routes(also: &[&str], never: &[&str]) -> Result<Routes, RoutesError> {
    let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    Routes::parse(&owned(also), &owned(never), &[])
}

/// The side that `target` goes to by rule, and by which.
fn decided(routes: &Routes, target: &str) -> Option<(Side, String)> {
    let target = target.parse().unwrap();
    let rule = routes.decide(&target)?;
    Some((rule.side(), rule.to_string()))
}

#[test]
fn the_most_specific_rule_decides() {
    let routes = routes(
        &[
            ".corp.example",
            "10.0.0.0/8",
            "api.shop:443",
            "[fd00::/8]:53",
        ],
        &[
            "*.lab.corp.example",
            "db.corp.example",
            "10.1.0.0/16",
            "api.shop",
            "2001:db8::7",
        ],
    )
    .unwrap();
    for (target, expected) in [
        ("a.corp.example:1", Some((Side::Cluster, ".corp.example"))),
        (
            "A.B.Corp.Example.:1",
            Some((Side::Cluster, ".corp.example")),
        ),
        ("corp.example:1", None),
        ("xcorp.example:1", None),
        (
            "a.lab.corp.example:1",
            Some((Side::Laptop, ".lab.corp.example")),
        ),
        ("lab.corp.example:1", Some((Side::Cluster, ".corp.example"))),
        (
            "db.corp.example:5432",
            Some((Side::Laptop, "db.corp.example")),
        ),
        ("10.2.3.4:80", Some((Side::Cluster, "10.0.0.0/8"))),
        ("10.1.3.4:80", Some((Side::Laptop, "10.1.0.0/16"))),
        ("[::ffff:10.1.3.4]:80", Some((Side::Laptop, "10.1.0.0/16"))),
        ("11.1.3.4:80", None),
        ("api.shop:443", Some((Side::Cluster, "api.shop:443"))),
        ("api.shop:80", Some((Side::Laptop, "api.shop"))),
        ("[fd12::1]:53", Some((Side::Cluster, "[fd00::/8]:53"))),
        ("[fd12::1]:54", None),
        ("[2001:db8::7]:1", Some((Side::Laptop, "2001:db8::7"))),
        ("web.shop:80", None),
    ] {
        let expected = expected.map(|(side, rule)| (side, rule.to_owned()));
        assert_eq!(decided(&routes, target), expected, "{target}");
    }
}

#[test]
fn what_is_no_rule_is_refused_with_what_to_write() {
    for (text, reason) in [
        ("", "is no rule"),
        ("*", "is no rule"),
        (".", "is no rule"),
        ("a b", "is no rule"),
        ("a.*.b", "is no rule"),
        ("http://a", "is a URL"),
        ("300.1.1.1", "is no rule"),
        ("10.1.2.3/8", "write 10.0.0.0/8"),
        ("10.0.0.0/33", "is no CIDR"),
        ("web:http", "has no port"),
        ("web:0", "has no port"),
        ("[fd00::1]x", "has no port"),
        ("localhost", "this machine itself"),
        ("*.localhost", "this machine itself"),
        ("127.0.0.0/8", "this machine itself"),
        ("[::1]:80", "this machine itself"),
    ] {
        let error = routes(&[text], &[]).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    routes(&[], &["localhost", "127.0.0.0/8"]).unwrap();
}

#[test]
fn the_same_on_both_sides_is_a_conflict_however_it_is_written() {
    for (also, never) in [
        ("Web.Shop.", "web.shop"),
        ("*.corp.example", ".corp.example"),
        ("10.0.0.1/32", "10.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("web:80", "web:80"),
    ] {
        let error = routes(&[also], &[never]).unwrap_err();
        assert!(matches!(error, RoutesError::Conflict { .. }), "{error}");
    }
    routes(&["web", "web"], &["web:80"]).unwrap();
}

#[test]
fn a_domain_is_resolved_in_the_cluster_with_all_below_it() {
    let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let parse = |also: &[&str], never: &[&str], inside: &[&str]| {
        Routes::parse(&owned(also), &owned(never), &owned(inside))
    };
    for text in ["corp.example", ".corp.example", "*.Corp.Example."] {
        let also = [".corp.example", "10.0.0.0/8"];
        let never = ["www.corp.example", "api.corp.example:443"];
        let routes = parse(&also, &never, &[text]).unwrap();
        for (name, inside) in [
            ("corp.example", true),
            ("a.b.corp.example", true),
            // A rule for one port says nothing about the name.
            ("api.corp.example", true),
            ("www.corp.example", false),
            ("xcorp.example", false),
            ("example", false),
        ] {
            let found = routes.side(name) == Some(Side::Inside);
            assert_eq!(found, inside, "{text}: {name}");
        }
        let side = |target: &str| decided(&routes, target).map(|(side, _)| side);
        assert_eq!(side("corp.example:1"), Some(Side::Inside));
        assert_eq!(side("api.corp.example:443"), Some(Side::Laptop));
        assert_eq!(side("api.corp.example:80"), Some(Side::Inside));
        assert_eq!(side("10.1.1.1:80"), Some(Side::Cluster));
    }
    for (text, reason) in [
        ("", "is no domain"),
        (".", "is no domain"),
        ("10.0.0.1", "is no domain"),
        ("10.0.0.0/8", "is no domain"),
        ("corp.example:53", "is no domain"),
        ("localhost", "this machine itself"),
    ] {
        let error = parse(&[], &[], &[text]).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let error = parse(&[], &[".corp.example"], &["corp.example"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        ".corp.example stands both in never-proxy and in resolve-in-cluster; remove it from one \
         of them"
    );
}

#[test]
fn no_rule_sends_this_machine_into_the_cluster() {
    let all = routes(&["0.0.0.0/0", "::/0"], &[]).unwrap();
    assert_eq!(decided(&all, "127.0.0.1:80"), None);
    assert_eq!(decided(&all, "[::1]:80"), None);
    assert_eq!(decided(&all, "8.8.8.8:80").unwrap().0, Side::Cluster);
}

/// Rules over so few labels and bits that many match the same.
fn rule() -> impl Strategy<Value = String> {
    let label = || prop::sample::select(vec!["a", "b"]);
    let name = prop::collection::vec(label(), 1..4).prop_map(|labels| labels.join("."));
    let suffix = (prop::bool::ANY, name.clone())
        .prop_map(|(star, name)| format!("{}.{name}", if star { "*" } else { "" }));
    let cidr = (0..4_u32, 28..=32_u8).prop_map(|(ip, length)| {
        let net = Ipv4Net::new((0x0a00_0000 | ip).into(), length).unwrap();
        net.trunc().to_string()
    });
    let port = prop::option::of(1..3_u16);
    (prop_oneof![name, suffix, cidr], port).prop_map(|(what, port)| match port {
        Some(port) => format!("{what}:{port}"),
        None => what,
    })
}

fn target() -> impl Strategy<Value = String> {
    let label = || prop::sample::select(vec!["a", "b"]);
    let name = prop::collection::vec(label(), 1..5).prop_map(|labels| labels.join("."));
    let ip = (0..20_u8).prop_map(|last| format!("10.0.0.{last}"));
    (prop_oneof![name, ip], 1..4_u16).prop_map(|(host, port)| format!("{host}:{port}"))
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(also in ".{0,40}", never in ".{0,40}") {
        let _ = Routes::parse(&[also], &[never], &[]);
    }

    #[test]
    fn rules_read_back_as_they_are_shown(text in rule()) {
        let once = routes(&[&text], &[]).unwrap();
        let shown = once.iter().next().unwrap().to_string();
        prop_assert_eq!(routes(&[&shown], &[]).unwrap(), once);
    }

    /// Against the definition: of all that match, the narrowest; and the order of the settings
    /// does not matter.
    #[test]
    fn the_narrowest_of_all_that_match_wins(
        mut also in prop::collection::vec(rule(), 0..6),
        mut never in prop::collection::vec(rule(), 0..6),
        target in target(),
    ) {
        let Ok(rules) = Routes::parse(&also, &never, &[]) else {
            return Ok(());
        };
        let parsed: Target = target.parse().unwrap();
        let matching = rules.iter().filter(|rule| rule.matches(&parsed));
        let narrowest = matching.max_by_key(|rule| rule.rank());
        prop_assert_eq!(rules.decide(&parsed), narrowest);
        also.reverse();
        never.reverse();
        let turned = Routes::parse(&also, &never, &[]).unwrap();
        prop_assert_eq!(turned.decide(&parsed), narrowest);
        // No two rules that match one target are equally narrow.
        let matching: Vec<_> = rules.iter().filter(|rule| rule.matches(&parsed)).collect();
        for pair in matching.windows(2) {
            prop_assert!(pair[0].rank() > pair[1].rank());
        }
    }
}
