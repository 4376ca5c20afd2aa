//! Port-forward that is allowed for some pods only.

use std::collections::BTreeSet;

use kdev::addr::Namespaced;
use kdev::dial::{DialError, DialPods as _, Endpoints, Inside, PodPort};
use kdev::k8s::Client;
use kdev::k8s::access::{self, Permission};
use kdev::k8s::portforward::{KnownForm, MAX_DENIED, PortForward};
use kdev_sim::{Options, Pod, Rule, User};

use crate::support::World;

const REVIEW: (&str, &str) = ("create", "selfsubjectrulesreviews");

/// Who may forward to `names` alone, in the way of `verbs`.
async fn narrow(world: &World, verbs: &[&str], names: &[&str]) -> Client {
    let rule = Rule::new(verbs, &["pods/portforward"]).namespace("shop");
    let user = User::new("narrow").rule(rule.names(names));
    world.client_with(user, "narrow").await
}

fn endpoints(names: &[String]) -> Endpoints {
    let pods = names.iter().map(|name| PodPort {
        pod: Namespaced::new("shop", name),
        uid: String::new(),
        port: 8080,
    });
    Endpoints {
        pods: pods.collect(),
        service: None,
        declared: true,
        inside: Inside::default(),
    }
}

fn webs() -> Endpoints {
    endpoints(&["web-1", "web-2", "web-3"].map(str::to_owned))
}

/// Upgrades that were asked for so far.
fn asked(world: &World) -> u64 {
    let counts = world.cluster.counts();
    counts.of("get", "pods/portforward") + counts.of("create", "pods/portforward")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_that_are_allowed_take_the_dials() {
    let world = World::new(Options::default()).await;
    let target = "web:80".parse().unwrap();
    // A server of today and one that asks for `get` of a GET; POST alone will do as well.
    for (verbs, today) in [
        (&["get", "create"][..], true),
        (&["create"], true),
        (&["get"], false),
    ] {
        world
            .cluster
            .set_habits(|habits| habits.create_check = today);
        let client = narrow(&world, verbs, &["web-2"]).await;
        // Each is a run of its own: wherever it begins, it comes to the pod that is allowed.
        for _ in 0..3 {
            let forward = PortForward::new(client.clone(), KnownForm::default());
            for _ in 0..4 {
                forward.dial_pods(&target, &webs()).await.unwrap();
            }
        }
    }
    let of = |name: &str| world.cluster.pod_counts("shop", name).unwrap().opened;
    assert_eq!((of("web-1"), of("web-3")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_remembered_and_costs_little() {
    let world = World::new(Options::default()).await;
    let target = "web:80".parse().unwrap();
    let client = narrow(&world, &["get", "create"], &["web-2"]).await;
    let forward = PortForward::new(client, KnownForm::default());
    forward.dial_pods(&target, &webs()).await.unwrap();
    // By GET and by POST for each that is refused.
    let most = 2 * 2 + 1;
    assert!(asked(&world) <= most, "{}", asked(&world));
    for _ in 0..10 {
        forward.dial_pods(&target, &webs()).await.unwrap();
    }
    // The dials that begin at another pod do not ask for it again.
    assert!(asked(&world) <= most, "{}", asked(&world));

    // What is given meanwhile is found where nothing else is left.
    world.cluster.set_rules("narrow", []);
    let others = endpoints(&["web-1".to_owned(), "web-3".to_owned()]);
    let error = forward.dial_pods(&target, &others).await.err();
    assert!(matches!(error, Some(DialError::Denied { .. })), "{error:?}");
    let all = Rule::new(&["get", "create"], &["pods/portforward"]);
    world.cluster.set_rules("narrow", [all]);
    forward.dial_pods(&target, &others).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_allowed_among_many_is_found_by_the_rules() {
    let world = World::new(Options::default()).await;
    let names: Vec<String> = (0..40).map(|n| format!("many-{n}")).collect();
    for name in &names {
        let pod = Pod::new("shop", name).port("http", 8080);
        world.cluster.add_pod(pod.serve(8080, |_| async {}));
    }
    let client = narrow(&world, &["get", "create"], &["many-33"]).await;
    let permission = Permission::core("create", "pods/portforward", "shop");
    let named = access::named(&client, &permission).await.unwrap();
    assert_eq!(named, BTreeSet::from(["many-33".to_owned()]));

    let target = "many:80".parse().unwrap();
    let forward = PortForward::new(client.clone(), KnownForm::default());
    forward
        .dial_pods(&target, &endpoints(&names))
        .await
        .unwrap();
    assert!(asked(&world) <= 3, "{}", asked(&world));
    assert_eq!(world.cluster.counts().of(REVIEW.0, REVIEW.1), 2);

    // Where none is allowed the search ends.
    world.cluster.set_rules("narrow", []);
    let before = asked(&world);
    let forward = PortForward::new(client, KnownForm::default());
    let dialled = forward.dial_pods(&target, &endpoints(&names)).await;
    assert!(
        matches!(dialled.err(), Some(DialError::Denied { verb, .. }) if verb == "get"),
        "the first form's"
    );
    let tried = asked(&world) - before;
    assert!(tried <= 2 * MAX_DENIED as u64, "{tried}");
}
