//! A small shop: what `kdev demo` shows, and a ready-made cluster for tests.
//!
//! | Service in `shop` | what answers |
//! |---|---|
//! | `web:80` | HTTP, three pods, each says which one it is |
//! | `orders:80`, `:9090` | HTTP with JSON; `/orders`, `/orders/N`, health on the second port |
//! | `redis:6379` | enough of Redis for `redis-cli`: PING ECHO GET SET DEL KEYS |
//! | `echo:7` | every byte comes back |
//! | `peers:8080` | headless, over the pods of `web` |
//! | `drafts:80` | one pod that is not ready |
//! | `archive:80` | no pod at all |
//! | `legacy` | ExternalName, outside of the cluster |

mod redis;
mod web;

use crate::cluster::SimCluster;
use crate::pod::Pod;
use crate::rbac::{Rule, User};
use crate::service::Service;
use crate::stream::SimStream;

/// The namespace of everything here.
pub const NAMESPACE: &str = "shop";
/// The port of the Service `cart`.
pub const CART: u16 = 8080;

/// Adds the shop's Services and pods, and two users: `dev` (token `dev-token`), who may do what
/// the built-in `edit` role allows in the namespace, and `viewer` (`viewer-token`), who may look
/// and nothing else, so no port-forward.
pub fn furnish(cluster: &SimCluster) {
    cluster.add_namespace(NAMESPACE);
    cluster.add_user(
        User::new("dev")
            .group("developers")
            .rules(Rule::edit(NAMESPACE)),
    );
    cluster.add_user(User::new("viewer").rules(Rule::view(NAMESPACE)));
    storefront(cluster);
    back_office(cluster);
    odds_and_ends(cluster);
}

/// Adds the Service `cart:8080` with two pods that say which one they are.
pub fn add_cart(cluster: &SimCluster) {
    for number in 1..=2 {
        let name = format!("cart-{number}");
        let pod = Pod::new(NAMESPACE, &name).label("app", "cart");
        let pod = pod.port("http", CART);
        cluster.add_pod(pod.serve(CART, move |io| web::greet(io, name.clone())));
    }
    let cart = Service::new(NAMESPACE, "cart").selector("app", "cart");
    cluster.add_service(cart.port("http", CART, CART));
}

fn storefront(cluster: &SimCluster) {
    for number in 1..=3 {
        let name = format!("web-{number}");
        let pod = Pod::new(NAMESPACE, &name)
            .label("app", "web")
            .port("http", 8080);
        cluster.add_pod(pod.serve(8080, move |io| web::greet(io, name.clone())));
    }
    let web = Service::new(NAMESPACE, "web").selector("app", "web");
    cluster.add_service(web.port_to_named("http", 80, "http"));
    let peers = Service::new(NAMESPACE, "peers")
        .selector("app", "web")
        .headless();
    cluster.add_service(peers.port("http", 8080, 8080));
}

fn back_office(cluster: &SimCluster) {
    let orders = Pod::new(NAMESPACE, "orders-1").label("app", "orders");
    let orders = orders.port("http", 8080).port("admin", 9090);
    cluster.add_pod(orders.serve(8080, web::orders).serve(9090, web::health));
    let service = Service::new(NAMESPACE, "orders").selector("app", "orders");
    cluster.add_service(
        service
            .port("http", 80, 8080)
            .port_to_named("admin", 9090, "admin"),
    );

    let store = redis::Shelf::default();
    let redis = Pod::new(NAMESPACE, "redis-0")
        .label("app", "redis")
        .port("redis", 6379);
    cluster.add_pod(redis.serve(6379, move |io| redis::serve(io, store.clone())));
    let service = Service::new(NAMESPACE, "redis").selector("app", "redis");
    cluster.add_service(service.port("redis", 6379, 6379));
}

fn odds_and_ends(cluster: &SimCluster) {
    let echo = Pod::new(NAMESPACE, "echo-1")
        .label("app", "echo")
        .port("", 7);
    cluster.add_pod(echo.serve(7, echo_back));
    let service = Service::new(NAMESPACE, "echo").selector("app", "echo");
    cluster.add_service(service.port("", 7, 7));

    let drafts = Pod::new(NAMESPACE, "drafts-1")
        .label("app", "drafts")
        .port("http", 8080);
    cluster.add_pod(drafts.serve(8080, web::health).not_ready());
    let service = Service::new(NAMESPACE, "drafts").selector("app", "drafts");
    cluster.add_service(service.port("http", 80, 8080));

    let archive = Service::new(NAMESPACE, "archive").selector("app", "archive");
    cluster.add_service(archive.port("http", 80, 8080));
    cluster.add_service(Service::new(NAMESPACE, "legacy").external_name("legacy.example.org"));
}

async fn echo_back(io: SimStream) {
    let (mut from, mut to) = tokio::io::split(io);
    // It ends with its client, one way or the other.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
}
