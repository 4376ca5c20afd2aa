//! Which relays are found, what proves kdev to them, and what carries the tunnels.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine as _;
use kdev::dial::{Answer, DialError, DialRelay as _};
use kdev::k8s::portforward::{KnownForm, PortForward};
use kdev::k8s::relay::{self, Carrier};
use kdev::k8s::{Catalog, Client};
use kdev::relay::{MEMORY_LIMIT, Names, Policy, Relay, Settings};
use kdev::tunnel::pool::Pool;
use kdev_sim::{Options, Pod, Rule, SimCluster, TurnAway, User};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{World, within};

/// How long what takes milliseconds may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
const KEY: [u8; 32] = [7; 32];
const LABEL: (&str, &str) = ("app.kubernetes.io/name", "kdev-relay");

/// A cluster with one relay program behind as many pods as a test wants.
struct Stage {
    world: World,
    address: std::net::SocketAddr,
}

impl Stage {
    async fn set_up(pods: &[&str]) -> Self {
        let cluster = SimCluster::start(Options::default()).await.unwrap();
        let world = World::around(cluster);
        world.cluster.add_namespace("shop");
        let forward = world.dir.path().join("forward");
        std::fs::create_dir(&forward).unwrap();
        std::fs::write(forward.join("key"), KEY).unwrap();
        let settings = Settings {
            tunnel: (Ipv4Addr::LOCALHOST, 0).into(),
            pod_tunnel: None,
            http: None,
            // No caller comes here.
            inbound: (Ipv4Addr::LOCALHOST.into(), 20_000, 0),
            secrets: world.dir.path().to_owned(),
            policy: Policy {
                allow: vec!["127.0.0.1".parse().unwrap()],
                deny: Vec::new(),
            },
            memory: MEMORY_LIMIT,
        };
        let relay = Relay::start(&settings, Names::system().unwrap()).unwrap();
        let address = relay.address().unwrap();
        world.tasks.spawn(relay.run(std::future::pending()));
        let stage = Self { world, address };
        stage.secret(&KEY);
        for pod in pods {
            stage.add(pod);
        }
        stage
    }

    fn secret(&self, key: &[u8]) {
        let key = base64::engine::general_purpose::STANDARD.encode(key);
        let secret = json!({
            "metadata": {"namespace": "shop", "name": "kdev-relay"},
            "data": {"key": key},
        });
        self.world.cluster.put_object("secrets", secret);
    }

    fn pod(&self, name: &str) -> Pod {
        let pod = Pod::new("shop", name).label(LABEL.0, LABEL.1);
        pod.forward(7000, self.address)
    }

    fn add(&self, name: &str) {
        self.world.cluster.add_pod(self.pod(name));
    }

    /// Who may do all this, but for `missing` (`VERB RESOURCE`).
    async fn client(&self, name: &str, missing: &[&str]) -> Client {
        let all = [
            ("get", "secrets"),
            ("list", "pods"),
            ("watch", "pods"),
            ("get", "pods/portforward"),
            ("create", "pods/portforward"),
        ];
        let mut user = User::new(name);
        for (verb, resource) in all {
            if !missing.contains(&format!("{verb} {resource}").as_str()) {
                user = user.rule(Rule::new(&[verb], &[resource]).namespace("shop"));
            }
        }
        self.world.client_with(user, name).await
    }

    fn pool(&self, client: &Client, carrier: Option<Carrier>) -> Pool {
        let tasks = &self.world.tasks;
        let catalog = Catalog::start(client.clone(), Default::default(), tasks);
        let pods = PortForward::new(client.clone(), KnownForm::default());
        relay::start(client, &catalog, &pods, carrier, tasks)
    }
}

