//! Every record of the Kubernetes DNS specification, 1.1.0, and what is not there. What the
//! specification leaves open is as in CoreDNS 1.15 with `pods insecure`; `dns_of_the_cluster` of
//! the real scenarios compares the two.

use hickory_proto::rr::RecordType::{
    self, A, AAAA, ANY, AXFR, CNAME, HTTPS, MX, NS, PTR, SOA, SRV, TXT,
};
use kdev_sim::{Families, Pod, Service, SimCluster};

use crate::support::Stage;

/// One of each kind of Service that the specification has records for.
fn furnish(cluster: &SimCluster) {
    let web = Service::new("shop", "web")
        .selector("app", "web")
        .families(Families::Dual);
    let web = web.port("https", 443, 8443).udp_port("quic", 443, 8443);
    cluster.add_service(web.port("http", 80, 8080));
    let old = Service::new("shop", "old").selector("app", "old");
    cluster.add_service(old.port("", 80, 8080));
    let six = Service::new("shop", "six").selector("app", "web");
    cluster.add_service(six.families(Families::V6).port("http", 80, 8080));
    let db = Service::new("shop", "db").selector("app", "db").headless();
    let db = db.families(Families::Dual).port_to_named("pg", 5432, "sql");
    cluster.add_service(db);
    for (name, families) in [("db4", Families::V4), ("db6", Families::V6)] {
        let db = Service::new("shop", name).selector("app", "db").headless();
        cluster.add_service(db.families(families).port_to_named("pg", 5432, "sql"));
    }
    let early = Service::new("shop", "early").selector("app", "db");
    let early = early.headless().families(Families::Dual);
    cluster.add_service(early.publish_not_ready());
    let nobody = Service::new("shop", "nobody").selector("app", "nobody");
    cluster.add_service(nobody.headless().port("http", 80, 80));
    for (name, target) in [
        ("alias", "www.example.com"),
        ("alias-web", "web.shop.svc.cluster.local"),
        ("alias-old", "old.shop.svc.cluster.local"),
        ("alias-gone", "gone.example.com"),
        ("alias-nowhere", "nowhere.shop.svc.cluster.local"),
        ("alias-twice", "alias-web.shop.svc.cluster.local"),
        ("alias-out", "alias.shop.svc.cluster.local"),
        ("alias-ip", "192.0.2.99"),
        ("self", "self.shop.svc.cluster.local"),
        ("there", "back.shop.svc.cluster.local"),
        ("back", "there.shop.svc.cluster.local"),
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
    let both = Pod::new("shop", "both")
        .label("app", "db")
        .port("sql", 15432);
    cluster.add_pod(both.families(Families::Dual));
    let late = Pod::new("shop", "late")
        .label("app", "db")
        .port("sql", 15432);
    cluster.add_pod(late.host("late", "db").not_ready());
    let web = Pod::new("shop", "web-1").label("app", "web");
    cluster.add_pod(web.families(Families::Dual).port("http", 8080));
    cluster.add_pod(Pod::new("shop", "loner"));
}

fn dashed(ip: &str) -> String {
    ip.replace(['.', ':'], "-")
}

fn reverse(ip: &str) -> String {
    let name = hickory_proto::rr::Name::from(ip.parse::<std::net::IpAddr>().unwrap());
    name.to_string()
}

const NODATA: &str = "NOERROR aa: SOA";
const NXDOMAIN: &str = "NXDOMAIN aa: SOA";
const ANSWERED: &str = "NOERROR aa: ";

fn sorted(mut parts: Vec<String>) -> String {
    parts.sort();
    parts.join(", ")
}

/// An answer of addresses of one family.
fn all(kind: RecordType, ips: &[&str]) -> String {
    let ips = ips.iter().map(|ip| format!("{kind} {ip}"));
    format!("{ANSWERED}{}", sorted(ips.collect()))
}

/// An answer of SRV records of one weight, `(port, target)`, and addresses of targets.
fn srv(weight: u16, records: &[(u16, &str)], addresses: &[(&str, &str)]) -> String {
    let full = |name: &str| format!("{name}.shop.svc.cluster.local.");
    let records = records.iter();
    let records = records.map(|(port, to)| format!("SRV 0 {weight} {port} {}", full(to)));
    let addresses = addresses.iter().map(|(of, ip)| {
        let kind = if ip.contains(':') { "AAAA" } else { "A" };
        format!("+ {} {kind} {ip}", full(of))
    });
    let records = sorted(records.collect());
    format!("{ANSWERED}{records}, {}", sorted(addresses.collect()))
}

impl Stage {
    fn service(&self, name: &str, n: usize) -> String {
        self.field("services", name, &format!("/spec/clusterIPs/{n}"))
    }

    fn pod(&self, name: &str) -> [String; 2] {
        let ip = |n: usize| self.field("pods", name, &format!("/status/podIPs/{n}/ip"));
        [ip(0), ip(1)]
    }

    fn pod4(&self, name: &str) -> String {
        self.field("pods", name, "/status/podIPs/0/ip")
    }

    /// Asks for names below the domain.
    async fn expect(&self, rows: &[(&str, RecordType, String)]) {
        for (name, kind, expected) in rows {
            let full = format!("{name}.cluster.local");
            let full = full.trim_start_matches('.');
            assert_eq!(&self.told(full, *kind).await, expected, "{full} {kind}");
        }
    }

    /// The laptop's resolver hears of nothing that is the cluster's.
    fn expect_privacy(&self) {
        for asked in self.resolver.asked() {
            assert!(
                !asked.contains("cluster.local") && !asked.contains("arpa"),
                "the laptop's resolver heard of {asked}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_with_an_address() {
    let stage = Stage::set_up("admin", furnish).await;
    let [web4, web6] = [stage.service("web", 0), stage.service("web", 1)];
    let [old, six] = [stage.service("old", 0), stage.service("six", 0)];
    let [front4, front6] = stage.pod("web-1");
    let (name4, name6) = (dashed(&front4), dashed(&front6));
    let (of_web4, of_web6) = (format!("{name4}.web"), format!("{name6}.web"));
    let of_web = [("web", &*web4), ("web", &*web6)];
    let none = || NODATA.to_owned();
    let nowhere = || NXDOMAIN.to_owned();
    stage
        .expect(&[
            // 2.3.1 addresses
            ("web.shop.svc", A, all(A, &[&web4])),
            ("web.shop.svc", AAAA, all(AAAA, &[&web6])),
            ("WEB.Shop.sVc", A, all(A, &[&web4])),
            ("old.shop.svc", A, all(A, &[&old])),
            ("old.shop.svc", AAAA, none()),
            ("six.shop.svc", A, none()),
            ("six.shop.svc", AAAA, all(AAAA, &[&six])),
            // CoreDNS says "nothing" to all other types, and that the name exists.
            ("web.shop.svc", ANY, none()),
            ("web.shop.svc", TXT, none()),
            ("web.shop.svc", MX, none()),
            ("web.shop.svc", PTR, none()),
            ("web.shop.svc", CNAME, none()),
            ("web.shop.svc", NS, none()),
            ("web.shop.svc", SOA, none()),
            ("web.shop.svc", HTTPS, none()),
            // 2.3.2 ports. Shares of a hundred are counted for each family.
            (
                "_https._tcp.web.shop.svc",
                SRV,
                srv(50, &[(443, "web")], &of_web),
            ),
            (
                "_quic._udp.web.shop.svc",
                SRV,
                srv(50, &[(443, "web")], &of_web),
            ),
            (
                "_http._tcp.six.shop.svc",
                SRV,
                srv(100, &[(80, "six")], &[("six", &six)]),
            ),
            ("_https._udp.web.shop.svc", SRV, nowhere()),
            ("_nope._tcp.web.shop.svc", SRV, nowhere()),
            ("_nope._tcp.web.shop.svc", A, nowhere()),
            ("_tcp.web.shop.svc", SRV, nowhere()),
            ("_tcp.web.shop.svc", A, nowhere()),
            ("_http._sctp.web.shop.svc", A, nowhere()),
            // The name of a port has addresses, its underscores mean nothing, and one alone stands
            // for all.
            ("_https._tcp.web.shop.svc", A, all(A, &[&web4])),
            ("_https._tcp.web.shop.svc", AAAA, all(AAAA, &[&web6])),
            ("_https._tcp.web.shop.svc", TXT, none()),
            (
                "https.tcp.web.shop.svc",
                SRV,
                srv(50, &[(443, "web")], &of_web),
            ),
            (
                "_._tcp.web.shop.svc",
                SRV,
                srv(25, &[(443, "web"), (80, "web")], &of_web),
            ),
            (
                "_http._.web.shop.svc",
                SRV,
                srv(50, &[(80, "web")], &of_web),
            ),
            (
                "web.shop.svc",
                SRV,
                srv(16, &[(443, "web"), (80, "web")], &of_web),
            ),
            (
                "old.shop.svc",
                SRV,
                srv(100, &[(80, "old")], &[("old", &old)]),
            ),
            // Its endpoints have names too, of the Service's families.
            (&format!("{of_web4}.shop.svc"), A, all(A, &[&front4])),
            (&format!("{of_web4}.shop.svc"), AAAA, none()),
            (&format!("{of_web6}.shop.svc"), AAAA, all(AAAA, &[&front6])),
            (
                &format!("{name6}.six.shop.svc"),
                AAAA,
                all(AAAA, &[&front6]),
            ),
            (&format!("{name4}.six.shop.svc"), A, nowhere()),
            (&format!("{name4}.db.shop.svc"), A, nowhere()),
            (
                &format!("{name6}.six.shop.svc"),
                SRV,
                srv(
                    100,
                    &[(8080, &format!("{name6}.six"))],
                    &[(&format!("{name6}.six"), &front6)],
                ),
            ),
        ])
        .await;
    stage.expect_privacy();
}

#[tokio::test(flavor = "multi_thread")]
async fn headless_services_are_their_endpoints() {
    let stage = Stage::set_up("admin", furnish).await;
    let ([zero4, zero6], [one4, one6]) = (stage.pod("db-0"), stage.pod("db-1"));
    let [both4, both6] = stage.pod("both");
    let (plain, late) = (stage.pod4("plain"), stage.pod4("late"));
    let in_db = |ip: &str| format!("{}.db", dashed(ip));
    let [b4, b6, p] = [&both4, &both6, &plain].map(|ip| in_db(ip));
    let none = || NODATA.to_owned();
    let nowhere = || NXDOMAIN.to_owned();
    let of_db4 = |name: &str| format!("{}.db4", dashed(name));
    let of_db6 = |name: &str| format!("{}.db6", dashed(name));
    let four = [&zero4, &one4, &both4, &plain].map(|ip| of_db4(ip));
    let six = [&zero6, &one6, &both6].map(|ip| of_db6(ip));
    stage
        .expect(&[
            // 2.4.1 addresses of those that are ready
            ("db.shop.svc", A, all(A, &[&zero4, &one4, &plain, &both4])),
            ("db.shop.svc", AAAA, all(AAAA, &[&zero6, &one6, &both6])),
            ("db4.shop.svc", A, all(A, &[&zero4, &one4, &plain, &both4])),
            ("db4.shop.svc", AAAA, none()),
            ("db6.shop.svc", A, none()),
            ("db6.shop.svc", AAAA, all(AAAA, &[&zero6, &one6, &both6])),
            (
                "early.shop.svc",
                A,
                all(A, &[&zero4, &one4, &plain, &both4, &late]),
            ),
            ("nobody.shop.svc", A, nowhere()),
            ("nobody.shop.svc", TXT, nowhere()),
            ("db-0.db.shop.svc", A, all(A, &[&zero4])),
            ("DB-0.db.shop.svc", AAAA, all(AAAA, &[&zero6])),
            ("db-0.db.shop.svc", TXT, none()),
            ("db-0.db.shop.svc", CNAME, none()),
            ("late.db.shop.svc", A, nowhere()),
            ("db-9.db.shop.svc", A, nowhere()),
            // The subdomain is of another Service, and who has a host name has no other.
            ("db-0.early.shop.svc", A, nowhere()),
            (&format!("{}.shop.svc", in_db(&zero4)), A, nowhere()),
            (&format!("{b4}.shop.svc"), A, all(A, &[&both4])),
            (&format!("{b4}.shop.svc"), AAAA, none()),
            (&format!("{b6}.shop.svc"), AAAA, all(AAAA, &[&both6])),
            (
                &format!("{}.shop.svc", of_db6(&zero6)),
                AAAA,
                all(AAAA, &[&zero6]),
            ),
            (&format!("{}.shop.svc", of_db6(&zero4)), A, nowhere()),
            (&format!("{}.shop.svc", of_db4(&zero6)), AAAA, nowhere()),
            (
                &format!("{}.early.shop.svc", dashed(&late)),
                A,
                all(A, &[&late]),
            ),
            // 2.4.2 ports, by the numbers of the pods
            (
                "_pg._tcp.db.shop.svc",
                SRV,
                srv(
                    14,
                    &[
                        (15432, "db-0.db"),
                        (15432, "db-1.db"),
                        (25432, &p),
                        (15432, &b4),
                        (15432, &b6),
                    ],
                    &[
                        ("db-0.db", &zero4),
                        ("db-0.db", &zero6),
                        ("db-1.db", &one4),
                        ("db-1.db", &one6),
                        (&p, &plain),
                        (&b4, &both4),
                        (&b6, &both6),
                    ],
                ),
            ),
            (
                "_pg._tcp.db4.shop.svc",
                SRV,
                srv(
                    25,
                    &[
                        (15432, &four[0]),
                        (15432, &four[1]),
                        (15432, &four[2]),
                        (25432, &four[3]),
                    ],
                    &[
                        (&four[0], &zero4),
                        (&four[1], &one4),
                        (&four[2], &both4),
                        (&four[3], &plain),
                    ],
                ),
            ),
            (
                "_pg._tcp.db6.shop.svc",
                SRV,
                srv(
                    33,
                    &[(15432, &six[0]), (15432, &six[1]), (15432, &six[2])],
                    &[(&six[0], &zero6), (&six[1], &one6), (&six[2], &both6)],
                ),
            ),
            (
                "_pg._tcp.db6.shop.svc",
                AAAA,
                all(AAAA, &[&zero6, &one6, &both6]),
            ),
            ("_pg._tcp.db6.shop.svc", A, none()),
            (
                "db-0.db.shop.svc",
                SRV,
                srv(
                    50,
                    &[(15432, "db-0.db")],
                    &[("db-0.db", &zero4), ("db-0.db", &zero6)],
                ),
            ),
            ("_http._tcp.nobody.shop.svc", SRV, nowhere()),
            // It has no ports.
            ("early.shop.svc", SRV, none()),
            ("_pg._tcp.early.shop.svc", SRV, nowhere()),
        ])
        .await;
    stage.expect_privacy();
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_count_with_what_they_lead_to() {
    let stage = Stage::set_up("admin", furnish).await;
    let [web4, web6] = [stage.service("web", 0), stage.service("web", 1)];
    let answer = |text: &str| format!("{ANSWERED}{text}");
    let web = "CNAME web.shop.svc.cluster.local.";
    let out = "CNAME www.example.com.";
    let none = || NODATA.to_owned();
    stage
        .expect(&[
            ("alias.shop.svc", A, answer(&format!("A 192.0.2.53, {out}"))),
            ("alias.shop.svc", CNAME, answer(out)),
            // Out of the cluster, the alias stands whatever is there.
            ("alias.shop.svc", AAAA, answer(out)),
            ("alias-gone.shop.svc", A, answer("CNAME gone.example.com.")),
            // Within, it stands with addresses only.
            ("alias-web.shop.svc", A, answer(&format!("A {web4}, {web}"))),
            (
                "alias-web.shop.svc",
                AAAA,
                answer(&format!("AAAA {web6}, {web}")),
            ),
            ("alias-web.shop.svc", CNAME, answer(web)),
            ("alias-old.shop.svc", AAAA, none()),
            ("alias-nowhere.shop.svc", A, none()),
            (
                "alias-nowhere.shop.svc",
                CNAME,
                answer("CNAME nowhere.shop.svc.cluster.local."),
            ),
            (
                "alias-twice.shop.svc",
                A,
                answer(&format!(
                    "A {web4}, CNAME alias-web.shop.svc.cluster.local., {web}"
                )),
            ),
            (
                "alias-out.shop.svc",
                A,
                answer(&format!(
                    "A 192.0.2.53, CNAME alias.shop.svc.cluster.local., {out}"
                )),
            ),
            ("self.shop.svc", A, none()),
            ("there.shop.svc", A, none()),
            (
                "self.shop.svc",
                CNAME,
                answer("CNAME self.shop.svc.cluster.local."),
            ),
            // For other types there is no alias, and below it there is nothing.
            ("alias.shop.svc", SRV, none()),
            ("_._.alias.shop.svc", CNAME, answer(out)),
            ("alias.shop.svc", TXT, none()),
            ("alias.shop.svc", MX, none()),
            ("alias.shop.svc", ANY, none()),
            ("alias.shop.svc", PTR, none()),
            ("_http._tcp.alias.shop.svc", SRV, NXDOMAIN.to_owned()),
            ("www.alias.shop.svc", A, NXDOMAIN.to_owned()),
            // An address is no name.
            ("alias-ip.shop.svc", A, NXDOMAIN.to_owned()),
            ("alias-ip.shop.svc", CNAME, NXDOMAIN.to_owned()),
        ])
        .await;
    stage.expect_privacy();
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_by_their_addresses_and_what_is_between_names() {
    let stage = Stage::set_up("admin", furnish).await;
    let none = || NODATA.to_owned();
    let nowhere = || NXDOMAIN.to_owned();
    let soa = "SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5";
    let host = "10-1-2-3.shop.pod.cluster.local.";
    let pod = format!("{ANSWERED}SRV 0 100 0 {host}, + {host} A 10.1.2.3");
    stage
        .expect(&[
            // 2.6 pods, whoever they are
            ("10-1-2-3.shop.pod", A, all(A, &["10.1.2.3"])),
            ("10-1-2-3.shop.pod", AAAA, none()),
            ("10-1-2-3.shop.pod", SRV, pod.clone()),
            ("10-1-2-3.shop.pod", TXT, none()),
            ("a.b.10-1-2-3.shop.pod", A, all(A, &["10.1.2.3"])),
            ("a.b.10-1-2-3.shop.pod", SRV, pod),
            ("a.b.c.10-1-2-3.shop.pod", A, nowhere()),
            ("fd00--5.shop.pod", AAAA, all(AAAA, &["fd00::5"])),
            ("fd00--5.shop.pod", A, none()),
            ("--1.shop.pod", AAAA, all(AAAA, &["::1"])),
            ("10-1-2-3.nowhere.pod", A, nowhere()),
            ("10-1-2.shop.pod", A, nowhere()),
            ("10-1-2-300.shop.pod", A, nowhere()),
            ("web-1.shop.pod", A, nowhere()),
            // 2.2 the schema's version, which is a text and nothing else
            ("dns-version", TXT, format!("{ANSWERED}TXT 1.1.0")),
            ("dns-version", A, nowhere()),
            // Between names there is nothing, and no text at all.
            ("shop.svc", A, none()),
            ("shop.svc", SRV, none()),
            ("shop.svc", TXT, nowhere()),
            ("shop.pod", A, none()),
            ("svc", A, none()),
            ("svc", TXT, nowhere()),
            ("pod", A, none()),
            ("dns", A, nowhere()),
            ("nowhere.svc", A, nowhere()),
            ("nope.shop.svc", A, nowhere()),
            ("web.nowhere.svc", A, nowhere()),
            ("nope", A, nowhere()),
            ("nope", TXT, nowhere()),
            ("a.b.c.d.e.f", A, nowhere()),
            ("a.b.c.web.shop.svc", A, nowhere()),
            // Where a zone begins is said without a look at the name.
            ("nope.shop.svc", SOA, none()),
            ("nope", NS, nowhere()),
            ("nope", AXFR, "REFUSED".to_owned()),
            // The zone itself. The server of the NS record is the one that answers: which of the
            // cluster's Services is its DNS cannot be told, and nobody has to ask that here.
            ("ns.dns", A, all(A, &["127.0.0.1"])),
            ("ns.dns", AAAA, none()),
            ("ns.dns", SRV, none()),
            ("ns.dns", TXT, nowhere()),
            ("ns.dns", PTR, nowhere()),
            ("", NS, format!("{ANSWERED}NS ns.dns.cluster.local.")),
            ("", SOA, format!("{ANSWERED}{soa}")),
            ("", A, none()),
            ("", TXT, nowhere()),
            ("", AXFR, "REFUSED".to_owned()),
        ])
        .await;
    let message = stage.ask("web.shop.svc.cluster.local", A).await;
    assert_eq!(message.answers[0].ttl, 5);
    assert!(message.metadata.recursion_available && message.metadata.recursion_desired);
    stage.expect_privacy();
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_have_the_names_of_services_and_endpoints() {
    let stage = Stage::set_up("admin", furnish).await;
    let [web4, web6] = [stage.service("web", 0), stage.service("web", 1)];
    let six = stage.service("six", 0);
    let ([zero4, zero6], [both4, both6]) = (stage.pod("db-0"), stage.pod("both"));
    let [front4, front6] = stage.pod("web-1");
    let (late, loner) = (stage.pod4("late"), stage.pod4("loner"));
    let ptr = |names: &[String]| {
        let names = names.iter();
        let names = names.map(|name| format!("PTR {name}.shop.svc.cluster.local."));
        format!("{ANSWERED}{}", sorted(names.collect()))
    };
    let under = |ip: &str, services: &[&str]| -> Vec<String> {
        let services = services.iter();
        services.map(|of| format!("{}.{of}", dashed(ip))).collect()
    };
    let with = |mut names: Vec<String>, more: &str| {
        names.push(more.to_owned());
        names
    };
    for (ip, names) in [
        // 2.3.3
        (&web4, vec!["web".to_owned()]),
        (&web6, vec!["web".to_owned()]),
        (&six, vec!["six".to_owned()]),
        // 2.4.3, and endpoints of Services with an address all the same
        (&zero4, with(under(&zero4, &["db4", "early"]), "db-0.db")),
        (&zero6, with(under(&zero6, &["db6", "early"]), "db-0.db")),
        (&both4, under(&both4, &["db", "db4", "early"])),
        (&both6, under(&both6, &["db", "db6", "early"])),
        (&front4, under(&front4, &["web"])),
        (&front6, under(&front6, &["web", "six"])),
        (&late, under(&late, &["early"])),
    ] {
        assert_eq!(stage.told(&reverse(ip), PTR).await, ptr(&names), "{ip}");
    }
    for (ip, zone) in [(&web4, "in-addr.arpa."), (&web6, "ip6.arpa.")] {
        for kind in [A, AAAA, TXT, SRV, ANY, NS] {
            let message = stage.ask(&reverse(ip), kind).await;
            assert_eq!(crate::support::told(&message), NXDOMAIN, "{ip} {kind}");
            assert_eq!(message.authorities[0].name.to_string(), zone, "{ip} {kind}");
        }
        assert_eq!(stage.told(&reverse(ip), SOA).await, NODATA, "{ip}");
        assert_eq!(stage.told(&reverse(ip), AXFR).await, "REFUSED", "{ip}");
    }
    assert_eq!(stage.told(&reverse(&loner), PTR).await, NXDOMAIN);
    stage.expect_privacy();
}
