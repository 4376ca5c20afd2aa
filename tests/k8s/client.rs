//! Requests: answers, errors in the user's words, a server that goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::Request;
use kdev::addr::Target;
use kdev::dial::{Dial, DialError, DialUdp, Laptop, Resolution, Resolve as _};
use kdev::k8s::access::{self, Permission};
use kdev::k8s::kubeconfig::Environment;
use kdev::k8s::{Client, ClientError, KubeOptions, UpgradeError, discovery};
use kdev::proxy::{self, Access, Config};
use kdev_sim::{Options, Rule, User};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_age_and_groups_are_found_out() {
    for (options, minor, slices) in [(Options::default(), 37, true), (Options::old(), 20, false)] {
        let world = World::new(options).await;
        let client = world.client("dev").await;
        let version = discovery::version(&client).await.unwrap().unwrap();
        assert_eq!(version.minor(), Some(minor));
        let found = discovery::has_slices(&client).await.unwrap();
        assert_eq!(found, Some(slices));
    }
}

/// Who may be `viewer` (KEP-5284) for these requests alone: `(verb, resource)`.
async fn actor(world: &World, actions: &[(&str, &str)]) -> Client {
    let identity = Rule::new(&["impersonate:user-info"], &["users"])
        .groups(&["authentication.k8s.io"])
        .names(&["viewer"]);
    let mut user = User::new("actor").rule(identity);
    for (verb, resource) in actions {
        let verb = format!("impersonate-on:user-info:{verb}");
        user = user.rule(Rule::new(&[&verb], &[resource]).namespace("shop"));
    }
    world.cluster.add_user(user);
    let options = KubeOptions {
        kubeconfig: Some(world.write("actor", &world.cluster.kubeconfig("actor", "shop"))),
        as_user: Some("viewer".into()),
        ..KubeOptions::default()
    };
    Client::connect_in(options, Environment::default(), &world.tasks)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_kept_from_the_user_is_unknown() {
    let world = World::new(Options::default()).await;
    // One of the requests that kdev lives by is enough.
    for actions in [
        &[("list", "pods"), ("get", "services")][..],
        &[("list", "services")],
        &[("get", "pods")],
    ] {
        let client = actor(&world, actions).await;
        assert_eq!(discovery::version(&client).await.unwrap(), None);
        assert_eq!(discovery::has_slices(&client).await.unwrap(), None);
    }
    // Who may act as nobody is told so at once.
    let client = actor(&world, &[]).await;
    let error = discovery::version(&client).await.unwrap_err();
    assert!(error.to_string().contains("cannot impersonate"), "{error}");
    assert!(discovery::refuses_impersonation(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_found_where_discovery_is_kept_from_the_user() {
    let world = World::new(Options::default()).await;
    let rules = [("get", "services"), ("list", "endpointslices")];
    let client = actor(&world, &rules).await;
    let catalog = world.catalog(client).await;
    let target = "web:80".parse().unwrap();
    // Pods may not be listed, so slices have to say which there are: v1 Endpoints may not be read.
    let Resolution::Pods(found) = catalog.learn(&target).await else {
        panic!("not found");
    };
    assert_eq!(found.pods.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_are_reviewed_in_order() {
    let world = World::new(Options::default()).await;
    let user = User::new("half")
        .rule(Rule::new(&["get", "list"], &["pods", "services"]).namespace("shop"));
    let client = world.client_with(user, "half").await;
    let asked = [
        ("get", "pods", true),
        ("create", "pods/portforward", false),
        ("list", "services", true),
        ("watch", "services", false),
    ];
    let permissions = asked.map(|(verb, resource, _)| Permission::core(verb, resource, "shop"));
    let verdicts = access::review(&client, permissions.to_vec()).await;
    for ((verb, resource, allowed), verdict) in asked.into_iter().zip(verdicts) {
        let verdict = verdict.unwrap();
        assert_eq!(verdict.permission.verb, verb);
        assert_eq!(verdict.permission.full_resource(), resource);
        assert_eq!(verdict.allowed, allowed, "{verb} {resource}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_named_and_found_again() {
    let world = World::new(Options::default()).await;
    let client = world.client("dev").await;
    client.get::<Value>("/version").await.unwrap();
    world.cluster.stop_api().await;
    let error = client.get::<Value>("/version").await.unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
    let text = DialError::from(error).to_string();
    assert!(
        text.contains(&world.cluster.address().to_string()) && text.contains("refused"),
        "{text}"
    );
    world.cluster.start_api().await.unwrap();
    client.get::<Value>("/version").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_just_started_is_asked_until_it_has_read_its_roles() {
    const ROLES_AFTER: Duration = Duration::from_secs(1);
    let world = World::new(Options::default()).await;
    let rules = || [Rule::new(&["get", "create"], &["pods", "pods/portforward"]).namespace("shop")];
    let user = User::new("slow").rule(rules()[0].clone());
    let client = world.client_with(user, "slow").await;
    let path = "/api/v1/namespaces/shop/pods/nobody";
    let code = |result: Result<Value, ClientError>| result.unwrap_err().code();
    assert_eq!(code(client.get(path).await), Some(404));

    // Without an outage a 403 is an answer.
    let begun = Instant::now();
    world.cluster.set_rules("slow", []);
    assert_eq!(code(client.get(path).await), Some(403));
    assert!(begun.elapsed() < ROLES_AFTER, "{:?}", begun.elapsed());

    world.cluster.stop_api().await;
    assert_eq!(code(client.get(path).await), None);
    world.cluster.start_api().await.unwrap();
    let roles = async {
        tokio::time::sleep(ROLES_AFTER).await;
        world.cluster.set_rules("slow", rules());
    };
    let upgrade = Request::post("/api/v1/namespaces/shop/pods/nobody/portforward");
    let upgrade = client.upgrade(upgrade.body(()).unwrap());
    let (read, upgraded, ()) = tokio::join!(client.get(path), upgrade, roles);
    assert_eq!(code(read), Some(404));
    let upgraded = upgraded.unwrap_err();
    assert!(
        !matches!(upgraded, UpgradeError::Status { code: 403, .. }),
        "{upgraded:?}"
    );

    // It has admitted something since: a 403 is an answer again.
    let begun = Instant::now();
    world.cluster.set_rules("slow", []);
    assert_eq!(code(client.get(path).await), Some(403));
    assert!(begun.elapsed() < ROLES_AFTER, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_vouches_for_is_not_trusted() {
    let world = World::new(Options::default()).await;
    let other = World::new(Options::default()).await;
    let config = world.cluster.kubeconfig("dev", "shop");
    let ours = certificate_line(&config);
    let theirs = certificate_line(&other.cluster.kubeconfig("dev", "shop"));
    let client = world
        .connect(&config.replace(&ours, &theirs))
        .await
        .unwrap();
    let error = client.get::<Value>("/version").await.unwrap_err();
    assert!(
        matches!(error, ClientError::Certificate { .. }),
        "{error:?}"
    );

    let (key, _) = ours.split_once("certificate-authority-data").unwrap();
    let insecure = format!("{key}insecure-skip-tls-verify: true");
    let client = world
        .connect(&config.replace(&ours, &insecure))
        .await
        .unwrap();
    client.get::<Value>("/version").await.unwrap();
}

fn certificate_line(config: &str) -> String {
    let mut lines = config.lines();
    let line = lines.find(|l| l.contains("certificate-authority-data"));
    line.unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_upgrades_tell_kubernetes_from_others() {
    let world = World::new(Options::default()).await;
    let client = world.client("viewer").await;
    let error = client.upgrade(spdy()).await.unwrap_err();
    let UpgradeError::Status {
        code: 403, message, ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(message.contains("pods/portforward"), "{message}");

    let client = world.client("admin").await;
    world.cluster.faults().refuse_upgrades(Some((403, "")));
    let error = client.upgrade(spdy()).await.unwrap_err();
    assert!(
        matches!(error, UpgradeError::Bare { code: 403, .. }),
        "{error:?}"
    );

    world.cluster.stop_api().await;
    let begun = Instant::now();
    let error = client.upgrade(spdy()).await.unwrap_err();
    assert!(matches!(error, UpgradeError::Network(_)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "fails fast");
}

fn spdy() -> Request<()> {
    Request::post("/api/v1/namespaces/shop/pods/web-1/portforward")
        .header("Connection", "Upgrade")
        .header("Upgrade", "SPDY/3.1")
        .header("X-Stream-Protocol-Version", "portforward.k8s.io")
        .body(())
        .unwrap()
}

/// The laptop's network, with a count of what was dialled.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl Dial for Counted {
    type Io = TcpStream;

    async fn dial(&self, target: &Target) -> Result<TcpStream, DialError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Laptop { loopback: true }.dial(target).await
    }
}

impl DialUdp for Counted {}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubeconfigs_proxy_carries_requests_and_upgrades() {
    let world = World::new(Options::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialled = Counted::default();
    let access = Access::SameUser { password: None };
    let serving = proxy::serve(
        listener,
        dialled.clone(),
        Config::new(access),
        world.tasks.clone(),
    );
    world.tasks.spawn(serving);
    let config = world.cluster.kubeconfig("admin", "shop");
    let ca = certificate_line(&config);
    let (indent, _) = ca.split_once("certificate-authority-data").unwrap();
    for scheme in ["http", "socks5", "socks5h"] {
        let before = dialled.0.load(Ordering::SeqCst);
        let proxied = config.replace(
            &ca,
            &format!("{ca}\n{indent}proxy-url: {scheme}://{address}"),
        );
        let client = world.connect(&proxied).await.unwrap();
        client.get::<Value>("/version").await.unwrap();
        client.upgrade(spdy()).await.unwrap();
        let count = dialled.0.load(Ordering::SeqCst) - before;
        assert_eq!(
            count, 2,
            "{scheme}: one for the request, one for the upgrade"
        );
    }
}