/// Says something to an echo server through the pool.
async fn echo(pool: &Pool) {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = server.local_addr().unwrap().to_string().parse().unwrap();
    let serve = async {
        let (mut socket, _) = server.accept().await.unwrap();
        let (mut from, mut to) = socket.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let app = async {
        let mut stream = pool.dial_relay(&target, Answer::Awaited).await.unwrap();
        stream.write_all(b"there?").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "there?");
    };
    tokio::join!(serve, app);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_port_forward_carries_a_tunnel() {
    let stage = Stage::set_up(&["relay-a", "relay-b"]).await;
    let client = stage.client("dev", &[]).await;
    for (carrier, tunnel, expected) in [
        (None, true, "websocket-spdy"),
        (Some(Carrier::Spdy), true, "websocket-spdy"),
        (Some(Carrier::Spdy), false, "spdy"),
        (Some(Carrier::WebSocket), true, "websocket-v4"),
    ] {
        stage
            .world
            .cluster
            .set_habits(|habits| habits.tunnel = tunnel);
        let pool = stage.pool(&client, carrier);
        within(LIMIT, "both tunnels", || pool.status().connected() == 2).await;
        let by = |t: &kdev::tunnel::pool::TunnelStatus| t.carrier == expected;
        assert!(pool.status().tunnels.iter().all(by), "{:?}", pool.status());
        for _ in 0..3 {
            echo(&pool).await;
        }
        pool.close(LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pods_proxy_does_not_carry_port_forward_does() {
    let stage = Stage::set_up(&[]).await;
    let pod = stage.pod("relay-a").port("pod-tunnel", 7001);
    stage.world.cluster.add_pod(pod);
    let client = stage.client("dev", &[]).await;
    let pool = stage.pool(&client, None);
    echo(&pool).await;
    assert_eq!(pool.status().tunnels[0].carrier, "websocket-spdy");
    let only = stage.pool(&client, Some(Carrier::PodsProxy));
    let error = only.ready(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("pods/proxy"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_come_and_go_are_followed() {
    for (user, missing) in [("dev", &[][..]), ("lister", &["watch pods"])] {
        let stage = Stage::set_up(&["relay-a"]).await;
        let client = stage.client(user, missing).await;
        let pool = stage.pool(&client, None);
        echo(&pool).await;
        stage.add("relay-b");
        within(LIMIT, "the second", || pool.status().connected() == 2).await;
        stage.world.cluster.remove_pod("shop", "relay-a");
        within(LIMIT, "the first is gone", || {
            let status = pool.status();
            let names: Vec<&str> = status.replicas.iter().map(|r| &*r.name).collect();
            names == ["relay-b"] && status.connected() == 1
        })
        .await;
        echo(&pool).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_another_name_or_one_that_is_not_ready_is_not_taken() {
    let stage = Stage::set_up(&["relay-a"]).await;
    let unready = stage.pod("relay-b").not_ready();
    stage.world.cluster.add_pod(unready);
    let other = Pod::new("shop", "web").label("app", "kdev-relay");
    stage
        .world
        .cluster
        .add_pod(other.forward(7000, stage.address));
    let client = stage.client("dev", &[]).await;
    let pool = stage.pool(&client, None);
    echo(&pool).await;
    assert_eq!(pool.status().replicas.len(), 1);
    // Where none is ready, what runs is better than nothing.
    assert!(stage.world.cluster.set_ready("shop", "relay-a", false));
    within(LIMIT, "both", || pool.status().connected() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_and_not_waited_for() {
    let stage = Stage::set_up(&[]).await;
    let reason = async |name: &str, missing: &[&str]| {
        let client = stage.client(name, missing).await;
        let pool = stage.pool(&client, None);
        // Much longer than it may take.
        let error = pool.ready(LIMIT * 2).await.unwrap_err();
        assert!(pool.hopeless().is_some());
        error
    };
    let none = reason("early", &[]).await.to_string();
    assert!(
        none.contains("shop") && none.contains("kdev install"),
        "{none}"
    );
    let none = reason("blind", &["list pods", "watch pods"]).await;
    assert!(
        matches!(&none, DialError::Denied { verb, resource, .. }
        if verb == "list" && resource == "pods"),
        "{none}"
    );
    stage.add("relay-a");
    let denied = reason("outsider", &["get secrets"]).await;
    assert!(
        matches!(&denied, DialError::Denied { verb, resource, namespace, .. }
        if verb == "get" && resource == "secrets" && namespace == "shop"),
        "{denied}"
    );
    stage.secret(&[8; 32]);
    let other = reason("stranger", &[]).await.to_string();
    assert!(other.contains("kdev upgrade"), "{other}");
    stage.secret(b"short");
    let short = reason("late", &[]).await.to_string();
    assert!(short.contains("kdev upgrade"), "{short}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_could_not_be_looked_at_is_not_called_missing_for_good() {
    let stage = Stage::set_up(&[]).await;
    stage.world.cluster.put_object(
        "deployments",
        json!({
            "metadata": {"namespace": "shop", "name": "kdev-relay", "labels": {LABEL.0: LABEL.1}},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {LABEL.0: LABEL.1}},
                "template": {"metadata": {"labels": {LABEL.0: LABEL.1}}, "spec": {"containers": []}},
            },
        }),
    );
    stage.world.cluster.faults().turn_away(TurnAway {
        code: 503,
        retry_after: None,
        path: "/deployments/".to_owned(),
        count: 1,
    });
    let all = ["deployments", "replicasets", "events"];
    let user = User::new("dev")
        .rule(Rule::new(&["get", "list"], &all).namespace("shop"))
        .rule(Rule::new(&["list", "watch"], &["pods"]).namespace("shop"));
    let client = stage.world.client_with(user, "dev").await;
    let pool = stage.pool(&client, None);
    let said = || pool.hopeless().map(|error| error.to_string());
    // Nothing in the cluster changes meanwhile.
    within(LIMIT, "why there is no pod", || {
        said().is_some_and(|said| said.contains("scaled to no pods"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_api_server_is_survived() {
    let stage = Stage::set_up(&["relay-a"]).await;
    let client = stage.client("dev", &[]).await;
    let pool = stage.pool(&client, None);
    echo(&pool).await;
    stage.world.cluster.stop_api().await;
    within(LIMIT, "the tunnel is lost", || !pool.usable()).await;
    assert!(pool.hopeless().is_none(), "time heals it");
    let (_, started) = tokio::join!(echo(&pool), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.world.cluster.start_api().await
    });
    started.unwrap();
}
