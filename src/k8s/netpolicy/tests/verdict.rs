//! What policies mean.

use super::super::verdict::{Direction, Verdict, reaches};
use super::*;

/// Whether `caller` of `shop` reaches `web` at 8080, `stranger` of `other` does, and `caller` does at
/// 9090, with one policy that isolates `web`.
#[test]
fn rules_of_ingress() {
    let to_web = json!({"matchLabels": {"app": "web"}});
    let table: [(&str, Value, [bool; 3]); 21] = [
        ("no rule", json!({}), [false, false, false]),
        (
            "an empty list of rules",
            json!({"ingress": []}),
            [false, false, false],
        ),
        (
            "an empty rule",
            json!({"ingress": [{}]}),
            [true, true, true],
        ),
        (
            "an empty list of peers",
            json!({"ingress": [{"from": []}]}),
            [true, true, true],
        ),
        (
            "all pods of the namespace",
            json!({"ingress": [{"from": [{"podSelector": {}}]}]}),
            [true, false, true],
        ),
        (
            "all pods of all namespaces",
            json!({"ingress": [{"from": [{"namespaceSelector": {}}]}]}),
            [true, true, true],
        ),
        (
            "pods by label",
            json!({"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "caller"}}}]}]}),
            [true, false, true],
        ),
        (
            "pods by another label",
            json!({"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "else"}}}]}]}),
            [false, false, false],
        ),
        (
            "a namespace by label",
            json!({"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}]}),
            [false, true, false],
        ),
        (
            "a namespace by name",
            json!({"ingress": [{"from": [{"namespaceSelector":
                {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}]}]}),
            [false, true, false],
        ),
        (
            "both in one peer",
            json!({"ingress": [{"from": [{
                "namespaceSelector": {"matchLabels": {"team": "b"}},
                "podSelector": {"matchLabels": {"app": "else"}},
            }]}]}),
            [false, false, false],
        ),
        (
            "both as two peers",
            json!({"ingress": [{"from": [
                {"namespaceSelector": {"matchLabels": {"team": "b"}}},
                {"podSelector": {"matchLabels": {"app": "caller"}}},
            ]}]}),
            [true, true, true],
        ),
        (
            "a block",
            json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}]}),
            [true, false, true],
        ),
        (
            "a block with exceptions",
            json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/24"]}}]}]}),
            [false, true, false],
        ),
        (
            "a port",
            json!({"ingress": [{"ports": [{"port": 8080}]}]}),
            [true, true, false],
        ),
        (
            "a port by name",
            json!({"ingress": [{"ports": [{"port": "admin"}]}]}),
            [false, false, true],
        ),
        (
            "a range of ports",
            json!({"ingress": [{"ports": [{"protocol": "TCP", "port": 8000, "endPort": 8080}]}]}),
            [true, true, false],
        ),
        (
            "a port of another protocol",
            json!({"ingress": [{"ports": [{"protocol": "UDP", "port": 8080}]}]}),
            [false; 3],
        ),
        (
            "all ports of a protocol",
            json!({"ingress": [{"ports": [{"protocol": "TCP"}]}]}),
            [true; 3],
        ),
        (
            "egress alone",
            json!({"policyTypes": ["Egress"]}),
            [true; 3],
        ),
        (
            "two rules",
            json!({"ingress": [
                {"from": [{"podSelector": {}}], "ports": [{"port": 9090}]},
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}], "ports": [{"port": "http"}]},
            ]}),
            [false, true, true],
        ),
    ];
    for (what, mut spec, expected) in table {
        spec["podSelector"] = to_web.clone();
        let policies = [policy("p", spec)];
        let open = |from: &Party, port| reaches(&policies, from, &web(), port).is_open();
        let found = [
            open(&caller(), 8080),
            open(&stranger(), 8080),
            open(&caller(), 9090),
        ];
        assert_eq!(found, expected, "{what}");
        // It isolates nobody else.
        assert!(
            reaches(&policies, &caller(), &stranger(), 8080).is_open(),
            "{what}"
        );
        assert!(
            reaches(&policies, &caller(), &relay(), 20_000).is_open(),
            "{what}"
        );
    }
}

