//! Names without the cluster's domain, and names that are not the cluster's.

use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType::{A, AAAA, PTR, SRV};
use kdev_sim::{Pod, Service, shop};

use crate::support::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn short_names_mean_what_they_mean_in_a_pod() {
    let stage = Stage::set_up("dev", |cluster| {
        shop::furnish(cluster);
        let db = Service::new("shop", "db").selector("app", "db").headless();
        cluster.add_service(db.port("pg", 5432, 5432));
        let pod = Pod::new("shop", "db-0").label("app", "db");
        cluster.add_pod(pod.host("db-0", "db"));
    })
    .await;
    let web = stage.field("services", "web", "/spec/clusterIP");
    let db = stage.field("pods", "db-0", "/status/podIP");
    for name in ["web", "WEB", "web.shop", "web.shop.svc"] {
        assert_eq!(
            stage.told(name, A).await,
            format!("NOERROR aa: A {web}"),
            "{name}"
        );
        assert_eq!(
            stage.told(name, AAAA).await,
            "NOERROR aa",
            "{name}: at once, and nothing"
        );
    }
    for name in ["db-0.db", "db-0.db.shop", "db-0.db.shop.svc"] {
        assert_eq!(
            stage.told(name, A).await,
            format!("NOERROR aa: A {db}"),
            "{name}"
        );
    }
    let srv = stage.told("_pg._tcp.db.shop.svc", SRV).await;
    assert!(
        srv.starts_with("NOERROR aa: SRV 0 100 5432 db-0.db.shop.svc.cluster.local."),
        "{srv}"
    );
    assert_eq!(
        stage.told("nope.shop.svc", A).await,
        "NXDOMAIN aa",
        "certainly the cluster's"
    );
    assert_eq!(
        stage.resolver.asked(),
        [""; 0],
        "nothing of this is anybody else's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn public_names_are_never_shadowed() {
    let stage = Stage::set_up("admin", shop::furnish).await;
    assert_eq!(
        stage.told("www.example.com", A).await,
        "NOERROR: A 192.0.2.53"
    );
    for name in [
        "nope",
        "nope.shop",
        "github.com",
        "cluster.local.example.com",
        "localhost",
    ] {
        assert_eq!(stage.told(name, A).await, "NXDOMAIN", "{name}");
        let last = stage.resolver.asked().pop().unwrap();
        assert_eq!(last, format!("{name}. A udp"));
    }
    for ip in ["192.0.2.1", "127.0.0.1", "10.200.0.1", "2001:db8::1"] {
        let name = Name::from(ip.parse::<std::net::IpAddr>().unwrap()).to_string();
        assert_eq!(stage.told(&name, PTR).await, "NXDOMAIN", "{name}");
        assert_eq!(
            stage.resolver.asked().pop().unwrap(),
            format!("{name} PTR udp")
        );
    }
    // A part of the reverse tree is nobody's address.
    stage.told("96.10.in-addr.arpa", PTR).await;
    assert_eq!(
        stage.resolver.asked().pop().unwrap(),
        "96.10.in-addr.arpa. PTR udp"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_comes_and_goes_is_followed() {
    let stage = Stage::set_up("admin", shop::furnish).await;
    let name = "new.shop.svc.cluster.local";
    assert_eq!(stage.told(name, A).await, "NXDOMAIN aa: SOA");
    stage
        .cluster
        .add_service(Service::new("shop", "new").port("http", 80, 80));
    let ip = stage.field("services", "new", "/spec/clusterIP");
    let begun = std::time::Instant::now();
    while stage.told(name, A).await != format!("NOERROR aa: A {ip}") {
        assert!(begun.elapsed() < crate::support::PATIENCE, "it is not seen");
    }
    stage.cluster.remove_service("shop", "new");
    while stage.told(name, A).await != "NXDOMAIN aa: SOA" {
        assert!(
            begun.elapsed() < crate::support::PATIENCE,
            "it is still there"
        );
    }
}
