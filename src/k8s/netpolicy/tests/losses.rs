//! Who loses by an intercept of `web`, whose ports are http and admin.

use super::super::advice::let_callers_in;
use super::super::losses::{Half, Port, Scene, landings, losses, relays_reach_relays};
use super::super::verdict::Direction;
use super::*;

const RANGE: (u16, u16) = (20_000, 20_511);

struct Around {
    policies: Vec<Policy>,
    pods: Vec<Party>,
    places: Vec<Place>,
    outside: bool,
}

impl Around {
    fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        Self {
            policies: policies.into_iter().collect(),
            pods: vec![web(), caller(), stranger()],
            places: vec![shop(), other()],
            outside: false,
        }
    }

    fn with<T>(&self, look: impl FnOnce(&Scene<'_>) -> T) -> T {
        let (app, relays) = ([web()], [relay()]);
        let port = |name: &str, target: Value| Port {
            name: name.to_owned(),
            target,
        };
        look(&Scene {
            policies: &self.policies,
            place: &shop(),
            places: &self.places,
            pods: &self.pods,
            app: &app,
            relays: &relays,
            ports: &[port("http", json!("http")), port("admin", json!(9090))],
            landings: &landings(&self.policies, RANGE),
            outside: self.outside,
        })
    }

    /// Who loses what, and by which policies.
    fn lost(&self) -> Vec<(String, Half, Direction, Vec<String>)> {
        self.with(|scene| {
            let losses = losses(scene).into_iter();
            losses
                .map(|loss| {
                    let by = loss.by.iter().map(|policy| policy.name.clone()).collect();
                    (loss.caller.name.clone(), loss.half, loss.direction, by)
                })
                .collect()
        })
    }

    fn is_fine(&self) -> bool {
        self.lost().is_empty()
    }
}

fn deny() -> Policy {
    policy("deny", json!({"podSelector": {}}))
}

fn for_web(name: &str, ingress: Value) -> Policy {
    policy(
        name,
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": ingress}),
    )
}

fn for_relay(name: &str, ingress: Value) -> Policy {
    let own = json!({"matchLabels": {"app.kubernetes.io/name": "kdev-relay"}});
    policy(name, json!({"podSelector": own, "ingress": ingress}))
}

/// What `kdev install --network-policy on` brings.
fn kdevs_own() -> Policy {
    for_relay("kdev-relay", json!([super::super::advice::landing_rule()]))
}

#[test]
fn nobody_loses_where_nothing_is_restricted() {
    assert!(Around::new([]).is_fine());
    // Policies of others, and some that treat both alike.
    for policies in [
        vec![policy_in(
            "other",
            "deny",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        )],
        vec![policy(
            "db",
            json!({"podSelector": {"matchLabels": {"app": "db"}}}),
        )],
        vec![policy(
            "same",
            json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
        )],
        vec![policy(
            "all",
            json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]}),
        )],
        // Nobody reaches anything.
        vec![deny()],
        vec![for_web("closed", json!([]))],
        vec![kdevs_own()],
        vec![deny(), kdevs_own()],
        vec![
            deny(),
            for_web("web", json!([{"from": [{"podSelector": {}}]}])),
            kdevs_own(),
        ],
        // Where callers may go anywhere within the namespace.
        vec![policy(
            "out",
            json!({"podSelector": {}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {}}]}]}),
        )],
    ] {
        let around = Around::new(policies);
        assert!(
            around.is_fine(),
            "{:?}: {:?}",
            around.policies,
            around.lost()
        );
    }
}

#[test]
fn callers_who_are_not_let_into_the_relay() {
    // Case (a): default deny, callers and the relay into the app, nobody into the relay.
    let callers = json!([{"from": [
        {"podSelector": {"matchLabels": {"app": "caller"}}},
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "kdev-relay"}}},
    ]}]);
    let mut around = Around::new([deny(), for_web("web", callers)]);
    let expected = [(
        "pod caller".to_owned(),
        Half::ToRelay,
        Direction::Ingress,
        vec!["deny".to_owned()],
    )];
    assert_eq!(around.lost(), expected);
    // Nobody of them is there at the moment.
    around.pods = vec![web()];
    assert_eq!(around.lost()[0].0, "pods with app=caller");
    around.policies.push(kdevs_own());
    assert!(around.is_fine(), "{:?}", around.lost());
    // A part of the ports is not enough, wherever it lies.
    for ports in [
        json!({"port": 20_000, "endPort": 20_510}),
        json!({"port": 20_001, "endPort": 20_511}),
    ] {
        around.policies.pop();
        around
            .policies
            .push(for_relay("part", json!([{"ports": [ports]}])));
        assert_eq!(around.lost()[0].3, ["deny", "part"]);
    }
    around.policies.pop();
    around.policies.push(for_relay(
        "two",
        json!([
        {"ports": [{"port": 20_000, "endPort": 20_255}, {"port": 20_256, "endPort": 20_511}]}]),
    ));
    assert!(around.is_fine(), "{:?}", around.lost());
}

