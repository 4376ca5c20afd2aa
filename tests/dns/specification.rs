//! Every record of the Kubernetes DNS specification, 1.1.0, and what is not there.

use hickory_proto::rr::RecordType::{self, A, AAAA, ANY, AXFR, CNAME, NS, PTR, SOA, SRV, TXT};
use kdev_sim::{Families, Pod, Service, SimCluster};

use crate::support::Stage;

/// One of each kind of Service that the specification has records for.
fn furnish(cluster: &SimCluster) {
    let web = Service::new("shop", "web")
        .selector("app", "web")
        .families(Families::Dual);
    let web = web.port("https", 443, 8443).udp_port("quic", 443, 8443);
    cluster.add_service(web.port("", 80, 8080));
    let old = Service::new("shop", "old").selector("app", "old");
    cluster.add_service(old.port("http", 80, 8080));
    let six = Service::new("shop", "six").selector("app", "six");
    cluster.add_service(six.families(Families::V6).port("http", 80, 8080));
    let db = Service::new("shop", "db").selector("app", "db").headless();
    let db = db.families(Families::Dual).port_to_named("pg", 5432, "sql");
    cluster.add_service(db);
    let early = Service::new("shop", "early").selector("app", "db");
    let early = early.headless().families(Families::Dual);
    cluster.add_service(early.publish_not_ready());
    let nobody = Service::new("shop", "nobody").selector("app", "nobody");
    cluster.add_service(nobody.headless().port("http", 80, 80));
    for (name, target) in [
        ("alias", "www.example.com"),
        ("alias-web", "web.shop.svc.cluster.local"),
        ("alias-gone", "gone.example.com"),
        ("alias-ip", "192.0.2.99"),
        ("circle", "circle.shop.svc.cluster.local"),
    ] {
        cluster.add_service(Service::new("shop", name).external_name(target));
    }
    for name in ["db-0", "db-1"] {
        let pod = Pod::new("shop", name).label("app", "db").port("sql", 15432);
        cluster.add_pod(pod.families(Families::Dual).host(name, "db"));
    }
    let plain = Pod::new("shop", "plain")
        .label("app", "db")
        .port("sql", 25432);
    cluster.add_pod(plain);
    let late = Pod::new("shop", "late")
        .label("app", "db")
        .port("sql", 15432);
    cluster.add_pod(late.host("late", "db").not_ready());
    let web = Pod::new("shop", "web-1").label("app", "web");
    cluster.add_pod(web.port("http", 8080));
}

fn dashed(ip: &str) -> String {
    ip.replace(['.', ':'], "-")
}

