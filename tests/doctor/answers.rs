//! What the doctor says one can do, and what mends the rest.

use std::sync::Arc;

use kdev::app::demo::{Network, relay_pods};
use kdev_sim::{Options, Rule, SimCluster, User, shop};
use serde_json::json;

use crate::support::{Doctor, Document, cluster, unwrapped};

/// All commands that are asked about.
const ALL: [&str; 5] = ["run", "forward", "connect", "intercept", "install"];
/// Those that take no relay.
const USING: [&str; 3] = ["run", "forward", "connect"];

/// A cluster with a relay, whose pods know the Services only in a `network`.
async fn with_relay(network: Option<Network>) -> (SimCluster, Doctor) {
    kdev::app::descriptors::raise();
    let cluster = cluster(Options::default()).await;
    shop::add_cart(&cluster);
    // The others have ports that only root may listen on.
    for service in cluster.objects("services", "shop") {
        let name = service["metadata"]["name"].as_str().unwrap();
        if name != "cart" {
            cluster.remove_service("shop", name);
        }
    }
    let doctor = Doctor::of(&cluster, "dev");
    let pods = doctor.folder.0.join("pods");
    relay_pods(&cluster, "shop", &pods, "", network.map(Arc::new));
    let mut install = doctor.kdev(&["install", "--image", "relay"]);
    let done = install.output().await.unwrap();
    assert!(done.status.success(), "{done:?}");
    (cluster, doctor)
}

