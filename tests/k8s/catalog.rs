//! What names mean while the cluster changes, its API server restarts, and rights are few.

use std::time::{Duration, Instant};

use kdev::addr::Namespaced;
use kdev::dial::{DialError, Resolution, Resolve as _};
use kdev::k8s::Catalog;
use kdev::k8s::catalog::WatchState;
use kdev_sim::crowd::Crowd;
use kdev_sim::{Options, Pod, Rule, Service, SimCluster, User};
use serde_json::json;

use crate::support::{World, within};

const SOON: Duration = Duration::from_secs(2);
/// For what takes the simulation itself a while on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn ask(catalog: &Catalog, target: &str) -> Resolution {
    let target = target.parse().unwrap();
    match catalog.resolve(&target) {
        Resolution::Unknown => catalog.learn(&target).await,
        known => known,
    }
}

/// The names of the pods behind `target`, as the snapshot has them.
fn pods(catalog: &Catalog, target: &str) -> Vec<String> {
    let mut names = match catalog.resolve(&target.parse().unwrap()) {
        Resolution::Pods(found) => found.pods.into_iter().map(|p| p.pod.name).collect(),
        _ => Vec::new(),
    };
    names.sort();
    names
}

/// The least that kdev needs, without `missing`.
fn least(name: &str, missing: &[(&str, &str)]) -> User {
    let mut user = User::new(name);
    for resource in ["pods", "services"] {
        for verb in ["get", "list", "watch"] {
            if !missing.contains(&(verb, resource)) {
                user = user.rule(Rule::new(&[verb], &[resource]).namespace("shop"));
            }
        }
    }
    user
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_seen_at_once() {
    let world = World::new(Options::default()).await;
    let catalog = world.catalog(world.client("dev").await).await;
    assert_eq!(pods(&catalog, "web:80"), ["web-1", "web-2", "web-3"]);
    let mut changes = catalog.changes();
    changes.mark_unchanged();
    world.cluster.set_ready("shop", "web-1", false);
    tokio::time::timeout(SOON, changes.changed())
        .await
        .unwrap()
        .unwrap();
    within(SOON, "unready", || {
        pods(&catalog, "web:80") == ["web-2", "web-3"]
    })
    .await;
    world.cluster.remove_pod("shop", "web-3");
    within(SOON, "removed", || pods(&catalog, "web:80") == ["web-2"]).await;
    world.cluster.remove_service("shop", "web");
    within(SOON, "no Service", || {
        matches!(
            catalog.resolve(&"web:80".parse().unwrap()),
            Resolution::Elsewhere
        )
    })
    .await;
    world.cluster.add_service(
        Service::new("shop", "new")
            .selector("app", "new")
            .port("http", 80, 8080),
    );
    world
        .cluster
        .add_pod(Pod::new("shop", "new-0").label("app", "new"));
    within(SOON, "a new one", || pods(&catalog, "new:80") == ["new-0"]).await;
    let new = Namespaced::new("shop", "new");
    let known = catalog.learn_service(&new).await.unwrap().unwrap();
    assert_eq!((&*known.ports[0].name, known.ports[0].port), ("http", 80));
    let listed = catalog.services();
    let listed = listed.iter().find(|s| s.name == new).unwrap();
    assert_eq!((listed.ready, &*listed.ports[0].0), (Some(1), "http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_api_server_hides_nothing_for_long() {
    let world = World::new(Options::default()).await;
    let catalog = world.catalog(world.client("admin").await).await;
    for _ in 0..2 {
        world.cluster.stop_api().await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(pods(&catalog, "web:80").len(), 3, "known all the while");
        world.cluster.set_ready("shop", "web-1", false);
        world.cluster.start_api().await.unwrap();
        let begun = Instant::now();
        within(SOON, "followed again", || {
            pods(&catalog, "web:80").len() == 2
        })
        .await;
        println!("followed again after {:?}", begun.elapsed());
        world.cluster.set_ready("shop", "web-1", true);
        within(SOON, "ready again", || pods(&catalog, "web:80").len() == 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_watch_lists_again_and_forgets_what_is_gone() {
    let world = World::new(Options::default()).await;
    let catalog = world.catalog(world.client("admin").await).await;
    world.cluster.stop_api().await;
    world.cluster.remove_pod("shop", "web-2");
    world.cluster.start_api().await.unwrap();
    world.cluster.expire_watches();
    within(SOON, "the sweep", || pods(&catalog, "web:80").len() == 2).await;
    let lists = world.cluster.counts().of("list", "pods");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.cluster.counts().of("list", "pods"), lists, "no storm");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_namespace_is_enough() {
    for options in [Options::default(), Options::old()] {
        let world = World::new(options).await;
        let client = world.client_with(least("least", &[]), "least").await;
        let catalog = world.catalog(client).await;
        assert_eq!(pods(&catalog, "web.shop.svc:80").len(), 3);
        let elsewhere = ask(&catalog, "github.com:443").await;
        assert!(matches!(elsewhere, Resolution::Elsewhere), "{elsewhere:?}");
        let watched = catalog.watched();
        assert!(watched.iter().any(|w| w.resource == "pods"
            && w.namespace.is_none()
            && w.state == WatchState::Forbidden { verb: "list" }));
        assert!(watched.iter().any(|w| w.resource == "pods"
            && w.namespace.as_deref() == Some("shop")
            && w.state == WatchState::Live));
        assert!(world.tasks.shutdown(SOON).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_namespaces_are_watched_once_they_are_spoken_of() {
    let world = World::new(Options::default()).await;
    world.cluster.add_namespace("back");
    world.cluster.add_service(
        Service::new("back", "api")
            .selector("app", "api")
            .port("", 80, 8080),
    );
    world
        .cluster
        .add_pod(Pod::new("back", "api-0").label("app", "api"));
    let user = least("two", &[]).rules(Rule::edit("back"));
    let catalog = world.catalog(world.client_with(user, "two").await).await;
    let target = "api.back:80".parse().unwrap();
    assert!(matches!(catalog.resolve(&target), Resolution::Unknown));
    assert!(matches!(catalog.learn(&target).await, Resolution::Pods(_)));
    within(SOON, "watched", || {
        catalog
            .watched()
            .iter()
            .filter(|w| w.namespace.as_deref() == Some("back"))
            .all(|w| w.state == WatchState::Live)
    })
    .await;
    world.cluster.set_ready("back", "api-0", false);
    within(SOON, "unready", || pods(&catalog, "api.back:80").is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_verb_it_is_asked_for_or_named() {
    let world = World::new(Options::default()).await;
    for missing in [
        ("get", "pods"),
        ("watch", "pods"),
        ("get", "services"),
        ("list", "services"),
        ("watch", "services"),
    ] {
        let user = least("some", &[missing]);
        let catalog = world.catalog(world.client_with(user, "some").await).await;
        let Resolution::Pods(found) = ask(&catalog, "web:80").await else {
            panic!("{missing:?}");
        };
        assert_eq!(found.pods.len(), 3, "{missing:?}");
        assert!(
            matches!(
                ask(&catalog, "nothing.shop.svc:80").await,
                Resolution::Failed(DialError::NotFound { .. })
            ),
            "{missing:?}"
        );
    }
    let all = |resource| ["get", "list", "watch"].map(|verb| (verb, resource));
    for (missing, expected) in [
        (vec![("list", "pods")], ("list", "pods")),
        (all("services").to_vec(), ("get", "services")),
    ] {
        let user = least("few", &missing);
        let catalog = world.catalog(world.client_with(user, "few").await).await;
        let answer = ask(&catalog, "web:80").await;
        // A relay needs none of it: the Service's address, or its name, is enough in there.
        let Resolution::Inside { why, inside } = &answer else {
            panic!("{missing:?}: {answer:?}");
        };
        let DialError::Denied { verb, resource, .. } = why else {
            panic!("{missing:?}: {why:?}");
        };
        assert_eq!((&**verb, &**resource), expected);
        assert_eq!(inside.targets.len(), 1, "{answer:?}");
        assert!(!inside.known, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_watched_is_not_polled_either() {
    let world = World::new(Options::default()).await;
    let user = least("slow", &[("watch", "pods"), ("watch", "services")]);
    let catalog = world.catalog(world.client_with(user, "slow").await).await;
    within(SOON, "the refusal to watch", || {
        let watched = catalog.watched();
        watched
            .iter()
            .all(|w| matches!(w.state, WatchState::Forbidden { .. }))
    })
    .await;
    let before = world.cluster.counts().total();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.cluster.counts().total(), before);
    let answers = futures_util::future::join_all((0..50).map(|_| ask(&catalog, "web:80"))).await;
    assert!(answers.iter().all(|a| matches!(a, Resolution::Pods(_))));
    let asked = world.cluster.counts().total() - before;
    assert!(asked <= 3, "50 dials at once asked {asked} times");
    world.cluster.set_ready("shop", "web-1", false);
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let Resolution::Pods(found) = ask(&catalog, "web:80").await else {
        panic!();
    };
    assert_eq!(found.pods.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_say_what_a_service_without_selector_means() {
    for (options, endpoints) in [
        (
            Options::default(),
            (
                "endpointslices",
                json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {"name": "leader-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "leader"}},
                    "addressType": "IPv4",
                    "ports": [{"name": "", "port": 5432, "protocol": "TCP"}],
                    "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true},
                        "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1", "uid": "u"}}],
                }),
            ),
        ),
        (
            Options::old(),
            (
                "endpoints",
                json!({
                    "apiVersion": "v1", "kind": "Endpoints",
                    "metadata": {"name": "leader", "namespace": "shop"},
                    "subsets": [{"ports": [{"port": 5432, "protocol": "TCP"}], "addresses": [{"ip": "10.0.0.1",
                        "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1", "uid": "u"}}]}],
                }),
            ),
        ),
    ] {
        let world = World::new(options).await;
        world
            .cluster
            .add_service(Service::new("shop", "leader").port("", 5432, 5432));
        world.cluster.put_object(endpoints.0, endpoints.1);
        let catalog = world.catalog(world.client("admin").await).await;
        let answer = ask(&catalog, "leader:5432").await;
        let Resolution::Pods(found) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(found.pods[0].pod.name, "web-1");
        assert_eq!(found.pods[0].port, 5432);
        assert!(found.declared);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_hangs_delays_no_name_of_the_laptops_network() {
    let world = World::new(Options::default()).await;
    let client = world.client_with(least("least", &[]), "least").await;
    let catalog = world.catalog(client).await;
    world.cluster.stop_api().await;
    let begun = Instant::now();
    let answer = ask(&catalog, "intranet.corp:80").await;
    assert!(matches!(answer, Resolution::Elsewhere), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(1));
    let answer = ask(&catalog, "web.other.svc:80").await;
    assert!(
        matches!(answer, Resolution::Failed(DialError::Cluster { .. })),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_cluster_is_listed_once_in_pages_and_then_only_watched() {
    let cluster = SimCluster::start(Options::default()).await.unwrap();
    let crowd = Crowd { services: 300 };
    crowd.join(&cluster);
    let world = World::around(cluster);
    let catalog = world.catalog(world.client("admin").await).await;
    assert_eq!(catalog.services().len(), crowd.services);
    let asked = |verb: &str, resource: &str| world.cluster.counts().of(verb, resource);
    within(PATIENCE, "both watches", || {
        asked("watch", "pods") == 1 && asked("watch", "services") == 1
    })
    .await;
    // 1,200 pods and 300 Services in pages of 500.
    assert_eq!(asked("list", "pods"), 3);
    assert_eq!(asked("list", "services"), 1);
    let listed = world.cluster.counts().requests;
    let mut changes = catalog.changes();
    changes.mark_unchanged();
    crowd.churn(&world.cluster, 0, 200);
    let last = Service::new("team-0", "last").port("", 80, 80);
    world.cluster.add_service(last);
    within(PATIENCE, "the last change", || {
        catalog.services().len() == crowd.services + 1
    })
    .await;
    assert!(changes.has_changed().unwrap());
    assert_eq!(world.cluster.counts().requests, listed);
}
