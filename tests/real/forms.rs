//! Every form of a name or an address, dialled and explained; and rules of the user's own.

use serde_json::Value;

use crate::app::{Failure, Way};
use crate::lab;
use crate::program::{Done, Running, finish, kdev, run};

/// Where the web server of a pod listens.
const PORT: u16 = 8080;
/// Whose names these are; `dev` sees what kdev needs alone, `admin` all.
const ACCOUNTS: [&str; 2] = ["dev", "admin"];

fn dashed(ip: &str) -> String {
    ip.replace('.', "-")
}

/// Names and addresses, and the pods that may answer to each.
fn forms() -> Vec<(String, Vec<String>)> {
    let web = lab::ready_pods("web");
    let (name, ip) = lab::pod_address("web");
    let by_ip = dashed(&ip);
    let cluster_ip = lab::field("service/web", ".spec.clusterIP");
    let one = |host: &str, pod: &str| (format!("{host}:{PORT}"), vec![pod.to_owned()]);
    let any = |target: &str| (target.to_owned(), web.clone());
    let mut forms = vec![any("alias.shop:80"), any("alias:80"), any("web.shop.:80")];
    forms.push(any("web.shop.svc.cluster.local.:80"));
    forms.push(any("alias.shop.svc.cluster.local.:80"));
    // No setting says which the cluster's domain is, and a Service stands before this one.
    forms.push(any("web.shop.svc.corp.example:80"));
    forms.push(any(&format!("{cluster_ip}:80")));
    forms.push(one(&ip, &name));
    for end in ["", ".shop", ".shop.svc", ".shop.svc.cluster.local"] {
        for dot in ["", "."] {
            forms.push(one(&format!("named-0.named{end}{dot}"), "named-0"));
            forms.push(one(&format!("named-1.named{end}{dot}"), "named-1"));
            forms.push(one(&format!("first.named{end}{dot}"), "first"));
            // What the SRV records of a headless Service name where pods have no host name.
            forms.push(one(&format!("{by_ip}.web-headless{end}{dot}"), &name));
        }
    }
    for end in [".pod", ".pod.cluster.local", ".pod.cluster.local."] {
        forms.push(one(&format!("{by_ip}.shop{end}"), &name));
    }
    forms
}

