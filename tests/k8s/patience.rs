//! An API server that asks to come back later: it is waited for, within bounds.

use std::time::{Duration, Instant};

use hyper::Request;
use kdev::dial::{DialError, DialPods as _, Resolution, Resolve as _};
use kdev::k8s::access::{self, Permission};
use kdev::k8s::portforward::{KnownForm, PortForward};
use kdev::k8s::{ClientError, UpgradeError};
use kdev_sim::{Options, TurnAway};
use serde_json::{Value, json};

use crate::support::World;

const PODS: &str = "/api/v1/namespaces/shop/pods";
const FORWARD: &str = "/api/v1/namespaces/shop/pods/web-1/portforward";
const REVIEWS: &str = "selfsubjectaccessreviews";

impl World {
    fn turn_away(&self, code: u16, retry_after: Option<u64>, path: &str, count: u64) {
        self.cluster.faults().turn_away(TurnAway {
            code,
            retry_after,
            path: path.to_owned(),
            count,
        });
    }
}

fn spdy() -> Request<()> {
    Request::post(FORWARD)
        .header("Connection", "Upgrade")
        .header("Upgrade", "SPDY/3.1")
        .header("X-Stream-Protocol-Version", "portforward.k8s.io")
        .body(())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reviews_and_upgrades_wait() {
    let world = World::new(Options::default()).await;
    let client = world.client("dev").await;
    let begun = Instant::now();
    world.turn_away(429, Some(1), PODS, 2);
    client.get::<Value>(PODS).await.unwrap();
    let took = begun.elapsed();
    assert!(
        (2000..20_000).contains(&took.as_millis()),
        "twice a second, not {took:?}"
    );

    // A change is sent again whole.
    world.turn_away(503, Some(0), "configmaps", 2);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sent"}});
    let path = "/api/v1/namespaces/shop/configmaps";
    client.post::<Value>(path, &map).await.unwrap();
    let made = world.cluster.object("configmaps", "shop", "sent");
    assert!(made.is_some());

    world.turn_away(429, Some(0), REVIEWS, 3);
    let asked = Permission::core("list", "pods", "shop");
    let verdicts = access::review(&client, vec![asked; 3]).await;
    assert!(verdicts.into_iter().all(|verdict| verdict.unwrap().allowed));

    world.turn_away(429, Some(0), FORWARD, 2);
    client.upgrade(spdy()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_ends_with_the_reason() {
    let world = World::new(Options::default()).await;
    let client = world.client("dev").await;
    world.turn_away(429, Some(1), "", u64::MAX);
    let begun = Instant::now();
    let short = client.patient_for(Duration::from_millis(2500));
    let error = short.get::<Value>(PODS).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(
        matches!(&error, ClientError::Busy { code: 429, waited, .. } if waited.as_secs() == 2),
        "{error:?}"
    );
    assert!(error.is_passing() && error.code() == Some(429));
    let text = error.to_string();
    assert!(
        text.contains("is too busy (429)") && text.contains("waited 2 s"),
        "{text}"
    );
    let error = short.upgrade(spdy()).await.unwrap_err();
    assert!(matches!(error, UpgradeError::Busy(_)), "{error:?}");

    // What is asked for is longer than anybody waits: it is asked once more at the end.
    world.cluster.faults().clear();
    world.turn_away(429, Some(3600), PODS, 1);
    short.get::<Value>(PODS).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_callers_is_left_to_the_caller() {
    let world = World::new(Options::default()).await;
    let client = world.client("dev").await;
    // As an eviction is refused by a PodDisruptionBudget.
    world.turn_away(429, None, PODS, 1);
    let error = client.get::<Value>(PODS).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Status { code: 429, .. }),
        "{error:?}"
    );
    world.turn_away(429, Some(5), PODS, 1);
    let error = client.impatient().get::<Value>(PODS).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Status { code: 429, .. }),
        "{error:?}"
    );
    world.turn_away(503, None, PODS, 1);
    let error = client.get::<Value>(PODS).await.unwrap_err();
    assert_eq!(error.code(), Some(503));
    let asked = world.cluster.counts().of("list", "pods");
    assert_eq!(asked, 3, "none was sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_stands_still_while_the_server_asks_to_wait() {
    let world = World::new(Options::default()).await;
    let client = world.client("dev").await;
    let limit = Duration::from_secs(1);
    world.turn_away(429, Some(1), PODS, 2);
    let read = client.within(limit, client.get::<Value>(PODS)).await;
    read.unwrap().unwrap();

    // It is bounded all the same, and the reason is told from a server that is silent.
    world.turn_away(429, Some(1), PODS, u64::MAX);
    let short = client.patient_for(Duration::from_secs(2));
    let read = short.within(limit, client.get::<Value>(PODS)).await;
    let error = read.unwrap_err();
    assert!(matches!(error, ClientError::Busy { .. }), "{error:?}");
    world.cluster.faults().clear();
    world.cluster.faults().hold_api(true);
    let read = client.within(limit, client.get::<Value>(PODS)).await;
    let error = read.unwrap_err();
    assert!(
        error.to_string().ends_with("it did not answer within 1 s"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_and_dials_of_a_session_come_through() {
    let world = World::new(Options::default()).await;
    world.turn_away(429, Some(1), "/services", 2);
    let client = world.client("dev").await;
    let catalog = world.catalog(client.clone()).await;
    let target = "web:80".parse().unwrap();
    let Resolution::Pods(endpoints) = catalog.resolve(&target) else {
        panic!("the first lists are complete");
    };
    let forward = PortForward::new(client, KnownForm::default());
    world.turn_away(429, Some(1), "/portforward", 2);
    forward.dial_pods(&target, &endpoints).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_waited_in_vain_says_for_what() {
    let world = World::new(Options::default()).await;
    let client = world.client("dev").await;
    let catalog = world.catalog(client.clone()).await;
    let target = "web:80".parse().unwrap();
    let Resolution::Pods(endpoints) = catalog.resolve(&target) else {
        panic!("not found");
    };
    let forward = PortForward::new(client, KnownForm::default());
    world.turn_away(429, Some(32), "/portforward", u64::MAX);
    let error = forward.dial_pods(&target, &endpoints).await.unwrap_err();
    assert!(
        matches!(&error, DialError::Cluster { reason, .. } if reason.contains("too busy (429)")),
        "{error:?}"
    );
}
