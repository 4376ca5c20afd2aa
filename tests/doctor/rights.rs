//! Each missing right is named by its verb and resource.

use kdev_sim::{Options, Rule, User};

use crate::support::{Doctor, cluster};

/// The rights that a good role has, as `(verb, resource)`.
const RIGHTS: [(&str, &str); 9] = [
    ("get", "pods"),
    ("list", "pods"),
    ("watch", "pods"),
    ("get", "services"),
    ("list", "services"),
    ("watch", "services"),
    ("get", "pods/portforward"),
    ("create", "pods/portforward"),
    ("list", "endpointslices"),
];

/// The rights of `RIGHTS` but for some.
fn all_but(left_out: &[(&str, &str)]) -> Vec<Rule> {
    let rights = RIGHTS.iter().filter(|right| !left_out.contains(right));
    rights
        .map(|(verb, resource)| Rule::new(&[verb], &[resource]).namespace("shop"))
        .collect()
}

fn id((verb, resource): &(&str, &str)) -> String {
    format!("permission.{verb}.{resource}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_and_missing_is_named() {
    let cluster = cluster(Options::default()).await;
    cluster.add_user(User::new("bob"));
    for missing in [
        &[("list", "pods")][..],
        &[("create", "pods/portforward")],
        &[("get", "pods"), ("watch", "pods")],
        &[("get", "services"), ("list", "services")],
        &[("get", "pods/portforward"), ("create", "pods/portforward")],
    ] {
        cluster.set_rules("bob", all_but(missing));
        let found = Doctor::of(&cluster, "bob").json().await;
        let needed = missing.iter().filter(|(verb, _)| *verb != "watch");
        let mut expected: Vec<String> = needed.map(id).collect();
        if missing.contains(&("create", "pods/portforward")) {
            // A server of today asks for it in every form.
            expected.push("port-forward".to_owned());
        }
        assert_eq!(found.with("fail"), expected, "{found:#?}");
        for right in missing {
            let (verb, resource) = right;
            let check = found.get(&id(right));
            assert_eq!(check.title, format!("{verb} {resource} in shop"));
            assert!(check.detail.starts_with("not allowed"), "{check:?}");
            let rule = format!("resources: [{resource:?}], verbs: [{verb:?}]");
            assert!(check.fix.as_ref().unwrap().contains(&rule), "{check:?}");
        }
        let role = found.role.as_ref().unwrap();
        assert!(role.contains("name: \"bob\"") && role.contains("namespace: shop"));
        if missing.contains(&("list", "pods")) {
            let forward = found.get("port-forward");
            assert_eq!(forward.status, "skipped");
            assert!(
                forward.detail.contains("without list pods in shop"),
                "{forward:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_make_up_for_or_would_help_is_no_failure() {
    let cluster = cluster(Options::default()).await;
    cluster.add_user(User::new("bob"));
    for missing in [
        ("get", "pods"),
        ("get", "services"),
        ("list", "services"),
        ("get", "pods/portforward"),
        ("watch", "pods"),
        ("watch", "services"),
        ("list", "endpointslices"),
    ] {
        cluster.set_rules("bob", all_but(&[missing]));
        let found = Doctor::of(&cluster, "bob").json().await;
        assert!(found.ok && found.role.is_none(), "{found:#?}");
        // More than these takes what is asked about apart.
        assert_eq!(
            found.with("warn"),
            [&*id(&missing), "permission.intercept", "permission.install"]
        );
        let forward = found.get("port-forward");
        assert_eq!(forward.status, "ok", "{forward:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_a_role_names_are_found_and_shown() {
    let cluster = cluster(Options::default()).await;
    cluster.add_user(User::new("bob"));
    let mut rules = all_but(&[("get", "pods/portforward"), ("create", "pods/portforward")]);
    // The last one in the list of the namespace's pods.
    let named = Rule::new(&["get", "create"], &["pods/portforward"]).namespace("shop");
    rules.push(named.names(&["web-3"]));
    cluster.set_rules("bob", rules);
    let found = Doctor::of(&cluster, "bob").json().await;
    assert!(found.ok && found.role.is_none(), "{found:#?}");
    for verb in ["get", "create"] {
        let check = found.get(&format!("permission.{verb}.pods/portforward"));
        assert_eq!(check.status, "warn");
        assert_eq!(check.detail, "allowed on these pods only: web-3");
    }
    let forward = found.get("port-forward");
    assert_eq!(forward.status, "warn");
    assert!(
        forward.detail.contains("(pod web-3)") && forward.detail.contains("not allowed on "),
        "{forward:?}"
    );
    let fix = forward.fix.as_ref().unwrap();
    assert!(fix.contains("resourceNames"), "{fix}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impersonation_for_some_requests_only_is_no_slow_line() {
    let cluster = cluster(Options::default()).await;
    let identity = Rule::new(&["impersonate:user-info"], &["users"])
        .groups(&["authentication.k8s.io"])
        .names(&["dev"]);
    let mut actor = User::new("actor").rule(identity);
    for (verb, resource) in [
        ("list", "pods"),
        ("list", "services"),
        ("get", "pods/portforward"),
        ("create", "pods/portforward"),
    ] {
        let verb = format!("impersonate-on:user-info:{verb}");
        actor = actor.rule(Rule::new(&[&verb], &[resource]).namespace("shop"));
    }
    cluster.add_user(actor);
    let token = "token: actor-token";
    let kubeconfig = cluster.kubeconfig("actor", "shop");
    let acting = kubeconfig.replace(token, &format!("{token}\n    as: dev"));
    let found = Doctor::new(&acting).json().await;
    assert!(found.ok, "{found:#?}");
    let server = found.get("api-server");
    assert!(
        server
            .detail
            .ends_with("it does not tell its version to this user"),
        "{server:?}"
    );
    let said = found.checks.iter();
    let said = said.filter(|check| check.detail.contains("cannot impersonate"));
    let said: Vec<_> = said.map(|check| check.id.as_str()).collect();
    assert_eq!(said, ["permissions"], "{found:#?}");
    let fix = found.get("permissions").fix.as_ref().unwrap();
    assert!(fix.contains("impersonate-on:user-info:create"), "{fix}");
    let speed = found.get("speed");
    assert_eq!(speed.status, "ok");
    assert!(
        speed.detail.starts_with("round trip ") && speed.detail.contains("kept from this user"),
        "{speed:?}"
    );
    assert_eq!(found.get("port-forward").status, "ok");

    // Who may act as nobody is told so once, and nothing else is guessed from it.
    cluster.set_rules("actor", []);
    let found = Doctor::new(&acting).json().await;
    assert_eq!(found.with("fail"), ["login"], "{found:#?}");
    let login = found.get("login");
    assert!(login.detail.contains("cannot impersonate"), "{login:?}");
    assert!(login.fix.as_ref().unwrap().contains("--as"), "{login:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_has_what_to_send_to_the_administrator() {
    let cluster = cluster(Options::default()).await;
    let doctor = Doctor::of(&cluster, "viewer");
    let (text, code) = doctor.text(&[]).await;
    assert_eq!(code, 1);
    assert!(!text.contains("FAIL create pods/portforward"), "{text}");
    let role = "\n  kind: RoleBinding\n";
    assert!(text.contains(role), "{text}");
    assert!(
        text.contains("\n    apiGroup: rbac.authorization.k8s.io\n    name: \"viewer\"\n"),
        "{text}"
    );
    let (all, code) = doctor.text(&["-v"]).await;
    assert_eq!(code, 1);
    assert!(
        all.contains("\nFAIL create pods/portforward in shop: not allowed"),
        "{all}"
    );
    assert!(
        all.contains("\n    fix: ask whoever runs the cluster") && all.contains(role),
        "{all}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_server_lets_get_alone_forward() {
    let cluster = cluster(Options::old()).await;
    cluster.add_user(User::new("bob"));
    let mut rules = all_but(&[("create", "pods/portforward")]);
    rules.push(Rule::new(&["get"], &["endpoints"]).namespace("shop"));
    cluster.set_rules("bob", rules);
    let found = Doctor::of(&cluster, "bob").json().await;
    assert_eq!(found.with("fail"), [""; 0]);
    assert_eq!(
        found.with("warn"),
        [
            "permission.create.pods/portforward",
            "permission.intercept",
            "permission.install"
        ]
    );
    let forward = found.get("port-forward");
    assert!(forward.detail.starts_with("SPDY/3.1 by GET"), "{forward:?}");
    assert!(
        forward
            .detail
            .contains("spdy: create pods/portforward is not allowed"),
        "{forward:?}"
    );
}
