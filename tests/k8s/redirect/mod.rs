//! A Service's traffic to the relay and back: what is changed, who may, and what others do meanwhile.

mod others;
mod policies;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kdev::dial::DialError;
use kdev::intercept::{
    Change, Left, Redirect as _, RedirectError, Redirected as _, Verdict, Wanted,
};
use kdev::k8s::redirect::Guard;
use kdev::k8s::redirect::list::{Scope, list};
use kdev::k8s::redirect::sweep::{Last, put_back};
use kdev_sim::{Rule, User};
use serde_json::{Value, json};

use self::stage::{Answers, LIMIT, RELAY, SERVICES, Stage, alone, judged, next, wanted};
use crate::support::within;

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_leaves_everything_as_it_was() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let (before, pods) = (stage.as_it_is("web"), stage.behind("web"));
    assert_eq!(pods.len(), 6);

    let mut guard = stage.redirect("a").await.unwrap();
    let landings: Vec<(String, u16, u16)> = guard
        .landings()
        .iter()
        .map(|l| {
            (
                l.name.clone(),
                l.port,
                l.landing - guard.landings()[0].landing,
            )
        })
        .collect();
    let expected = [("http", 80, 0), ("same", 8080, 1), ("admin", 9090, 2)];
    assert_eq!(landings, expected.map(|(n, p, l)| (n.to_owned(), p, l)));
    assert_eq!(guard.landings()[0].protocol.as_deref(), Some("http"));
    let first = guard.landings()[0].landing;
    // Callers come to the relay, and from there to the original pods.
    let relays = stage.relays();
    let came: Vec<_> = relays
        .iter()
        .flat_map(|pod| (0..3).map(|n| (pod.clone(), u64::from(first) + n)))
        .collect();
    assert_eq!(stage.behind("web"), came);
    let origin = format!("kdev-{first}");
    assert_eq!(stage.behind(&origin), pods);
    // Each replica is to reach the port that is wanted, and the other replica where callers arrive;
    // one looks at the ports that come along.
    let asked = stage.inside.asked.lock().unwrap().clone();
    let (names, addresses): (Vec<_>, Vec<_>) = asked
        .iter()
        .partition(|(_, target)| target.host.to_string() == origin);
    let tried = |port: u16| {
        names
            .iter()
            .filter(|(_, target)| target.port == port)
            .count()
    };
    assert_eq!([0, 1, 2].map(|n| tried(first + n)), [2, 1, 1], "{asked:?}");
    assert_eq!(addresses.len(), 2, "{asked:?}");
    assert!(addresses.iter().all(|(_, target)| target.port == first));
    // What else is on it stays, and what is on it is not on the origin.
    let swapped = stage.service("web").unwrap();
    assert_eq!(
        swapped["metadata"]["annotations"],
        before["metadata"]["annotations"]
    );
    assert_eq!(
        swapped["spec"]["ports"][0]["nodePort"],
        before["spec"]["ports"][0]["nodePort"]
    );
    let there = stage.service(&origin).unwrap();
    assert_eq!(there["spec"]["type"], "ClusterIP");
    assert_eq!(there["metadata"]["annotations"].get("note"), None);

    assert_eq!(guard.restore().await.unwrap(), Left::Last);
    assert_eq!(stage.as_it_is("web"), before);
    assert_eq!(stage.behind("web"), pods);
    assert_eq!(stage.origins().len(), 1, "callers may still come");
    stage.clear().await;
    assert!(stage.origins().is_empty());
    // The team goes on as if nothing had been.
    let mut manifest = stage.manifest();
    manifest["spec"]["selector"] = json!({"app": "web", "tier": "front"});
    manifest["spec"]["ports"][0]["targetPort"] = json!(8080);
    stage.apply(&manifest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_fifty_wins_where_only_one_may() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    let redirector = stage.redirector();
    let tries = (0..50).map(|n| redirector.redirect(alone(&format!("c{n}"))));
    let results = tokio::time::timeout(LIMIT, join_all(tries)).await.unwrap();
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for error in lost.into_iter().map(Result::unwrap_err) {
        assert!(
            matches!(&error, RedirectError::Conflict(why) if why.contains("owner of")),
            "{error}"
        );
    }
    assert_eq!(stage.origins().len(), 1);
    let mut guard = won.into_iter().next().unwrap().unwrap();
    assert_eq!(guard.restore().await.unwrap(), Left::Last);
    stage.clear().await;
    assert_eq!(stage.as_it_is("web"), before);
    assert!(stage.origins().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_share_a_service_and_the_last_gives_it_back() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    let redirector = stage.redirector();
    let all = (0..20).map(|n| redirector.redirect(wanted(&format!("c{n}"))));
    let mut guards: Vec<_> = join_all(all)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let listed = list(&stage.client, &Scope::Namespace("shop".to_owned()))
        .await
        .unwrap();
    assert_eq!((listed.len(), listed[0].claims.len()), (1, 20));
    let last = guards.pop().unwrap();
    let left = join_all(guards.iter_mut().map(|guard| guard.restore())).await;
    assert!(
        left.into_iter()
            .all(|left| matches!(left.unwrap(), Left::Others(_)))
    );
    assert_ne!(stage.as_it_is("web"), before);
    let mut last = last;
    assert_eq!(last.restore().await.unwrap(), Left::Last);
    assert_eq!(stage.as_it_is("web"), before);
    // More than there is room for is refused with the number.
    let crowd: Vec<_> = (0..500)
        .map(|n| json!({"id": n.to_string(), "owner": "o"}))
        .collect();
    let mut guard = redirector.redirect(wanted("first")).await.unwrap();
    let origin = stage.origins()[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let claims =
        json!({"metadata": {"annotations": {"kdev.dev/claims": json!(crowd).to_string()}}});
    stage
        .client
        .merge::<Value>(&format!("{SERVICES}/{origin}"), &claims)
        .await
        .unwrap();
    let refused = redirector.redirect(wanted("more")).await.unwrap_err();
    assert!(refused.to_string().contains("501 intercepts"), "{refused}");
    assert_eq!(guard.restore().await.unwrap(), Left::Others(500));
}

/// Whoever gives a Service back and whoever takes it at that moment never leave it in between.
#[tokio::test(flavor = "multi_thread")]
async fn coming_and_going_at_once_ends_well() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    let swapped =
        |stage: &Stage| stage.service("web").unwrap()["spec"]["selector"]["app"] == "kdev-relay";
    let actor = async |name: &str| {
        // Each as a kdev of its own.
        let redirector = stage.redirector();
        for round in 0..6 {
            let id = format!("{name}-{round}");
            let mut guard = redirector.redirect(wanted(&id)).await.unwrap();
            assert!(swapped(&stage), "{id} has it");
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..20))).await;
            assert!(swapped(&stage), "{id} still has it");
            guard.restore().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT * 2, async {
        tokio::join!(actor("a"), actor("b"), actor("c"), actor("d"))
    })
    .await
    .unwrap();
    assert_eq!(stage.as_it_is("web"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_without_anybody_are_put_back_and_their_owners_told() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    let mut kept = stage.redirect("kept").await.unwrap();
    drop(stage.redirect("killed").await.unwrap());
    let scope = Scope::Namespace("shop".to_owned());
    let ends = |_: &_, claim: &kdev::intercept::Claim| claim.id == "killed";
    let done = put_back(&stage.client, &scope, "bob", &|_| true, &ends, &mut |_| {})
        .await
        .unwrap();
    assert_eq!((done.len(), &done[0].left), (1, &Left::Others(1)));
    assert_eq!(done[0].ended[0].id, "killed");
    // The other one too, which hears of it.
    let all = |_: &_, _: &_| true;
    let done = put_back(&stage.client, &scope, "bob", &|_| true, &all, &mut |_| {})
        .await
        .unwrap();
    assert_eq!(done[0].left, Left::Last);
    assert_eq!(
        next(&mut kept).await,
        Change::ClaimGone(Some("bob".to_owned()))
    );
    assert_eq!(stage.as_it_is("web"), before);
    assert_eq!(stage.origins().len(), 1, "callers may still come");
    stage.clear().await;
    assert!(stage.origins().is_empty());
    let done = put_back(&stage.client, &scope, "bob", &|_| true, &all, &mut |_| {}).await;
    assert!(done.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_late_callers_need_stays_while_they_come() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    let mut guard = stage.redirect("a").await.unwrap();
    let none = stage.cleared(Last::Never).await;
    assert!(
        none.is_empty(),
        "one that is claimed is nobody's to clear: {none:?}"
    );
    assert_eq!(stage.origins().len(), 1);
    let origin = guard.origin().to_owned();
    let given_back = async |ago: u64| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let said = json!({"kdev.dev/given-back": (now - ago).to_string(), "kdev.dev/claims": "[]"});
        let patch = json!({"metadata": {"annotations": said}});
        let path = format!("{SERVICES}/{origin}");
        stage.client.merge::<Value>(&path, &patch).await.unwrap();
    };
    // Whoever took the last claim off died right then: without the origin nobody knew the way back.
    given_back(100).await;
    let led = stage.as_it_is("web");
    let stays = stage.cleared(Last::NoRelay).await;
    assert!(stays.len() == 1 && stays[0].leads_to_relay, "{stays:?}");
    assert_eq!(stage.as_it_is("web"), led);
    assert_eq!(stage.origins().len(), 1);
    assert_eq!(guard.restore().await.unwrap(), Left::Last);
    assert_eq!(stage.as_it_is("web"), before);

    let ago = |seconds| Last::Ago(Duration::from_secs(seconds));
    for (age, last) in [
        (5, Last::Never),
        (5, ago(60)),
        (100, ago(9)),
        (20, Last::Unknown),
    ] {
        given_back(age).await;
        let stays = stage.cleared(last).await;
        assert!(
            stays.len() == 1 && !stays[0].leads_to_relay,
            "{age} {stays:?}"
        );
        assert_eq!(stage.origins().len(), 1, "{age} {last:?}");
    }
    given_back(100).await;
    assert!(stage.cleared(ago(11)).await.is_empty());
    assert!(stage.origins().is_empty());
    assert_eq!(guard.restore().await.unwrap(), Left::Nothing);
    assert_eq!(stage.as_it_is("web"), before);
}

/// As far as a kdev came that died between giving back the Service and giving back its fields.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_was_broken_off_is_gone_to_its_end() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    let guard = stage.redirect("a").await.unwrap();
    let path = format!("{SERVICES}/web?fieldManager=kdev");
    let back = json!({
        "metadata": {"labels": {"kdev.dev/intercepted": null}},
        "spec": {"selector": before["spec"]["selector"], "ports": before["spec"]["ports"]},
    });
    stage.client.merge::<Value>(&path, &back).await.unwrap();
    assert_ne!(stage.as_it_is("web"), before);
    drop(guard);
    let scope = Scope::Namespace("shop".to_owned());
    put_back(
        &stage.client,
        &scope,
        "me",
        &|_| true,
        &|_, _| true,
        &mut |_| {},
    )
    .await
    .unwrap();
    assert_eq!(stage.as_it_is("web"), before);
}

