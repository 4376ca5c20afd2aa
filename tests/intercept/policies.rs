//! Policies about Services and pods, met by an intercept.

use serde_json::Value;

use crate::support::{Team, app, nobody};

/// A policy about the Services that kdev makes: each has `field` with `key`.
fn demand(team: &Team, field: &'static str, word: &'static str, key: &'static str) {
    team.cluster.add_policy(key, &["services"], move |service| {
        let metadata = &service["metadata"];
        let own = metadata["name"]
            .as_str()
            .unwrap_or_default()
            .starts_with("kdev-");
        match own && !metadata[field][key].is_string() {
            true => Err(format!("{word} {key} is required")),
            false => Ok(()),
        }
    });
}

fn origin(team: &Team) -> Option<Value> {
    let services = team.cluster.objects("services", "shop").into_iter();
    let own = |service: &Value| service["metadata"]["labels"]["kdev.dev/origin-of"] == "cart";
    services.into_iter().find(own)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_of_an_intercept_carry_what_is_asked_for() {
    let team = Team::set_up().await;
    let install = ["install", "--image", "relay", "--label", "team=shop"];
    team.kdev("ada", &install).await.ok();
    let before = team.service();
    demand(&team, "labels", "label", "team");
    demand(&team, "annotations", "annotation", "owner");

    let to = nobody().await.to_string();
    let refused = team.kdev("ada", &["intercept", "cart", "--to", &to]).await;
    let refused = refused.failed();
    for text in [
        "Service kdev-2",
        "'owner' denied request: annotation owner is required",
        "--annotation owner=VALUE",
    ] {
        assert!(refused.contains(text), "{refused}");
    }
    assert_eq!(team.service(), before);
    assert!(origin(&team).is_none());

    // What the relay was installed with needs not be said again.
    let owner = ["--annotation", "owner=ada"];
    let live = team.intercept("ada", app("ada's").await, &owner).await;
    assert_eq!(team.get("").await.1, "ada's");
    let metadata = &origin(&team).unwrap()["metadata"];
    assert_eq!(metadata["labels"]["team"], "shop");
    assert_eq!(metadata["annotations"]["owner"], "ada");
    live.end().await;
    assert_eq!(team.service(), before);

    // Over what the relay has.
    let more = ["--annotation", "owner=ada", "--label", "team=other"];
    let live = team.intercept("ada", app("ada's").await, &more).await;
    let labels = origin(&team).unwrap()["metadata"]["labels"].clone();
    assert_eq!(labels["team"], "other");
    live.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_pods_are_refused_is_told_as_installed_and_why() {
    let team = Team::set_up().await;
    let before = team.service();
    team.cluster.add_policy("labelled", &["pods"], |_| {
        Err("label team is required".to_owned())
    });
    for pod in team.cluster.objects("pods", "shop") {
        let metadata = &pod["metadata"];
        if metadata["labels"]["app.kubernetes.io/name"] == "kdev-relay" {
            let name = metadata["name"].as_str().unwrap();
            team.cluster.remove_pod("shop", name);
        }
    }
    let to = nobody().await.to_string();
    let begun = std::time::Instant::now();
    let refused = team.kdev("ada", &["intercept", "cart", "--to", &to]).await;
    let refused = refused.failed();
    for text in [
        "the relay in namespace shop cannot be reached: it is installed, 0 of 2 pods ready: no pod \
         can be made (FailedCreate)",
        "label team is required",
        "`kdev install -n shop` has it try again",
    ] {
        assert!(refused.contains(text), "{refused}");
    }
    assert!(!refused.contains("was not found"), "{refused}");
    // Waiting for tunnels makes no pod.
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    assert_eq!(team.service(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_arrive_gives_the_service_back() {
    let team = Team::set_up().await;
    let before = team.service();
    let to = app("ada's").await.to_string();
    // The relay's pods reach each other, which is all that can be seen ahead, and callers do not.
    team.cluster.faults().closed_ports(Some(20_000..=20_511));
    for conditions in [&["--header", "x-user: ada"][..], &[]] {
        let args = [&["intercept", "cart", "--to", &to], conditions].concat();
        let refused = team.kdev("ada", &args).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(!refused.out.contains("requests"), "{refused:?}");
        let said = refused.failed();
        for text in [
            "did not arrive at the relay",
            "the Service has its own pods again",
            "a network policy may keep callers from the relay",
            "`kdev install -n shop --network-policy on` lets them in",
        ] {
            assert!(said.contains(text), "{said}");
        }
        // Which would be the outage that it ended.
        assert!(!said.contains("--force"), "{said}");
        // Nobody has to do anything.
        assert!(!said.contains("restore"), "{said}");
        assert_eq!(team.service(), before);
        assert!(team.claims().is_empty());
        assert!(team.is_at_the_pods("").await);
    }
    let forced = ["--header", "x-user: ada", "--force"];
    let mut live = team.begin("ada", to.parse().unwrap(), &forced);
    live.note("by --force it goes on, and callers may get no answer")
        .await;
    live.event("live").await;
    live.end().await;
    team.clears().await;
}
