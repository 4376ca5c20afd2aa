//! Services at an address of this machine, which only Linux has besides 127.0.0.1.

use std::net::Ipv4Addr;
use std::time::Duration;

use kdev_sim::{Exit, Options, Service, SimCluster, shop};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::within;

/// Where these tests have the network of pods: one for each, since they run at the same time.
fn network(test: u8, last: u8) -> Ipv4Addr {
    let [.., a, b] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 + a % 254, b ^ test, last)
}

/// Where the port 80 of `orders` is.
const ORDERS: u16 = 10_080;

/// A cluster whose Services of `shop` are at an address.
async fn cluster(at: Ipv4Addr) -> SimCluster {
    let cluster = SimCluster::start(Options::default()).await.unwrap();
    shop::furnish(&cluster);
    cluster.proxy_services("shop", move |service, port| match (service, port) {
        // Which only root may listen on.
        ("orders", 80) => Some((at, ORDERS).into()),
        (_, ..1024) => None,
        _ => Some((at, port).into()),
    });
    cluster
}

/// Waits for something.
async fn until(holds: impl AsyncFn() -> bool) {
    within(async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// What a Service of HTTP answers; nothing where nobody is.
async fn get(at: Ipv4Addr, port: u16) -> Option<String> {
    let mut socket = TcpStream::connect((at, port)).await.ok()?;
    let head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    socket.write_all(head).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

#[tokio::test]
async fn connections_are_spread_over_ready_pods() {
    let at = network(1, 1);
    let cluster = cluster(at).await;
    // It is there from when the Service is.
    assert_eq!(get(at, shop::CART).await, None);
    shop::add_cart(&cluster);
    until(async || get(at, shop::CART).await.is_some()).await;
    let mut said = [get(at, shop::CART).await, get(at, shop::CART).await];
    said.sort();
    let both = ["hello from cart-1\n", "hello from cart-2\n"];
    assert_eq!(said.map(Option::unwrap), both);
    cluster.set_ready("shop", "cart-1", false);
    for _ in 0..3 {
        assert_eq!(get(at, shop::CART).await.unwrap(), both[1]);
    }
    // Without pods it is closed, as good as refused.
    cluster.remove_pod("shop", "cart-2");
    assert_eq!(get(at, shop::CART).await, None);
    cluster.remove_service("shop", "cart");
    until(async || TcpStream::connect((at, shop::CART)).await.is_err()).await;
    // Each port is where it was said to be, or nowhere.
    assert!(TcpStream::connect((at, 80)).await.is_err());
    assert!(get(at, ORDERS).await.is_some());
}

#[tokio::test]
async fn what_is_connected_stays_when_a_service_leads_elsewhere() {
    let at = network(2, 1);
    let cluster = cluster(at).await;
    let echo = || Service::new("shop", "say").port("", 7000, 7);
    cluster.add_service(echo().selector("app", "echo"));
    until(async || TcpStream::connect((at, 7000)).await.is_ok()).await;
    let mut kept = TcpStream::connect((at, 7000)).await.unwrap();
    let mut back = [0; 2];
    kept.write_all(b"hi").await.unwrap();
    within(kept.read_exact(&mut back)).await.unwrap();
    cluster.add_service(echo().selector("app", "nobody"));
    kept.write_all(b"ho").await.unwrap();
    within(kept.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"ho");
    let mut fresh = TcpStream::connect((at, 7000)).await.unwrap();
    // An end or a reset.
    assert_eq!(within(fresh.read(&mut back)).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn programs_in_pods_may_listen_by_themselves() {
    let (at, own) = (network(3, 1), network(3, 2));
    let cluster = cluster(at).await;
    cluster.add_program("main", move |container| async move {
        let listener = TcpListener::bind((own, 7001)).await.unwrap();
        container.listens_at(own.into());
        container.ready();
        while let Ok((mut caller, _)) = listener.accept().await {
            let _ = caller.write_all(b"by itself").await;
        }
        Exit::ok()
    });
    let template = json!({
        "metadata": {"labels": {"app": "mine"}},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "mine", "namespace": "shop"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "mine"}}, "template": template,
        },
    });
    cluster.put_object("deployments", deployment);
    let service = Service::new("shop", "mine").selector("app", "mine");
    cluster.add_service(service.port("", 7001, 7001));
    let said = async || {
        let mut socket = TcpStream::connect((at, 7001)).await.ok()?;
        let mut said = String::new();
        socket.read_to_string(&mut said).await.ok()?;
        (!said.is_empty()).then_some(said)
    };
    until(async || said().await.is_some()).await;
    assert_eq!(said().await.unwrap(), "by itself");
}
