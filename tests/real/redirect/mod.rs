//! A Service's traffic to the relay and back on a real cluster, by an account with the role `edit` and
//! nothing else, while callers are at work.

mod stage;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kdev::intercept::{Change, Left, Redirect as _, RedirectError, Redirected as _};
use kdev::k8s::redirect::list::Scope;
use kdev::k8s::redirect::sweep::put_back;
use serde_json::json;

use self::stage::{Stage, alone, wanted};
use crate::lab::{self, Blocked};
use crate::team;

/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn there_and_back_loses_nothing_and_leaves_no_trace() {
    let stage = Stage::set_up("redirect", true).await;
    let (before, load) = (stage.objects(), stage.load("orders"));
    let redirector = stage.redirector();
    let came = stage.inbound();
    for round in 0..5 {
        let begun = Instant::now();
        let id = format!("c{round}");
        let (first, second) = tokio::join!(
            redirector.redirect(wanted("orders", &id)),
            redirector.redirect(wanted("balanced", &id)),
        );
        let (mut first, mut second) = (first.unwrap(), second.unwrap());
        println!(
            "there after {:?}, at {:?}",
            begun.elapsed(),
            std::time::UNIX_EPOCH.elapsed()
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        assert_eq!(first.restore().await.unwrap(), Left::Last);
        assert_eq!(second.restore().await.unwrap(), Left::Last);
        println!(
            "back after {:?}, at {:?}",
            begun.elapsed(),
            std::time::UNIX_EPOCH.elapsed()
        );
        // A node that lags still sends callers to the relay, which needs what is swept then.
        tokio::time::sleep(Duration::from_secs(2)).await;
        stage.clear().await;
    }
    let calls = load.sound();
    let came = stage.inbound() - came;
    assert!(came > 100, "{came} of {} by the relay", calls.0.len());
    let after = stage.objects();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
    let slow = calls.slow();
    assert!(slow.len() <= 3, "{slow:?}");
    // The team goes on as if nothing had been: its next change is nobody else's business.
    let text = std::fs::read_to_string(team::manifest().path()).unwrap();
    let text = text.replace("targetPort: http}", "targetPort: 8080}");
    let text = text.replace(
        "selector: {app: orders}",
        "selector: {app: orders, tier: front}",
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let file = file.path().to_str().unwrap();
    let apply = ["apply", "--server-side", "--field-manager=team", "-f", file];
    stage.place.site.kubectl(&apply).unwrap();
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_plain_apply_in_the_middle_restores_by_itself() {
    let stage = Stage::set_up("apply", false).await;
    let (before, load) = (stage.objects(), stage.load("orders"));
    let redirector = stage.redirector();
    let mut guard = redirector.redirect(wanted("orders", "a")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let manifest = team::manifest();
    let apply = ["apply", "-f", manifest.path().to_str().unwrap()];
    stage.place.site.kubectl(&apply).unwrap();
    let selector = stage.place.site.field("service/orders", ".spec.selector");
    assert_eq!(selector, r#"{"app":"orders"}"#);
    let applied = Instant::now();
    let change = tokio::time::timeout(LIMIT, guard.changed()).await.unwrap();
    println!("{change:?} after {:?}", applied.elapsed());
    assert!(matches!(change, Change::Drifted(_)), "{change:?}");
    assert!(applied.elapsed() < Duration::from_secs(2));
    guard.again().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(guard.restore().await.unwrap(), Left::Last);
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.clear().await;
    load.sound();
    // The apply itself has its time in `managedFields`.
    let specs = |objects: &[serde_json::Value]| -> Vec<serde_json::Value> {
        objects
            .iter()
            .map(|o| {
                json!([
                    o["spec"],
                    o["metadata"]["labels"],
                    o["metadata"]["annotations"]
                ])
            })
            .collect()
    };
    assert_eq!(specs(&stage.objects()), specs(&before));
    let managers = stage
        .place
        .site
        .field("service/orders", ".metadata.managedFields[*].manager");
    assert!(
        !managers.split(' ').any(|manager| manager == "kdev"),
        "{managers}"
    );
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn one_of_fifty_wins() {
    let stage = Stage::set_up("fifty", true).await;
    let before = stage.objects();
    let redirectors: Vec<_> = (0..50).map(|_| stage.redirector()).collect();
    let begun = Instant::now();
    let tries = redirectors.iter().enumerate();
    let tries = tries.map(|(n, to)| to.redirect(alone("orders", &format!("c{n}"))));
    let (won, lost): (Vec<_>, Vec<_>) = join_all(tries).await.into_iter().partition(Result::is_ok);
    println!("{} won after {:?}", won.len(), begun.elapsed());
    assert_eq!(won.len(), 1);
    for error in lost.into_iter().map(Result::unwrap_err) {
        assert!(matches!(error, RedirectError::Conflict(_)), "{error}");
    }
    let mut guard = won.into_iter().next().unwrap().unwrap();
    assert_eq!(guard.restore().await.unwrap(), Left::Last);
    stage.clear().await;
    // All of them at once where all get along, and each leaves in its turn.
    let tries = redirectors.iter().take(20).enumerate();
    let tries = tries.map(|(n, to)| to.redirect(wanted("orders", &format!("d{n}"))));
    let begun = Instant::now();
    let mut guards: Vec<_> = join_all(tries)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    println!("20 joined after {:?}", begun.elapsed());
    let left = join_all(guards.iter_mut().map(|guard| guard.restore())).await;
    let last = left
        .iter()
        .filter(|left| *left.as_ref().unwrap() == Left::Last)
        .count();
    assert!(last >= 1, "{left:?}");
    stage.clear().await;
    assert_eq!(stage.objects(), before);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn what_a_killed_kdev_left_is_put_back() {
    let stage = Stage::set_up("killed", true).await;
    let (before, load) = (stage.objects(), stage.load("orders"));
    drop(
        stage
            .redirector()
            .redirect(wanted("orders", "a"))
            .await
            .unwrap(),
    );
    // Both pods of the relay anew, with nobody to tell them anything.
    let old = stage.place.site.relays();
    for pod in &old {
        stage
            .place
            .site
            .kubectl(&["delete", "pod", pod, "--wait=false"])
            .unwrap();
        stage.place.site.wait("another relay pod", |site| {
            let now = site.relays();
            now.len() == 2 && !now.contains(pod)
        });
    }
    let scope = Scope::Namespace(stage.place.site.0.clone());
    let done = put_back(
        &stage.client,
        &scope,
        "me",
        &|_| true,
        &|_, _| true,
        &mut |_| {},
    )
    .await;
    assert_eq!(done.unwrap()[0].left, Left::Last);
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.clear().await;
    load.sound();
    assert_eq!(stage.objects(), before);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn an_upgrade_of_the_relay_leaves_the_service_working() {
    let stage = Stage::set_up("upgraded", true).await;
    let load = stage.load("balanced");
    let mut guard = stage
        .redirector()
        .redirect(wanted("balanced", "a"))
        .await
        .unwrap();
    let old = stage.place.site.relays();
    stage.place.install(&["--deny", "10.9.9.9"]).ok();
    stage.place.site.wait("other relay pods", |site| {
        let now = site.relays();
        now.len() == 2 && now.iter().all(|pod| !old.contains(pod))
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(guard.restore().await.unwrap(), Left::Last);
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.sound();
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn who_goes_is_said() {
    let stage = Stage::set_up("gone", true).await;
    let redirector = stage.redirector();
    let mut orders = redirector.redirect(wanted("orders", "a")).await.unwrap();
    let mut balanced = redirector.redirect(wanted("balanced", "b")).await.unwrap();
    stage
        .place
        .site
        .kubectl(&["delete", "service", "orders"])
        .unwrap();
    let change = tokio::time::timeout(LIMIT, orders.changed()).await.unwrap();
    assert_eq!(change, Change::ServiceGone);
    stage.place.site.wait("its origin to go", |site| {
        let label = "kdev.dev/origin-of=orders";
        site.kubectl(&["get", "services", "-l", label, "-o", "name"])
            .unwrap()
            .is_empty()
    });
    let namespace = &stage.place.site.0;
    lab::kubectl(&["delete", "namespace", namespace, "--wait=false"]).unwrap();
    let change = tokio::time::timeout(LIMIT, balanced.changed())
        .await
        .unwrap();
    // The account's rights, or itself, may go before the rest, and with them the answer to why.
    let gone = [
        Change::NamespaceGone,
        Change::RightsGone,
        Change::ServiceGone,
        Change::RelayDown,
    ];
    assert!(gone.contains(&change), "{change:?}");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn what_the_relay_cannot_reach_is_refused_before_anything_is_changed() {
    let stage = Stage::set_up("blocked", true).await;
    let before = stage.place.site.object("service/orders");
    // As a network policy would: who enforces those is switched on for all namespaces at once.
    let blocked = Blocked::from(&stage.place.site.relay_addresses(), "--dport 8080");
    let error = stage
        .redirector()
        .redirect(wanted("orders", "a"))
        .await
        .unwrap_err();
    println!("{error}");
    assert!(
        matches!(error, RedirectError::Unreachable { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("network policy"), "{error}");
    assert_eq!(
        stage.place.site.object("service/orders"),
        before,
        "not even a version"
    );
    let label = "kdev.dev/origin-of";
    let origins = stage
        .place
        .site
        .kubectl(&["get", "services", "-l", label, "-o", "name"]);
    assert_eq!(origins.unwrap(), "");
    drop(blocked);
    let mut guard = stage
        .redirector()
        .redirect(wanted("orders", "a"))
        .await
        .unwrap();
    assert_eq!(guard.restore().await.unwrap(), Left::Last);
    stage.close().await;
}

/// One that no Service had when the relay came, on a Service without a single pod.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_new_selector_key_is_a_rolling_update_of_the_relay() {
    let stage = Stage::set_up("key", true).await;
    let load = stage.load("orders");
    let redirector = stage.redirector();
    let mut orders = redirector.redirect(wanted("orders", "a")).await.unwrap();
    stage.place.apply(
        "---\n{apiVersion: v1, kind: Service, metadata: {name: late}, spec: {selector: {example.com/part: x}, ports: [{port: 80}]}}",
    );
    let before = stage.place.site.object("service/late")["spec"].clone();
    let begun = Instant::now();
    let mut late = redirector.redirect(wanted("late", "b")).await.unwrap();
    println!("there after {:?}", begun.elapsed());
    stage.place.site.wait("the relay's pods behind it", |site| {
        let path = ".subsets[*].addresses[*].targetRef.name";
        site.field("endpoints/late", path)
            .split_whitespace()
            .count()
            == 2
    });
    assert_eq!(late.restore().await.unwrap(), Left::Last);
    assert_eq!(stage.place.site.object("service/late")["spec"], before);
    assert_eq!(orders.restore().await.unwrap(), Left::Last);
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.sound();
    stage.close().await;
}