fn reverse(ip: &str) -> String {
    let name = hickory_proto::rr::Name::from(ip.parse::<std::net::IpAddr>().unwrap());
    name.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record() {
    let stage = Stage::set_up("admin", furnish).await;
    let service =
        |name: &str, n: usize| stage.field("services", name, &format!("/spec/clusterIPs/{n}"));
    let pod = |name: &str, n: usize| stage.field("pods", name, &format!("/status/podIPs/{n}/ip"));
    let (web4, web6, old, six) = (
        service("web", 0),
        service("web", 1),
        service("old", 0),
        service("six", 0),
    );
    let [zero4, zero6] = [pod("db-0", 0), pod("db-0", 1)];
    let [one4, one6] = [pod("db-1", 0), pod("db-1", 1)];
    let (plain, late, front) = (pod("plain", 0), pod("late", 0), pod("web-1", 0));
    let dashed_plain = dashed(&plain);
    // Answers in the order of their text.
    let all = |kind: &str, mut ips: Vec<&str>| -> String {
        ips.sort_by_key(|ip| format!("{kind} {ip}"));
        let ips: Vec<String> = ips.iter().map(|ip| format!("{kind} {ip}")).collect();
        format!("NOERROR aa: {}", ips.join(", "))
    };
    let sorted = |mut parts: Vec<String>| {
        parts.sort();
        parts.join(", ")
    };
    const NODATA: &str = "NOERROR aa: SOA";
    const NXDOMAIN: &str = "NXDOMAIN aa: SOA";
    let headless_srv = format!(
        "NOERROR aa: {}, {}",
        sorted(vec![
            "SRV 0 33 15432 db-0.db.shop.svc.cluster.local.".to_owned(),
            "SRV 0 33 15432 db-1.db.shop.svc.cluster.local.".to_owned(),
            format!("SRV 0 33 25432 {dashed_plain}.db.shop.svc.cluster.local."),
        ]),
        sorted(vec![
            format!("+ db-0.db.shop.svc.cluster.local. A {zero4}"),
            format!("+ db-0.db.shop.svc.cluster.local. AAAA {zero6}"),
            format!("+ db-1.db.shop.svc.cluster.local. A {one4}"),
            format!("+ db-1.db.shop.svc.cluster.local. AAAA {one6}"),
            format!("+ {dashed_plain}.db.shop.svc.cluster.local. A {plain}"),
        ])
    );
    let web_addresses = format!(
        "+ web.shop.svc.cluster.local. A {web4}, + web.shop.svc.cluster.local. AAAA {web6}"
    );
    let soa = "SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5";
    let rows: Vec<(String, RecordType, String)> = [
        // 2.2 the schema's version
        ("dns-version", TXT, "NOERROR aa: TXT 1.1.0".to_owned()),
        ("dns-version", A, NODATA.to_owned()),
        // 2.3.1 addresses of a Service
        ("web.shop.svc", A, format!("NOERROR aa: A {web4}")),
        ("web.shop.svc", AAAA, format!("NOERROR aa: AAAA {web6}")),
        (
            "web.shop.svc",
            ANY,
            format!("NOERROR aa: A {web4}, AAAA {web6}"),
        ),
        ("web.shop.svc", TXT, NODATA.to_owned()),
        ("WEB.Shop.sVc", A, format!("NOERROR aa: A {web4}")),
        ("old.shop.svc", A, format!("NOERROR aa: A {old}")),
        ("old.shop.svc", AAAA, NODATA.to_owned()),
        ("six.shop.svc", A, NODATA.to_owned()),
        ("six.shop.svc", AAAA, format!("NOERROR aa: AAAA {six}")),
        // 2.3.2 its ports
        (
            "_https._tcp.web.shop.svc",
            SRV,
            format!("NOERROR aa: SRV 0 100 443 web.shop.svc.cluster.local., {web_addresses}"),
        ),
        (
            "_quic._udp.web.shop.svc",
            SRV,
            format!("NOERROR aa: SRV 0 100 443 web.shop.svc.cluster.local., {web_addresses}"),
        ),
        ("_https._udp.web.shop.svc", SRV, NXDOMAIN.to_owned()),
        ("_https._tcp.web.shop.svc", A, NODATA.to_owned()),
        ("_nope._tcp.web.shop.svc", SRV, NXDOMAIN.to_owned()),
        ("_tcp.web.shop.svc", SRV, NODATA.to_owned()),
        ("_sctp.web.shop.svc", SRV, NXDOMAIN.to_owned()),
        // 2.4.1 a headless Service is its ready endpoints
        ("db.shop.svc", A, all("A", vec![&zero4, &one4, &plain])),
        ("db.shop.svc", AAAA, all("AAAA", vec![&zero6, &one6])),
        (
            "early.shop.svc",
            A,
            all("A", vec![&zero4, &one4, &plain, &late]),
        ),
        ("nobody.shop.svc", A, NXDOMAIN.to_owned()),
        ("db-0.db.shop.svc", A, format!("NOERROR aa: A {zero4}")),
        (
            "DB-0.db.shop.svc",
            AAAA,
            format!("NOERROR aa: AAAA {zero6}"),
        ),
        ("db-0.db.shop.svc", TXT, NODATA.to_owned()),
        ("late.db.shop.svc", A, NXDOMAIN.to_owned()),
        ("db-9.db.shop.svc", A, NXDOMAIN.to_owned()),
        // The subdomain is of another Service.
        ("db-0.early.shop.svc", A, NXDOMAIN.to_owned()),
        // 2.4.2 and their ports, by the numbers of the pods
        ("_pg._tcp.db.shop.svc", SRV, headless_srv),
        ("_http._tcp.nobody.shop.svc", SRV, NXDOMAIN.to_owned()),
        // 2.5 an alias
        (
            "alias.shop.svc",
            A,
            "NOERROR aa: A 192.0.2.53, CNAME www.example.com.".to_owned(),
        ),
        (
            "alias.shop.svc",
            CNAME,
            "NOERROR aa: CNAME www.example.com.".to_owned(),
        ),
        (
            "alias.shop.svc",
            AAAA,
            "NOERROR aa: CNAME www.example.com.".to_owned(),
        ),
        (
            "alias-web.shop.svc",
            A,
            format!("NOERROR aa: A {web4}, CNAME web.shop.svc.cluster.local."),
        ),
        (
            "alias-gone.shop.svc",
            A,
            "NXDOMAIN aa: CNAME gone.example.com.".to_owned(),
        ),
        (
            "alias-ip.shop.svc",
            A,
            "NOERROR aa: A 192.0.2.99".to_owned(),
        ),
        // 2.6 pods by their addresses
        ("10-1-2-3.shop.pod", A, "NOERROR aa: A 10.1.2.3".to_owned()),
        ("10-1-2-3.shop.pod", AAAA, NODATA.to_owned()),
        (
            "fd00--5.shop.pod",
            AAAA,
            "NOERROR aa: AAAA fd00::5".to_owned(),
        ),
        ("10-1-2-3.nowhere.pod", A, NXDOMAIN.to_owned()),
        ("web-1.shop.pod", A, NXDOMAIN.to_owned()),
        // What is between names, and the zone itself
        ("shop.svc", A, NODATA.to_owned()),
        ("nowhere.svc", A, NXDOMAIN.to_owned()),
        ("nope.shop.svc", A, NXDOMAIN.to_owned()),
        ("web.nowhere.svc", A, NXDOMAIN.to_owned()),
        ("svc", A, NODATA.to_owned()),
        ("pod", A, NODATA.to_owned()),
        ("nope", A, NXDOMAIN.to_owned()),
        ("a.b.c.d.e.f", A, NXDOMAIN.to_owned()),
        ("ns.dns", A, "NOERROR aa: A 127.0.0.1".to_owned()),
        ("", NS, "NOERROR aa: NS ns.dns.cluster.local.".to_owned()),
        ("", SOA, format!("NOERROR aa: {soa}")),
        ("", A, NODATA.to_owned()),
        ("", AXFR, "REFUSED".to_owned()),
    ]
    .into_iter()
    .map(|(name, kind, answer)| {
        let full = format!("{name}.cluster.local");
        (full.trim_start_matches('.').to_owned(), kind, answer)
    })
    .collect();
    // 2.3.3 and 2.4.3: names of addresses
    let ptr = |ip: &str, name: &str| {
        (
            reverse(ip),
            PTR,
            format!("NOERROR aa: PTR {name}.cluster.local."),
        )
    };
    let both = |ip: &str, host: &str| {
        // An endpoint of both headless Services, with a host name in one of them.
        let in_early = format!("PTR {}.early.shop.svc.cluster.local.", dashed(ip));
        let in_db = format!("PTR {host}.db.shop.svc.cluster.local.");
        (
            reverse(ip),
            PTR,
            format!("NOERROR aa: {}", sorted(vec![in_early, in_db])),
        )
    };
    let reverses = vec![
        ptr(&web4, "web.shop.svc"),
        ptr(&web6, "web.shop.svc"),
        ptr(&six, "six.shop.svc"),
        both(&zero4, "db-0"),
        both(&zero6, "db-0"),
        both(&plain, &dashed_plain),
        ptr(&late, &format!("{}.early.shop.svc", dashed(&late))),
        (reverse(&front), PTR, "NXDOMAIN aa".to_owned()),
        (reverse(&web4), A, "NOERROR aa".to_owned()),
        // Endpoints have their addresses as names, also where the Service has its own.
        (
            format!("{}.db.shop.svc.cluster.local", dashed(&plain)),
            A,
            format!("NOERROR aa: A {plain}"),
        ),
        (
            format!("{}.web.shop.svc.cluster.local", dashed(&front)),
            A,
            format!("NOERROR aa: A {front}"),
        ),
        (
            format!("{}.db.shop.svc.cluster.local", dashed(&front)),
            A,
            NXDOMAIN.to_owned(),
        ),
    ];
    for (name, kind, expected) in rows.into_iter().chain(reverses) {
        assert_eq!(stage.told(&name, kind).await, expected, "{name} {kind}");
    }
    let circle = stage.told("circle.shop.svc.cluster.local", A).await;
    assert!(circle.starts_with("SERVFAIL"), "{circle}");
    let message = stage.ask("web.shop.svc.cluster.local", A).await;
    assert_eq!(message.answers[0].ttl, 5);
    assert!(message.metadata.recursion_available && message.metadata.recursion_desired);
    for asked in stage.resolver.asked() {
        assert!(
            !asked.contains("cluster.local"),
            "the laptop's resolver heard of {asked}"
        );
        assert!(!asked.contains("arpa"), "{asked}");
    }
}