/// What `kdev resolve` says, with its exit code.
fn resolve(account: &str, args: &[&str]) -> (Value, i32) {
    let done = finish(kdev(account).args(["resolve", "--json"]).args(args), b"");
    let answer = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{args:?}: {done:?}"));
    (answer, done.code)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn every_form_of_a_name_leads_to_its_pod() {
    let forms = forms();
    for account in ACCOUNTS {
        let proxy = Running::connect(account);
        for (target, pods) in &forms {
            for way in proxy.ways() {
                let answer = way.get(target, "/").await;
                let answer = answer.unwrap_or_else(|e| panic!("{account} {way:?} {target}: {e}"));
                assert!(
                    pods.contains(&answer.text()),
                    "{account} {way:?} {target}: {}",
                    answer.text()
                );
            }
        }
        proxy.stop();
    }
}

#[test]
#[ignore = "needs the lab"]
fn every_form_of_a_name_is_explained() {
    let (_, ip) = lab::pod_address("web");
    let cluster_ip = lab::field("service/web", ".spec.clusterIP");
    let by_ip = dashed(&ip);
    for account in ACCOUNTS {
        for (asked, pods) in [
            ("named-0.named.shop.svc.cluster.local.:8080", 1),
            ("first.named:8080", 1),
            ("named:http", 3),
            (&format!("{by_ip}.shop.pod.cluster.local:8080"), 1),
            (&format!("{by_ip}.web-headless.shop.svc:8080"), 1),
            (&format!("{ip}:8080"), 1),
            (&format!("{cluster_ip}:80"), 4),
            ("alias:80", 4),
            ("web.shop.svc.corp.example", 4),
        ] {
            let what = format!("{account} {asked}");
            let (answer, code) = resolve(account, &[asked]);
            assert_eq!(code, 0, "{what}: {answer}");
            assert_eq!(answer["decision"], "cluster", "{what}: {answer}");
            let dialled = answer["pods"].as_array().unwrap().iter();
            let dialled = dialled.filter(|pod| pod["port"] == PORT).count();
            assert_eq!(dialled, pods, "{what}: {answer}");
        }
        let (alias, _) = resolve(account, &["alias:80"]);
        assert_eq!(
            alias["target"], "web.shop.svc.cluster.local:80",
            "{account}"
        );
        let aliases = alias["aliases"].to_string();
        assert!(aliases.contains("alias in namespace shop"), "{aliases}");

        // With its domain set, the cluster has no other.
        let domain = ["--cluster-domain", "corp.example"];
        let ask = |host| resolve(account, &[&domain[..], &[host]].concat());
        let (own, code) = ask("named-0.named.shop.svc.corp.example:8080");
        assert_eq!((code, &own["decision"]), (0, &"cluster".into()), "{own}");
        let (other, code) = ask("web.shop.svc.cluster.local:80");
        assert_eq!((code, &other["decision"]), (1, &"laptop".into()), "{other}");

        // Where DNS would have no answer, neither has a dial.
        for (asked, says) in [
            ("named-7.named.shop.svc:8080", "ready pods of a Service"),
            ("_http._tcp.named.shop.svc:8080", "dial named.shop:8080"),
            ("10-244-255-254.shop.pod:80", "relay"),
        ] {
            let (answer, code) = resolve(account, &[asked]);
            assert_eq!((code, &answer["decision"]), (1, &"failed".into()));
            let error = answer["error"].as_str().unwrap();
            assert!(error.contains(says), "{account} {asked}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn endpoints_that_are_no_pods_need_a_relay() {
    for account in ACCOUNTS {
        let says = match account {
            // Who wrote them cannot be asked.
            "dev" => "not allowed to get endpoints in namespace shop",
            _ => "a relay in the cluster reaches it",
        };
        let proxy = Running::connect(account);
        match Way::Connect(proxy.proxy()).open("outside.shop:80").await {
            Err(Failure::Status(_, said)) => assert!(said.contains(says), "{account}: {said}"),
            other => panic!("{account}: {other:?}"),
        }
        proxy.stop();
        let (answer, code) = resolve(account, &["outside.shop:80"]);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(code == 1 && error.contains(says), "{account}: {answer}");
    }
}

/// `kdev run` with rules, and curl in it.
fn curl(rules: &[&str], url: &str) -> Done {
    let mut command = kdev("dev");
    command.arg("run").args(rules).arg("--");
    finish(command.args(["curl", "-sS", "-m", "20", url]), b"")
}

#[test]
#[ignore = "needs the lab"]
fn rules_decide_before_the_cluster() {
    let pods = lab::ready_pods("web");
    let in_cluster = |done: Done| {
        let known = pods.iter().any(|pod| *pod == done.out.trim());
        assert!(known, "{done:?}");
    };
    let rules = ["--never-proxy", ".shop", "--also-proxy", "web.shop"];
    let unruled = run("dev", &["curl", "-sS", "http://web-numeric.shop/"]);
    in_cluster(unruled);
    in_cluster(curl(&rules, "http://web.shop/"));
    // From the laptop, which has no such name.
    let kept = curl(&rules, "http://web-numeric.shop/");
    assert!(kept.out.contains("web-numeric.shop"), "{kept:?}");
    assert!(kept.out.contains("resolve"), "{kept:?}");
    // Addresses are ruled by ranges; the wall stands between the laptop and the cluster's.
    let cluster_ip = lab::field("service/web", ".spec.clusterIP");
    let url = format!("http://{cluster_ip}/");
    in_cluster(curl(&[], &url));
    let kept = curl(&["--never-proxy", "10.96.0.0/12"], &url);
    assert!(!pods.iter().any(|pod| *pod == kept.out.trim()), "{kept:?}");
    let sent = curl(
        &["--also-proxy", ".corp.example"],
        "http://db.corp.example/",
    );
    for says in ["also-proxy .corp.example", "relay"] {
        assert!(sent.out.contains(says), "{sent:?}");
    }
}
