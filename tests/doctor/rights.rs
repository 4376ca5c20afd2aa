//! Each missing right is named by its verb and resource.

use kdev_sim::{Options, Rule, User};

use crate::support::{Doctor, cluster};

/// The rights that a good role has, as `(verb, resource)`.
const NEEDED: [(&str, &str); 6] = [
    ("get", "pods"),
    ("list", "pods"),
    ("get", "services"),
    ("list", "services"),
    ("get", "pods/portforward"),
    ("create", "pods/portforward"),
];
const RECOMMENDED: [(&str, &str); 3] = [
    ("watch", "pods"),
    ("watch", "services"),
    ("list", "endpointslices"),
];

fn all_but(left_out: (&str, &str)) -> Vec<Rule> {
    let rights = NEEDED.iter().chain(&RECOMMENDED);
    rights
        .filter(|right| **right != left_out)
        .map(|(verb, resource)| Rule::new(&[verb], &[resource]).namespace("shop"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_and_missing_is_named() {
    let cluster = cluster(Options::default()).await;
    cluster.add_user(User::new("bob"));
    for (verb, resource) in NEEDED {
        cluster.set_rules("bob", all_but((verb, resource)));
        let doctor = Doctor::of(&cluster, "bob");
        let found = doctor.json().await;
        let id = format!("permission.{verb}.{resource}");
        let mut expected = vec![id.as_str()];
        if verb == "create" {
            // A server of today asks for it in every form.
            expected.push("port-forward");
        }
        assert_eq!(found.with("fail"), expected, "{found:#?}");
        let check = found.get(&id);
        assert_eq!(check.title, format!("{verb} {resource} in shop"));
        assert!(check.detail.starts_with("not allowed"), "{check:?}");
        let rule = format!("resources: [{resource:?}], verbs: [{verb:?}]");
        assert!(check.fix.as_ref().unwrap().contains(&rule), "{check:?}");
        let role = found.role.as_ref().unwrap();
        assert!(role.contains("name: \"bob\"") && role.contains("namespace: shop"));
        if verb == "list" && resource == "pods" {
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
async fn what_would_help_is_named_and_no_failure() {
    let cluster = cluster(Options::default()).await;
    cluster.add_user(User::new("bob"));
    for (verb, resource) in RECOMMENDED {
        cluster.set_rules("bob", all_but((verb, resource)));
        let found = Doctor::of(&cluster, "bob").json().await;
        assert!(found.ok && found.role.is_none());
        assert_eq!(
            found.with("warn"),
            [format!("permission.{verb}.{resource}")]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_ends_with_what_to_send_to_the_administrator() {
    let cluster = cluster(Options::default()).await;
    let (text, code) = Doctor::of(&cluster, "viewer").text(&[]).await;
    assert_eq!(code, 1);
    assert!(
        text.contains("\nFAIL create pods/portforward in shop: not allowed"),
        "{text}"
    );
    assert!(
        text.contains("\n    fix: ask whoever runs the cluster"),
        "{text}"
    );
    assert!(text.contains("\n  kind: RoleBinding\n"), "{text}");
    assert!(
        text.contains("needs is missing: get pods/portforward in shop, create pods/portforward in"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_server_lets_get_alone_forward() {
    let cluster = cluster(Options::old()).await;
    cluster.add_user(User::new("bob"));
    let mut rules = all_but(("create", "pods/portforward"));
    rules.push(Rule::new(&["get"], &["endpoints"]).namespace("shop"));
    cluster.set_rules("bob", rules);
    let found = Doctor::of(&cluster, "bob").json().await;
    assert_eq!(found.with("fail"), ["permission.create.pods/portforward"]);
    let forward = found.get("port-forward");
    assert!(forward.detail.starts_with("SPDY/3.1 by GET"), "{forward:?}");
    assert!(
        forward
            .detail
            .contains("spdy: create pods/portforward is not allowed"),
        "{forward:?}"
    );
}