/// Reason and fix of what does not work.
fn no<'a>(found: &'a Document, command: &str) -> (&'a str, &'a str) {
    let answer = found.answer(command);
    assert_eq!(answer.can, Some(false), "{found:#?}");
    for id in &answer.checks {
        found.get(id);
    }
    assert!(!answer.checks.is_empty(), "{answer:?}");
    let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
    (text(&answer.reason), text(&answer.fix))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_role_edit_and_no_relay_all_but_intercepts() {
    let cluster = cluster(Options::default()).await;
    let doctor = Doctor::of(&cluster, "dev");
    let found = doctor.json().await;
    let asked: Vec<&str> = found.answers.iter().map(|a| a.command.as_str()).collect();
    assert_eq!(asked, ALL);
    assert_eq!(found.can(), ["run", "forward", "connect", "install"]);
    assert_eq!(
        no(&found, "intercept"),
        (
            "no relay is installed in namespace shop",
            "`kdev install -n shop` puts one there"
        )
    );
    assert_eq!(found.get("permission.intercept").status, "ok");
    assert_eq!(found.get("permission.install").status, "ok");
    assert_eq!(
        found.get("install").detail,
        "namespace shop takes the relay's objects and pods"
    );
    // It was a dry run.
    assert_eq!(cluster.object("deployments", "shop", "kdev-relay"), None);
    assert_eq!(cluster.object("secrets", "shop", "kdev-relay"), None);

    let (text, code) = doctor.text(&[]).await;
    assert_eq!(code, 0, "an intercept that cannot be is no failure");
    assert!(
        text.starts_with(
            "you can:    run, forward, connect, install\n\
             you cannot: intercept (global or personal), because no relay is installed in\n            \
             namespace shop\n            \
             fix: `kdev install -n shop` puts one there\n"
        ),
        "{text}"
    );
    assert!(
        text.ends_with("\n`kdev doctor -v` shows all 25 checks.\n"),
        "{text}"
    );
    assert!(!text.contains("api server"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let (all, _) = doctor.text(&["-v"]).await;
    assert!(all.contains("\n\nok   kubeconfig: context sim of"), "{all}");
    assert!(!all.contains("shows all"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_look_is_told_which_rights_are_missing() {
    let cluster = cluster(Options::default()).await;
    let doctor = Doctor::of(&cluster, "viewer");
    let found = doctor.json().await;
    assert_eq!(found.can(), [""; 0]);
    let lacks = "you may not get and create pods/portforward in namespace shop";
    for command in ["run", "forward", "connect", "intercept"] {
        let (reason, fix) = no(&found, command);
        assert_eq!(reason, lacks);
        assert!(
            fix.contains("`kdev-use`") && fix.contains("`edit`"),
            "{fix}"
        );
    }
    let (reason, fix) = no(&found, "install");
    let lacks_to_install = "you may not get and create secrets; create and delete configmaps; get, \
                            create and patch deployments.apps; get, create and patch \
                            poddisruptionbudgets.policy in namespace shop";
    assert_eq!(reason, lacks_to_install);
    assert!(fix.contains("role `edit` in namespace shop"), "{fix}");
    let (text, code) = doctor.text(&[]).await;
    assert_eq!(code, 1);
    let text = unwrapped(&text);
    let first = format!(
        "you cannot: run, forward, connect, intercept (global or personal), because {lacks} fix: "
    );
    assert!(text.starts_with(&first), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_for_intercepts_are_those_that_an_intercept_uses() {
    let cluster = cluster(Options::default()).await;
    cluster.add_user(User::new("bob"));
    let using = [
        Rule::new(&["get", "list", "watch"], &["pods", "services"]).namespace("shop"),
        Rule::new(&["get", "create"], &["pods/portforward"]).namespace("shop"),
        Rule::new(&["list"], &["endpointslices"]).namespace("shop"),
        Rule::new(&["get"], &["secrets"])
            .names(&["kdev-relay"])
            .namespace("shop"),
    ];
    cluster.set_rules("bob", using.clone());
    let found = Doctor::of(&cluster, "bob").json().await;
    assert_eq!(found.can(), USING);
    let (reason, fix) = no(&found, "intercept");
    assert_eq!(
        reason,
        "you may not create, patch and delete services; get secrets/kdev-relay-intercept; get \
         deployments.apps/kdev-relay; get and patch configmaps/kdev-relay-ports in namespace shop"
    );
    assert!(
        fix.contains("`kdev-intercept`") && fix.contains("`edit`"),
        "{fix}"
    );

    // As the role of cluster/rbac has them.
    let named = |verbs: &[&str], resource, name| {
        Rule::new(verbs, &[resource])
            .names(&[name])
            .namespace("shop")
    };
    let intercepting = [
        Rule::new(&["create", "patch", "delete"], &["services"]).namespace("shop"),
        named(&["get"], "secrets", "kdev-relay-intercept"),
        named(&["get"], "deployments", "kdev-relay"),
        named(&["get", "patch"], "configmaps", "kdev-relay-ports"),
    ];
    cluster.set_rules("bob", using.into_iter().chain(intercepting));
    let found = Doctor::of(&cluster, "bob").json().await;
    assert_eq!(found.get("permission.intercept").status, "ok");
    let (reason, fix) = no(&found, "intercept");
    assert_eq!(reason, "no relay is installed in namespace shop");
    assert!(
        fix.ends_with("or somebody who has it for `kdev install -n shop`"),
        "who may not install is not told to: {fix}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_relay_that_reaches_services_everything_works() {
    let network = Network::take().expect("Linux has all of 127.0.0.0/8");
    let (_cluster, doctor) = with_relay(Some(network)).await;
    let found = doctor.json().await;
    assert!(found.ok, "{found:#?}");
    assert_eq!(found.can(), ALL, "{found:#?}");
    let reach = found.get("relay.reach");
    assert_eq!(reach.status, "ok", "{reach:?}");
    assert!(
        reach.detail.contains(" reaches cart:8080 in ") && reach.detail.contains(" ms"),
        "{reach:?}"
    );
    let installed = &found.get("install").detail;
    assert!(
        installed.ends_with("is installed in namespace shop"),
        "{installed}"
    );
    let (text, _) = doctor.text(&[]).await;
    assert!(
        text.starts_with(
            "you can:    run, forward, connect, intercept (global or personal), install\n\n"
        ),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_reaches_nothing_is_a_warning_with_the_likely_cause() {
    // It has no DNS.
    let (_cluster, doctor) = with_relay(None).await;
    let found = doctor.json().await;
    assert!(found.ok, "{found:#?}");
    assert_eq!(found.can(), ["run", "forward", "connect", "install"]);
    let reach = found.get("relay.reach");
    assert_eq!(reach.status, "warn", "{reach:?}");
    let (reason, fix) = no(&found, "intercept");
    assert_eq!(reason, reach.detail);
    let tried = "tried, and cart:8080 cannot be reached: the DNS of the relay's pod failed";
    assert!(reason.contains(tried), "{reason}");
    assert!(
        fix.contains("NetworkPolicy") && fix.contains("DNS (port 53)"),
        "{fix}"
    );
    assert_eq!(found.answer("intercept").checks, ["relay.reach"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_no_tunnel_comes_to_takes_no_intercepts() {
    let (cluster, doctor) = with_relay(None).await;
    // The relay has another key than the Secret says.
    let mut secret = cluster.object("secrets", "shop", "kdev-relay").unwrap();
    secret["data"]["key"] = json!("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    cluster.put_object("secrets", secret);
    let found = doctor.json().await;
    assert!(found.ok, "{found:#?}");
    assert_eq!(found.can(), ["run", "forward", "connect", "install"]);
    let (reason, fix) = no(&found, "intercept");
    assert!(reason.starts_with("none to pod kdev-relay-"), "{reason}");
    assert!(fix.contains("`kdev upgrade`"), "{fix}");
    let reach = found.get("relay.reach");
    assert_eq!(reach.status, "skipped", "{reach:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_would_refuse_the_relay_is_said_before_an_install() {
    let cluster = cluster(Options::default()).await;
    cluster.add_policy("labelled", &["pods"], |_| {
        Err("label team is required".to_owned())
    });
    let found = Doctor::of(&cluster, "dev").json().await;
    assert!(found.ok, "{found:#?}");
    assert_eq!(found.can(), USING);
    let (reason, fix) = no(&found, "install");
    assert!(
        reason.starts_with("the cluster would refuse it:")
            && reason.contains("label team is required"),
        "{reason}"
    );
    assert!(fix.contains("--label team=VALUE"), "{fix}");
    assert_eq!(found.answer("install").checks, ["install"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_way_to_the_cluster_there_is_one_reason() {
    let cluster = cluster(Options::default()).await;
    cluster.stop_api().await;
    let doctor = Doctor::of(&cluster, "dev");
    let found = doctor.json().await;
    assert_eq!(found.can(), [""; 0]);
    for command in ALL {
        let (reason, fix) = no(&found, command);
        assert!(reason.ends_with("nothing listens there"), "{reason}");
        assert!(fix.starts_with("start the cluster"), "{fix}");
        assert_eq!(found.answer(command).checks, ["api-server"]);
    }
    let (text, code) = doctor.text(&[]).await;
    assert_eq!(code, 1);
    assert_eq!(text.matches("nothing listens there").count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_does_not_say_is_not_guessed() {
    let cluster = cluster(Options::default()).await;
    cluster.faults().turn_away(kdev_sim::TurnAway {
        code: 503,
        retry_after: None,
        path: "/selfsubjectaccess".into(),
        count: u64::MAX,
    });
    let doctor = Doctor::of(&cluster, "dev");
    let found = doctor.json().await;
    assert_eq!(found.can(), USING);
    let install = found.answer("install");
    assert_eq!(install.can, None, "{install:?}");
    let (text, code) = doctor.text(&[]).await;
    assert_eq!(code, 0);
    assert!(
        text.contains(
            "\nnot known:  install, because the API server did not say what you may do\n"
        ),
        "{text}"
    );
}
