use super::*;

/// `name` as a pod in namespace `dev` would read it, each reading as a text: `!` where it is
/// certain.
fn read(name: &str, domain: &str, names: Names) -> Vec<String> {
    let domain = match domain {
        "" => ClusterDomain::default(),
        domain => domain.parse().unwrap(),
    };
    let Ok(Host::Name(name)) = name.parse() else {
        panic!("{name}");
    };
    let found = readings(&name, "dev", &domain, names).into_iter();
    found
        .map(|reading| {
            let sure = if reading.certain { "!" } else { "" };
            match reading.name {
                ClusterName::Service(s) => format!("{sure}{s}"),
                ClusterName::Endpoint { service, host } => format!("{sure}{host}/{service}"),
                ClusterName::PodIp { ip, .. } => format!("{sure}{ip}"),
                ClusterName::Srv { service, port } => format!("{sure}{port}@{service}"),
            }
        })
        .collect()
}

#[test]
fn every_form_of_the_specification_is_read() {
    for (name, expected) in [
        ("web", vec!["web.dev"]),
        ("web.shop", vec!["web/shop.dev", "web.shop"]),
        ("WEB.Shop.svc", vec!["!web.shop"]),
        ("web.shop.svc.cluster.local", vec!["!web.shop"]),
        ("web.shop.svc.cluster.local.", vec!["!web.shop"]),
        ("db-0.db", vec!["db-0/db.dev", "db-0.db"]),
        ("db-0.db.shop", vec!["db-0/db.shop"]),
        ("db-0.db.shop.svc", vec!["!db-0/db.shop"]),
        ("db-0.db.shop.svc.cluster.local", vec!["!db-0/db.shop"]),
        ("10-1-2-3.db.shop.svc", vec!["!10-1-2-3/db.shop"]),
        ("10-1-2-3.shop.pod", vec!["!10.1.2.3"]),
        ("10-1-2-3.shop.pod.cluster.local", vec!["!10.1.2.3"]),
        ("fd00-10-244--5.shop.pod", vec!["!fd00:10:244::5"]),
        ("_http._tcp.web.shop.svc", vec!["!http@web.shop"]),
        (
            "_http._tcp.web.shop.svc.cluster.local",
            vec!["!http@web.shop"],
        ),
        ("_http._tcp.web.shop", vec!["http@web.shop"]),
        ("_http._tcp.web", vec!["http@web.dev"]),
        ("web.shop.svc.corp.example", vec!["web.shop"]),
        ("db-0.db.shop.svc.corp.example", vec!["db-0/db.shop"]),
        ("10-1-2-3.shop.pod.corp", vec!["10.1.2.3"]),
        // A Service that is called like a part of the names.
        ("web.svc.svc.corp", vec!["web.svc"]),
        ("svc.svc", vec!["svc/svc.dev", "svc.svc"]),
        ("a_b", vec![]),
        ("_x.shop", vec![]),
        ("www.shop.example.com", vec![]),
        ("shop.cluster.local", vec![]),
        ("cluster.local", vec!["cluster/local.dev", "cluster.local"]),
        ("x.shop.pod", vec!["x/shop.pod"]),
    ] {
        assert_eq!(read(name, "", Names::Relative), expected, "{name}");
    }
}

#[test]
fn a_domain_that_is_set_is_the_only_one() {
    let read = |name| read(name, ".Corp.Example.", Names::Relative);
    assert_eq!(read("web.shop.svc.corp.example"), ["!web.shop"]);
    assert_eq!(read("web.shop.svc"), ["!web.shop"]);
    assert_eq!(read("web.shop.svc.cluster.local"), [""; 0]);
    assert_eq!(read("web.shop.svc.example"), [""; 0]);
    assert!("10.0.0.1".parse::<ClusterDomain>().is_err());
    assert!("a b".parse::<ClusterDomain>().is_err());
}

#[test]
fn the_target_of_an_alias_is_complete_as_it_stands() {
    let read = |name| read(name, "", Names::Absolute);
    assert_eq!(read("web.shop.svc.cluster.local"), ["!web.shop"]);
    assert_eq!(read("web.shop.svc.corp.example"), ["web.shop"]);
    assert_eq!(read("github.com"), [""; 0]);
    assert_eq!(read("web.shop.svc"), [""; 0]);
}
