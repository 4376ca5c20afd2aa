//! The DNS server of `connect`, asked by `dig` and by the C library, beside the cluster's own.

mod coredns;
mod stage;

use crate::lab;
use stage::{KDEV, Laptop, Objects, addresses, dig, getent, own_server, short, until};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn dig_gets_what_the_clusters_own_dns_says() {
    let _objects = Objects::create();
    let laptop = Laptop::start();
    let own = own_server();
    let set =
        ["kdev-dns-0", "kdev-dns-1"].map(|pod| lab::field(&format!("pod/{pod}"), ".status.podIP"));
    let connect = laptop.connect("dev");
    let services = lab::kubectl(&["-n", "shop", "get", "services", "-o", "name"]).unwrap();
    let mut compared = 0;
    for service in services
        .lines()
        .filter_map(|line| line.strip_prefix("service/"))
    {
        let name = format!("{service}.shop.svc.cluster.local");
        // Written from Endpoints, which lack what a user without them cannot see either.
        if ["manual", "external", "alias", "kdev-dns-alias"].contains(&service) {
            continue;
        }
        let expected = until(
            || short(&own, &[&name]),
            |found| service == "nobody" || !found.is_empty(),
        );
        assert_eq!(
            until(|| short(KDEV, &[&name]), |found| *found == expected),
            expected,
            "{name}"
        );
        assert_eq!(short(KDEV, &["AAAA", &name]), [""; 0], "{name}");
        compared += 1;
    }
    assert!(compared >= 10, "{compared}");
    for (host, ip) in ["kdev-dns-0", "kdev-dns-1"].iter().zip(&set) {
        let name = format!("{host}.kdev-dns.shop.svc.cluster.local");
        let expected = until(|| short(&own, &[&name]), |found| !found.is_empty());
        assert_eq!(expected, [ip.as_str()], "the cluster's own");
        assert_eq!(short(KDEV, &[&name]), expected, "{name}");
        assert_eq!(short(KDEV, &["-x", ip]), [format!("{name}.")]);
    }
    let cluster_ip = lab::field("service/web", ".spec.clusterIP");
    assert_eq!(
        short(KDEV, &["-x", &cluster_ip]),
        ["web.shop.svc.cluster.local."]
    );
    assert_eq!(
        short(KDEV, &["alias.shop.svc.cluster.local"]),
        [cluster_ip.as_str(), "web.shop.svc.cluster.local."]
    );
    assert_eq!(
        short(
            KDEV,
            &["SRV", "_sleep._tcp.kdev-dns.shop.svc.cluster.local"]
        ),
        ["0", "1"].map(|n| format!("0 50 8080 kdev-dns-{n}.kdev-dns.shop.svc.cluster.local."))
    );
    assert_eq!(
        short(KDEV, &["TXT", "dns-version.cluster.local"]),
        ["\"1.1.0\""]
    );
    for (name, status) in [
        ("nope.shop.svc.cluster.local", "NXDOMAIN"),
        ("shop.svc.cluster.local", "NOERROR"),
        ("cluster.local", "NOERROR"),
    ] {
        for server in [&["+notcp"][..], &["+tcp"], &["+noedns"]] {
            let said = dig(KDEV, &[server, &[name]].concat()).ok();
            assert!(
                said.contains(&format!("status: {status}")),
                "{name}: {said}"
            );
            assert!(said.contains("SOA"), "{name}: {said}");
        }
    }
    connect.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn everything_else_comes_from_the_laptops_resolver() {
    let _objects = Objects::create();
    let laptop = Laptop::start();
    let connect = laptop.connect("dev");
    assert_eq!(short(KDEV, &["wiki.corp.example"]), ["192.0.2.7"]);
    assert_eq!(short(KDEV, &["AAAA", "wiki.corp.example"]), ["2001:db8::7"]);
    assert_eq!(short(KDEV, &["+tcp", "wiki.corp.example"]), ["192.0.2.7"]);
    assert_eq!(short(KDEV, &["-x", "192.0.2.7"]), ["wiki.corp.example."]);
    // Longer than a datagram: dig is told, and comes again by TCP.
    let long = dig(KDEV, &["+bufsize=1232", "TXT", "long.corp.example"]).ok();
    assert!(
        long.contains("TCP") && long.matches("xxx").count() > 12 * 80,
        "{long}"
    );
    let said = dig(KDEV, &["nope.corp.example"]).ok();
    assert!(said.contains("status: NXDOMAIN"), "{said}");
    assert_eq!(
        short(KDEV, &["kdev-dns-alias.shop.svc.cluster.local"]),
        ["192.0.2.7", "wiki.corp.example."]
    );
    connect.stop();
    for asked in laptop.log().lines().filter(|line| line.contains("query[")) {
        for private in ["cluster.local", "kdev-dns", "shop"] {
            assert!(
                !asked.contains(private),
                "the laptop's resolver heard: {asked}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn the_c_library_finds_names_on_a_laptop_and_with_a_pods_search_list() {
    let laptop = Laptop::start();
    let plain = laptop.resolv_conf("plain.conf", &format!("nameserver {KDEV}\n"));
    let pod = laptop.resolv_conf(
        "pod.conf",
        &format!("nameserver {KDEV}\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"),
    );
    let cluster_ip = lab::field("service/web", ".spec.clusterIP");
    let pods: Vec<String> = {
        let ips = lab::ready_pods("web").into_iter();
        let mut ips: Vec<String> = ips
            .map(|pod| lab::field(&format!("pod/{pod}"), ".status.podIP"))
            .collect();
        ips.sort();
        ips
    };
    let connect = laptop.connect("dev");
    for conf in [&plain, &pod] {
        for name in [
            "web",
            "web.shop",
            "web.shop.svc",
            "web.shop.svc.cluster.local",
            "web.shop.svc.cluster.local.",
        ] {
            for database in ["hosts", "ahosts", "ahostsv4"] {
                let found = getent(conf, &[database, name]);
                assert_eq!(
                    addresses(&found),
                    [cluster_ip.as_str()],
                    "{conf:?} {database} {name}: {found:?}"
                );
            }
            // Nobody there has IPv6, and that is known at once.
            let found = getent(conf, &["ahostsv6", name]);
            assert!(!found.out.contains("2001:"), "{name}: {found:?}");
        }
        let found = getent(conf, &["ahosts", "web-headless.shop.svc.cluster.local"]);
        assert_eq!(addresses(&found), pods, "{found:?}");
        let found = getent(conf, &["ahosts", "wiki.corp.example"]);
        assert_eq!(addresses(&found), ["192.0.2.7", "2001:db8::7"], "{found:?}");
        let found = getent(conf, &["hosts", &cluster_ip]);
        assert!(
            found.out.contains("web.shop.svc.cluster.local"),
            "{found:?}"
        );
        for name in ["nope.shop.svc.cluster.local", "nope.corp.example"] {
            // 2: not found (getent(1)).
            assert_eq!(getent(conf, &["hosts", name]).code, 2, "{name}");
        }
    }
    connect.stop();
}