fn timed_out() -> DialError {
    DialError::TimedOut {
        target: "kdev-20000:20000".to_owned(),
        after: Duration::from_secs(1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_relay_cannot_reach_is_refused_before_anything_is_changed() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.service("web").unwrap();
    stage.answers(|answers| answers.pods = Some(timed_out()));
    let error = stage.redirect("a").await.unwrap_err();
    assert!(
        matches!(error, RedirectError::Unreachable { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("network policy"), "{error}");
    assert_eq!(stage.service("web").unwrap(), before, "not even a version");
    assert!(stage.origins().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relays_pods_get_the_labels_that_a_selector_needs() {
    let stage = Stage::set_up().await;
    let mut manifest = stage.manifest();
    manifest["spec"]["selector"] =
        json!({"app": "web", "tier": "front", "app.kubernetes.io/managed-by": "helm"});
    stage.apply(&manifest).await.unwrap();
    let before = stage.as_it_is("web");
    let old = stage.relays();
    let mut guard = stage.redirect("a").await.unwrap();
    let new = stage.relays();
    assert!(new.iter().all(|pod| !old.contains(pod)), "{new:?}");
    assert_eq!(stage.behind("web").len(), 6, "all relay pods");
    guard.restore().await.unwrap();
    assert_eq!(stage.as_it_is("web"), before);
    // The next one needs nothing more.
    let mut guard = stage.redirect("b").await.unwrap();
    assert_eq!(stage.relays(), new);
    guard.restore().await.unwrap();
}

/// What the roles of `cluster/rbac` allow, in the namespace.
fn roles() -> Vec<Rule> {
    let mut all = Vec::new();
    for role in ["use", "intercept"] {
        let path = format!("{}/cluster/rbac/{role}.yaml", env!("CARGO_MANIFEST_DIR"));
        let role: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for rule in role["rules"].as_array().unwrap() {
            let of = |field: &str| -> Vec<String> {
                let texts = rule[field].as_array().into_iter().flatten();
                texts
                    .map(|text| text.as_str().unwrap().to_owned())
                    .collect()
            };
            let [verbs, groups, resources, names] =
                ["verbs", "apiGroups", "resources", "resourceNames"].map(of);
            let texts = |all: &[String]| -> Vec<&'static str> {
                all.iter().map(|text| &*text.clone().leak()).collect()
            };
            let rule = Rule::new(&texts(&verbs), &texts(&resources)).namespace("shop");
            all.push(rule.groups(&texts(&groups)).names(&texts(&names)));
        }
    }
    all
}

/// Whoever may change the relay's Deployment reads every Secret by it, so the role may not.
#[tokio::test(flavor = "multi_thread")]
async fn the_role_for_intercepts_needs_no_right_to_change_what_runs() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let user = User::new("ann").rules(roles());
    let ann = stage.redirector_as(&stage.world.client_with(user, "ann").await);
    // An earlier kdev has installed the relay: who may make what it lacks does so.
    let before = stage.as_it_is("web");
    let refused = ann
        .redirect(stage.wanted("a"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("ConfigMap kdev-relay-ports") && refused.contains("kdev upgrade -n shop"),
        "{refused}"
    );
    assert_eq!(stage.as_it_is("web"), before);
    assert!(stage.origins().is_empty());
    stage.redirect("b").await.unwrap().restore().await.unwrap();
    let mut guard = ann.redirect(stage.wanted("c")).await.unwrap();
    assert_eq!(stage.behind("web").len(), 6, "all relay pods");
    guard.restore().await.unwrap();
    assert_eq!(stage.as_it_is("web"), before);

    // A key of a selector that the relay's pods have no label for.
    let mut manifest = stage.manifest();
    manifest["spec"]["selector"] = json!({"app": "web", "tier": "front"});
    stage.apply(&manifest).await.unwrap();
    let (before, relays) = (stage.as_it_is("web"), stage.relays());
    let refused = ann
        .redirect(stage.wanted("d"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("the label tier") && refused.contains("kdev upgrade -n shop"),
        "{refused}"
    );
    assert_eq!((stage.as_it_is("web"), stage.relays()), (before, relays));
    // Once somebody with `edit` has seen to it the role is enough.
    stage.redirect("e").await.unwrap().restore().await.unwrap();
    let mut guard = ann.redirect(stage.wanted("f")).await.unwrap();
    guard.restore().await.unwrap();
}

/// However far it came.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_broken_off_knows_whether_something_is_left() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    let (mut early, mut late) = (0, 0);
    for step in 0.. {
        if late == 8 {
            break;
        }
        let wanted = wanted("a");
        let word = wanted.on_record.clone();
        let redirector = stage.redirector();
        let limit = Duration::from_micros(250) * step;
        let redirected = tokio::time::timeout(limit, redirector.redirect(wanted)).await;
        drop(redirected);
        // What is on its way arrives.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if word.may_be() {
            late += 1;
            let scope = Scope::Namespace("shop".to_owned());
            let (all, each) = (|_: &_| true, |_: &_, _: &_| true);
            let mut tell = |_: &_| {};
            let put = put_back(&stage.client, &scope, "me", &all, &each, &mut tell);
            put.await.unwrap();
        } else {
            early += 1;
            let claims = stage.origins().iter().any(|origin| {
                let claims = &origin["metadata"]["annotations"]["kdev.dev/claims"];
                claims
                    .as_str()
                    .is_some_and(|claims| claims.contains("\"a\""))
            });
            assert!(!claims, "{:?}", stage.origins());
        }
        assert_eq!(stage.as_it_is("web"), before);
    }
    println!("{early} left nothing, {late} perhaps");
    assert!(early > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let stage = Stage::set_up().await;
    let none = stage.redirect("a").await.unwrap_err().to_string();
    assert!(none.contains("Service web in namespace shop"), "{none}");
    stage.apply(&stage.manifest()).await.unwrap();
    let user = User::new("viewer").rules(Rule::view("shop"));
    let viewer = stage.world.client_with(user, "viewer").await;
    let denied = stage
        .redirector_as(&viewer)
        .redirect(wanted("a"))
        .await
        .unwrap_err();
    let text = denied.to_string();
    assert!(
        text.contains("create, patch and delete services") && text.contains("edit"),
        "{text}"
    );
    stage.client.delete(RELAY, &json!({})).await.unwrap();
    within(LIMIT, "the relay is gone", || stage.relays().is_empty()).await;
    let none = stage.redirect("a").await.unwrap_err().to_string();
    assert!(none.contains("kdev install -n shop"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ghost_gives_way_to_its_own() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let mut ghost = stage.redirect("ghost").await.unwrap();
    let judge = Arc::new(|others: &[kdev::intercept::Claim], _: &_| {
        Verdict::InPlaceOf(others.iter().map(|other| other.id.clone()).collect())
    });
    let mut guard = stage
        .redirector()
        .redirect(judged("b", judge))
        .await
        .unwrap();
    assert_eq!(
        next(&mut ghost).await,
        Change::ClaimGone(Some("owner of b".to_owned()))
    );
    assert_eq!(ghost.restore().await.unwrap(), Left::Others(1));
    assert_eq!(guard.restore().await.unwrap(), Left::Last);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_may_be_seen_are_listed() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let mut guard = stage.redirect("a").await.unwrap();
    let found = list(&stage.client, &Scope::All).await.unwrap();
    assert_eq!((&*found[0].namespace, &*found[0].service), ("shop", "web"));
    assert_eq!(found[0].claims, [guard.claim().clone()]);
    let stranger = stage
        .world
        .client_with(User::new("stranger"), "stranger")
        .await;
    let denied = list(&stranger, &Scope::All).await.unwrap_err();
    assert!(matches!(denied, RedirectError::Denied { .. }), "{denied}");
    guard.restore().await.unwrap();
}