#[test]
fn whom_a_rule_means_decides_and_not_how_it_is_written() {
    let cases: [(&str, Value, Value, bool); 10] = [
        (
            "the same",
            json!({"podSelector": {"matchLabels": {"tier": "f"}}}),
            json!({"podSelector": {"matchLabels": {"tier": "f"}}}),
            true,
        ),
        (
            "more",
            json!({"podSelector": {"matchLabels": {"tier": "f"}}}),
            json!({"podSelector": {}}),
            true,
        ),
        (
            "more by expression",
            json!({"podSelector": {"matchLabels": {"tier": "f"}}}),
            json!({"podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["e", "f"]}]}}),
            true,
        ),
        (
            "fewer",
            json!({"podSelector": {"matchLabels": {"tier": "f"}}}),
            json!({"podSelector": {"matchLabels": {"tier": "f", "on": "1"}}}),
            false,
        ),
        (
            "the namespace by its name",
            json!({"podSelector": {"matchLabels": {"tier": "f"}}}),
            json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}),
            true,
        ),
        (
            "another namespace",
            json!({"namespaceSelector": {"matchLabels": {"team": "b"}}}),
            json!({"podSelector": {}}),
            false,
        ),
        (
            "a namespace that cannot be seen",
            json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "far"}}}),
            json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "far"}}}),
            true,
        ),
        (
            "a wider block",
            json!({"ipBlock": {"cidr": "192.168.0.0/24"}}),
            json!({"ipBlock": {"cidr": "192.168.0.0/16"}}),
            true,
        ),
        (
            "a block with a hole",
            json!({"ipBlock": {"cidr": "192.168.0.0/24"}}),
            json!({"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.0.8/30"]}}),
            false,
        ),
        (
            "a hole that both have",
            json!({"ipBlock": {"cidr": "192.168.0.0/24", "except": ["192.168.0.0/28"]}}),
            json!({"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.0.8/30"]}}),
            true,
        ),
    ];
    for (what, app, relay, fine) in cases {
        let itself = json!({"podSelector": {"matchLabels": {"app": "kdev-relay"}}});
        let mut around = Around::new([
            for_web("web", json!([{"from": [app]}, {"from": [itself]}])),
            // The relay itself is no caller, so that it need not be let into itself.
            for_relay("relay", json!([{"from": [relay]}])),
        ]);
        around.pods = vec![web()];
        assert_eq!(around.is_fine(), fine, "{what}: {:?}", around.lost());
    }
}

#[test]
fn everybody_is_more_than_whoever_can_be_seen() {
    // The app is open and the relay is not.
    let mut around = Around::new([for_relay("own", json!([{"from": [{"podSelector": {}}]}]))]);
    assert_eq!(around.lost()[0].0, "pod stranger");
    around.pods = vec![web()];
    assert_eq!(around.lost()[0].0, "pods");
    around.policies = vec![for_relay(
        "own",
        json!([{"from": [{"namespaceSelector": {}}]}]),
    )];
    assert!(around.is_fine());
    // With an address outside there are callers outside.
    around.outside = true;
    assert!(
        around.lost()[0].0.contains("outside"),
        "{:?}",
        around.lost()
    );
    around.policies = vec![kdevs_own()];
    assert!(around.is_fine());
}

