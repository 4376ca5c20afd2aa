//! What names and addresses lead to, and what an app is told where they lead nowhere.

use crate::app::{Failure, Way};
use crate::lab;
use crate::program::Running;

/// SOCKS5 replies (RFC 1928, 6).
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn every_kind_of_service_leads_to_its_pods() {
    let pods = lab::ready_pods("web");
    let cluster_ip = lab::field("service/web", ".spec.clusterIP");
    let (name, pod_ip) = lab::pod_address("web");
    let proxy = Running::connect("dev");
    for (target, suffix) in [
        ("web.shop:80".to_owned(), ""),
        ("web-numeric.shop:80".to_owned(), ""),
        ("web-multi.shop:80".to_owned(), ""),
        ("web-multi.shop:8081".to_owned(), " admin"),
        ("web-multi.shop:9090".to_owned(), ""),
        ("web-headless.shop:8080".to_owned(), ""),
        (format!("{cluster_ip}:80"), ""),
    ] {
        for way in proxy.ways() {
            let answer = way.get(&target, "/").await.unwrap();
            let text = answer.text();
            let pod = text.strip_suffix(suffix).unwrap_or("");
            assert!(pods.iter().any(|p| p == pod), "{way:?} {target}: {text}");
        }
    }
    for way in proxy.ways() {
        let answer = way.get(&format!("{pod_ip}:8080"), "/").await.unwrap();
        assert_eq!(answer.text(), name, "{way:?}");
    }
    proxy.stop();

    let named = ["web-multi:admin", "web-multi.shop:9090", "svc/web:http"];
    let ports = Running::forward("dev", &named);
    for (i, suffix) in [" admin", "", ""].into_iter().enumerate() {
        let answer = Way::Port(ports.port(i)).get("localhost:80", "/").await;
        let text = answer.unwrap().text();
        let pod = text.strip_suffix(suffix).unwrap_or("");
        assert!(pods.iter().any(|p| p == pod), "{}: {text}", named[i]);
    }
    ports.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn what_leads_nowhere_says_why() {
    let unready = "has no ready pod (1 pod, not ready)";
    let alias = "is an alias of example.invalid (ExternalName), and this machine does not resolve";
    for account in ["dev", "admin"] {
        let manual = match account {
            // Who wrote its endpoints cannot be asked.
            "dev" => (
                403,
                NOT_ALLOWED,
                "not allowed to get endpoints in namespace shop",
            ),
            _ => (
                502,
                HOST_UNREACHABLE,
                "no selector, and nobody wrote endpoints for it",
            ),
        };
        let proxy = Running::connect(account);
        let [socks5, connect, absolute] = proxy.ways();
        for (target, (status, code, text)) in [
            ("unready.shop:80", (502, HOST_UNREACHABLE, unready)),
            (
                "nobody.shop:80",
                (502, HOST_UNREACHABLE, "no pod matches its selector"),
            ),
            ("manual.shop:80", manual),
            ("external.shop:80", (502, HOST_UNREACHABLE, alias)),
            (
                "wbe.shop.svc:80",
                (502, HOST_UNREACHABLE, "did you mean web?"),
            ),
            (
                "wbe.shop:80",
                (502, HOST_UNREACHABLE, "neither a Service that you may see"),
            ),
        ] {
            let what = format!("{account} {target}");
            let answer = absolute.get(target, "/").await.unwrap();
            assert_eq!(answer.status, status, "{what}: {}", answer.text());
            assert!(answer.text().contains(text), "{what}: {}", answer.text());
            assert!(
                answer.header("x-kdev-error").is_some(),
                "{what}: {answer:?}"
            );
            match connect.open(target).await {
                Err(Failure::Status(given, said)) => {
                    assert_eq!(given, status, "{what}: {said}");
                    assert!(said.contains(text), "{what}: {said}");
                }
                other => panic!("{what}: {other:?}"),
            }
            match socks5.open(target).await {
                Err(Failure::Socks(given)) => assert_eq!(given, code, "{what}"),
                other => panic!("{what}: {other:?}"),
            }
        }
        proxy.stop();
    }
}

/// The transport has no positive answer to a dial, only a late refusal. It must not take other
/// streams of the same connection with it, whose bytes the server may hold behind those that
/// nobody reads.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_refused_port_is_refused_and_hurts_nobody_else() {
    let (name, pod) = lab::pod_address("web");
    let good = format!("{pod}:8080");
    let proxy = Running::connect("dev");
    let [socks5, connect, absolute] = proxy.ways();
    for round in 0..6 {
        // Declared by the Service, so that bytes are on their way before the refusal.
        let answer = absolute.get("closed.shop:80", "/").await.unwrap();
        let text = answer.text();
        assert_eq!(answer.status, 502, "{round}: {text}");
        assert!(
            text.contains("closed.shop:80 refused the connection"),
            "{text}"
        );
        // Late, so a reset; or, once it is known, the right code.
        for way in [socks5, connect] {
            match way.get("closed.shop:80", "/").await {
                Err(Failure::Io(_) | Failure::Socks(REFUSED) | Failure::Status(502, _)) => {}
                other => panic!("{round} {way:?}: {other:?}"),
            }
        }
        // Nobody declares it, so the refusal is awaited.
        let undeclared = format!("{pod}:4321");
        let answer = absolute.get(&undeclared, "/").await.unwrap();
        assert_eq!(answer.status, 502, "{round}: {}", answer.text());
        match socks5.open(&undeclared).await {
            Err(Failure::Socks(REFUSED)) => {}
            other => panic!("{round}: {other:?}"),
        }
        for i in 0..12 {
            for way in [socks5, connect, absolute] {
                let answer = way.get(&good, "/").await;
                let answer = answer.unwrap_or_else(|e| panic!("{round}.{i} {way:?}: {e}"));
                assert_eq!(answer.text(), name, "{round}.{i} {way:?}");
            }
        }
    }
    proxy.stop();
    // A local port of forward has no words: it resets, and says why on standard error.
    let port = Running::forward("dev", &["closed.shop:80", "unready.shop:80"]);
    for i in 0..2 {
        let failure = Way::Port(port.port(i)).get("closed.shop:80", "/").await;
        assert!(matches!(failure, Err(Failure::Io(_))), "{failure:?}");
    }
    let said = port.stop();
    assert!(
        said.contains("closed.shop:80 refused the connection"),
        "{said}"
    );
    assert!(
        said.contains("unready in namespace shop has no ready pod"),
        "{said}"
    );
}
