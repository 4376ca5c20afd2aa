//! Each command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::{TcpStream, UdpSocket};

use crate::support::{PATIENCE, Stage, Way, finish, get, request, text};

const LISTEN: [&str; 2] = ["--proxy-listen", "[::1]:0"];

#[tokio::test(flavor = "multi_thread")]
async fn connect_serves_on_it_and_leads_to_it() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let args = [
        &["connect", "--json", "--dns-listen", "[::1]:0"],
        &LISTEN[..],
    ]
    .concat();
    let (ready, _connect) = stage.ready(&args).await;
    assert!(
        ready["server"].as_str().unwrap().contains("[::1]"),
        "{ready}"
    );
    let proxy: SocketAddr = ready["proxy"].as_str().unwrap().parse().unwrap();
    assert!(proxy.is_ipv6(), "{ready}");
    assert_eq!(ready["socks5"], format!("socks5h://{proxy}"));
    assert_eq!(ready["http"], format!("http://{proxy}"));
    for (target, app) in stage.targets() {
        for way in [Way::Socks5, Way::Connect, Way::Absolute] {
            let answer = get(way, proxy, &target).await;
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.ends_with(app),
                "{way:?} {target}: {answer}"
            );
        }
    }

    // A browser takes the address in brackets, as in a URL.
    assert_eq!(ready["pac"], format!("http://{proxy}/proxy.pac"));
    let leads = format!("\"SOCKS5 {proxy}; PROXY {proxy}\"");
    let service = format!("\"{}\": 1", stage.service("six", 0));
    let begun = Instant::now();
    loop {
        let mut stream = TcpStream::connect(proxy).await.unwrap();
        let pac = request(&mut stream, "", "/proxy.pac", &proxy.to_string()).await;
        assert!(pac.starts_with("HTTP/1.1 200"), "{pac}");
        assert!(pac.contains(&leads), "{pac}");
        // The Services may still be on their way.
        if pac.contains(&service) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{pac}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    // DNS by IPv6, of names that have an address of that family alone.
    let dns: SocketAddr = ready["dns"].as_str().unwrap().parse().unwrap();
    assert!(dns.is_ipv6(), "{ready}");
    let name = "six.shop.svc.cluster.local.";
    let answers = ask(dns, name, RecordType::AAAA).await;
    assert_eq!(answers, [stage.service("six", 0).to_string()]);
    assert!(ask(dns, name, RecordType::A).await.is_empty());
}

/// The data of the answers.
async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Vec<String> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let socket = UdpSocket::bind("[::1]:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&message.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 512];
    let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer));
    let n = received.await.expect("an answer").unwrap();
    let answer = Message::from_vec(&buffer[..n]).unwrap();
    answer.answers.iter().map(|r| r.data.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn forward_listens_on_it_and_leads_to_it() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let by_ip = format!("[{}]:80=0", stage.service("six", 0));
    let pod = format!("[{}]:8080=[::1]:0", stage.pod("dual-0", 1));
    let args = ["forward", "--json", "six:http=[::1]:0", &by_ip, &pod];
    let (ready, _forward) = stage.ready(&args).await;
    for (i, (v6, app)) in [(true, "six"), (false, "six"), (true, "dual")]
        .into_iter()
        .enumerate()
    {
        let local = ready["ports"][i]["local"].as_str().unwrap();
        let local: SocketAddr = local.parse().unwrap();
        assert_eq!(local.is_ipv6(), v6, "{ready}");
        let mut stream = TcpStream::connect(local).await.unwrap();
        let answer = request(&mut stream, "", "/", "any").await;
        assert!(answer.ends_with(app), "{local}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_finds_the_proxy_and_its_own_exceptions() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let args = [&["run"], &LISTEN[..], &["--", "env"]].concat();
    let mut command = stage.kdev(&args);
    // Ranges that a cluster may have its addresses in are not for the command; others are.
    command.env(
        "NO_PROXY",
        "fd00::/8,::/0,2001:db8::/32,2001:db9::5,.svc,::1",
    );
    let output = finish(command).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let shown = text(&output.stdout);
    let vars: BTreeMap<&str, &str> = shown.lines().filter_map(|l| l.split_once('=')).collect();
    let address: SocketAddr = vars["KDEV_HTTP"].parse().unwrap();
    assert!(address.is_ipv6(), "{shown}");
    assert_eq!(vars["KDEV_SOCKS"], address.to_string());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        for name in [name, &*name.to_ascii_lowercase()] {
            assert_eq!(vars[name], format!("http://{address}"), "{name}");
        }
    }
    assert_eq!(vars["KDEV_SOCKS_PROXY"], format!("socks5h://{address}"));
    for name in ["NO_PROXY", "no_proxy"] {
        assert_eq!(
            vars[name],
            "localhost,127.0.0.1,::1,2001:db8::/32,2001:db9::5"
        );
    }
    for dropped in ["fd00::/8", "::/0", ".svc"] {
        assert!(said.contains(dropped), "{dropped}: {said}");
    }
    let port = address.port();
    let java = vars["JAVA_TOOL_OPTIONS"];
    assert!(java.contains(&format!("-Dhttp.proxyPort={port}")), "{java}");
    assert!(java.contains("[2001:db9::5]"), "{java}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reaches_it() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    if finish(stage_curl(&stage, &["--version"]))
        .await
        .status
        .code()
        != Some(0)
    {
        println!("SKIPPED: curl: it is not installed");
        return;
    }
    for (target, app) in stage.targets() {
        let url = format!("http://{target}/");
        let output = finish(stage_curl(&stage, &[&url])).await;
        assert_eq!(text(&output.stdout), app, "{url}: {}", text(&output.stderr));
    }
}

fn stage_curl(stage: &Stage, args: &[&str]) -> tokio::process::Command {
    let run = [
        &["run"],
        &LISTEN[..],
        &["--", "curl", "-sS", "-g", "-m", "30"],
    ]
    .concat();
    stage.kdev(&[&run[..], args].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn resolve_and_doctor_show_it() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    for (asked, pod) in [
        (stage.service("six", 0).to_string(), "six-0"),
        (format!("[{}]:8080", stage.pod("dual-0", 1)), "dual-0"),
        ("six".to_owned(), "six-0"),
    ] {
        let output = stage.output(&["resolve", "--json", &asked]).await;
        let shown = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{asked}: {shown}");
        let answer: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(answer["decision"], "cluster", "{shown}");
        assert_eq!(answer["pods"][0]["name"], pod, "{shown}");
    }
    let ruled = format!("{}/64", stage.service("six", 0));
    let output = stage
        .output(&["resolve", "--never-proxy", &ruled, "six"])
        .await;
    assert!(text(&output.stderr).contains("bits set beyond its prefix"));
    let rule = ["resolve", "--json", "--never-proxy", "fd00::/8"];
    let service = format!("[{}]:80", stage.service("six", 0));
    let output = stage.output(&[&rule[..], &[&service]].concat()).await;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["rule"], "never-proxy fd00::/8", "{answer}");
    assert_eq!(answer["decision"], "laptop", "{answer}");

    let output = stage.output(&["doctor", "--json"]).await;
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.contains(&stage.cluster.url()), "{shown}");
}