#[test]
fn callers_who_are_not_let_out_to_the_relay() {
    // Case (b): callers may send to the app and to DNS alone.
    let egress = json!([
        {"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
        {"ports": [{"protocol": "UDP", "port": 53}]},
    ]);
    let own = json!({"matchLabels": {"app": "caller"}});
    let out = policy(
        "out",
        json!({"podSelector": own, "policyTypes": ["Egress"], "egress": egress}),
    );
    let mut around = Around::new([out]);
    let expected = |who: &str| {
        [(
            who.to_owned(),
            Half::ToRelay,
            Direction::Egress,
            vec!["out".to_owned()],
        )]
    };
    assert_eq!(around.lost(), expected("pod caller"));
    around.pods = vec![web()];
    assert_eq!(around.lost(), expected("pods with app=caller"));
    // Another policy of the same pods adds what is missing; pods that only the first one selects lose.
    around.pods = vec![web(), caller()];
    let to_relay = json!([{"to": [{"podSelector": {"matchLabels": {"app": "kdev-relay"}}}]}]);
    let more = |own: Value| {
        policy(
            "more",
            json!({"podSelector": own, "policyTypes": ["Egress"], "egress": to_relay}),
        )
    };
    let by_expression = json!({"matchExpressions": [{"key": "app", "operator": "Exists"},
        {"key": "app", "operator": "NotIn", "values": ["kdev-relay", "web"]}]});
    around.policies.push(more(by_expression));
    assert!(around.is_fine(), "{:?}", around.lost());
    around.policies[1] = more(json!({"matchLabels": {"tier": "front"}}));
    assert_eq!(around.lost(), expected("pod caller"));
    around.pods[1]
        .labels
        .insert("tier".to_owned(), "front".to_owned());
    assert!(around.is_fine(), "{:?}", around.lost());
    // In another namespace that can be seen, by addresses.
    let egress = json!([{"to": [{"ipBlock": {"cidr": "10.1.0.1/32"}}]}]);
    let far = policy_in("other", "far", json!({"podSelector": {}, "egress": egress}));
    let around = Around::new([far.clone()]);
    assert_eq!(around.lost()[0].0, "pod stranger");
    around.with(|scene| {
        let loss = &losses(scene)[0];
        let (what, rule) = (loss.what("shop"), loss.rule("shop", &json!({})));
        assert_eq!(
            what,
            "pod stranger in namespace other may reach http today, and would not be let out to the \
             relay's pods by NetworkPolicy far in namespace other"
        );
        assert_eq!(
            rule,
            "add to NetworkPolicy far in namespace other: egress: [{ports: [{endPort: 20511, port: \
             20000, protocol: TCP}], to: [{namespaceSelector: {matchLabels: \
             {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: \
             {app.kubernetes.io/name: kdev-relay}}}]}]"
        );
    });
    // One that reaches neither loses nothing.
    let nowhere = policy_in(
        "other",
        "nowhere",
        json!({"podSelector": {}, "policyTypes": ["Egress"]}),
    );
    assert!(Around::new([nowhere]).is_fine());
}

#[test]
fn a_relay_that_is_not_let_into_the_app() {
    let callers = json!([{"from": [{"podSelector": {"matchLabels": {"app": "caller"}}}], "ports": [{"port": "http"}]}]);
    let around = Around::new([for_web("web", callers)]);
    // Only by the port that callers reach: the other one is closed to everybody.
    let expected = [(
        "pod caller".to_owned(),
        Half::ToPods(8080),
        Direction::Ingress,
        vec!["web".to_owned()],
    )];
    assert_eq!(around.lost(), expected);
    around.with(|scene| {
        let rule = losses(scene)[0].rule("shop", &json!({}));
        assert!(rule.contains("ingress: [{from: [{podSelector:"), "{rule}");
        assert!(rule.contains("port: 8080"), "{rule}");
    });
    let own = json!({"matchLabels": {"app": "kdev-relay"}});
    let out = policy(
        "out",
        json!({"podSelector": own, "policyTypes": ["Egress"]}),
    );
    let around = Around::new([out]);
    let (_, half, direction, _) = around.lost().remove(0);
    assert_eq!((half, direction), (Half::ToPods(8080), Direction::Egress));
}

#[test]
fn what_the_relays_pods_find_may_not_be_what_callers_find() {
    let callers = json!([{"from": [{"podSelector": {"matchLabels": {"app": "caller"}}}]}]);
    assert!(Around::new([]).with(relays_reach_relays));
    assert!(Around::new([deny(), kdevs_own()]).with(relays_reach_relays));
    let mut around = Around::new([for_relay("callers", callers)]);
    // One pod alone reaches itself in any case.
    assert!(around.with(relays_reach_relays));
    let mut two = relay();
    two.name = "pod relay-2".to_owned();
    around.pods.clear();
    around.with(|scene| {
        let relays = [relay(), two];
        let scene = Scene {
            relays: &relays,
            ..scene.clone()
        };
        assert!(!relays_reach_relays(&scene));
    });
}

#[test]
fn what_to_ask_for_is_yaml() {
    let text = let_callers_in("shop");
    assert!(
        text.contains("kdev install -n shop --network-policy on"),
        "{text}"
    );
    let (_, yaml) = text.split_once("ingress: ").unwrap();
    let rules: Value = serde_saphyr::from_str(yaml).unwrap();
    assert_eq!(rules, json!([super::super::advice::landing_rule()]));
}

#[test]
fn a_thousand_pods_and_a_hundred_policies_take_no_time() {
    let policies = (0..100).map(|n| {
        let own = json!({"matchLabels": {"app": format!("app-{n}")}});
        policy(
            &format!("p{n}"),
            json!({"podSelector": own, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{}]}),
        )
    });
    let mut around = Around::new(policies);
    around.pods.extend((0..1000).map(|n| {
        let own = json!({"app": format!("app-{}", n % 200), "id": n.to_string()});
        pod(&format!("p{n}"), &shop(), own, "10.1.2.3")
    }));
    let began = std::time::Instant::now();
    assert!(around.is_fine(), "{:?}", around.lost());
    // Unoptimised, on a busy machine.
    assert!(
        began.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}