/// Whether `caller` reaches `web` at 8080 and `relay` at 20000, with policies on `caller`.
#[test]
fn rules_of_egress() {
    let table: [(&str, Value, [bool; 2]); 8] = [
        // A policy without types is of ingress, and of egress only where it has rules for that.
        ("neither types nor rules", json!({}), [true, true]),
        (
            "an empty list of rules",
            json!({"egress": []}),
            [true, true],
        ),
        ("a type", json!({"policyTypes": ["Egress"]}), [false, false]),
        (
            "rules without a type",
            json!({"egress": [{}]}),
            [true, true],
        ),
        (
            "to the app",
            json!({"egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}),
            [true, false],
        ),
        // The name is that of a port of whoever is connected to.
        (
            "to a port by name",
            json!({"egress": [{"ports": [{"port": "http"}]}]}),
            [true, false],
        ),
        (
            "to addresses",
            json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.1.0.8/31"}}]}]}),
            [false, true],
        ),
        (
            "ingress alone",
            json!({"policyTypes": ["Ingress"]}),
            [true, true],
        ),
    ];
    for (what, mut spec, expected) in table {
        spec["podSelector"] = json!({"matchLabels": {"app": "caller"}});
        let policies = [policy("p", spec)];
        let open = |to: &Party, port| reaches(&policies, &caller(), to, port).is_open();
        assert_eq!(
            [open(&web(), 8080), open(&relay(), 20_000)],
            expected,
            "{what}"
        );
        // Pods of the same labels elsewhere are none of its business.
        assert!(
            reaches(&policies, &stranger(), &web(), 8080).is_open(),
            "{what}"
        );
    }
}

#[test]
fn several_add_up_and_none_takes_away() {
    let deny = policy(
        "deny",
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    );
    let allow = policy(
        "allow",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {}}]}]}),
    );
    let out = policy(
        "out",
        json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["caller"]}]},
               "policyTypes": ["Egress"], "egress": [{}]}),
    );
    let all = [deny.clone(), allow.clone(), out.clone()];
    assert!(reaches(&all, &caller(), &web(), 8080).is_open());
    // Both ends have a say.
    let verdict = reaches(&all[..2], &caller(), &web(), 8080);
    assert_eq!(verdict, Verdict::Shut(Direction::Egress, vec![&deny]));
    let verdict = reaches(&all, &caller(), &relay(), 20_000);
    assert_eq!(verdict, Verdict::Shut(Direction::Ingress, vec![&deny]));
    let verdict = reaches(&all, &stranger(), &web(), 8080);
    assert_eq!(
        verdict,
        Verdict::Shut(Direction::Ingress, vec![&deny, &allow])
    );
}

#[test]
fn what_cannot_be_read_allows_nobody() {
    for peer in [
        json!({}),
        json!({"ipBlock": {"cidr": "nonsense"}}),
        json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Resembles"}]}}),
    ] {
        let spec = json!({"podSelector": {}, "ingress": [{"from": [peer]}]});
        let policies = [policy("p", spec)];
        assert!(!reaches(&policies, &caller(), &web(), 8080).is_open());
    }
}

#[test]
fn addresses_of_both_families() {
    let spec =
        json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "fd00::/64"}}]}]});
    let policies = [policy("p", spec)];
    let outside = |ip: &str| Party::outside(ip.parse().unwrap());
    assert!(reaches(&policies, &outside("fd00::7"), &web(), 8080).is_open());
    assert!(!reaches(&policies, &outside("fd01::7"), &web(), 8080).is_open());
    let mut both = caller();
    assert!(!reaches(&policies, &both, &web(), 8080).is_open());
    both.ips.push("fd00::8".parse().unwrap());
    assert!(reaches(&policies, &both, &web(), 8080).is_open());
}
