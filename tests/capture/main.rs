//! `kdev run` with a network of the command's own, against the simulated cluster. The commands are
//! this test program again ([`inside`]), whose sockets know of no proxy.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod ends;
mod held;
mod inside;
mod ports;
mod stage;

use std::net::{TcpListener, UdpSocket};

use stage::{Stage, text};

#[tokio::test(flavor = "multi_thread")]
async fn names_services_and_pods_answer_a_program_that_knows_no_proxy() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    stage.run("services", &[]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_is_who_and_where_it_would_be_without_kdev() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    stage.run("place", &[]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_does_not_have_ends_as_elsewhere() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    stage.run("failures", &[]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_at_once_each_have_their_own_bytes() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    stage.run("thousand", &[]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machines_loopback_is_the_commands_too() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let (tcp, udp) = (echo_tcp(), echo_udp());
    let ports = format!("{tcp} {udp}");
    stage.run("loopback", &[("PORTS", &ports)]).await.ok();
}

/// A port of this machine that sends back what comes.
pub(crate) fn echo_tcp() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                std::io::copy(&mut stream.try_clone().unwrap(), &mut stream)
            });
        }
    });
    port
}

/// The same for datagrams.
pub(crate) fn echo_udp() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut room = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut room) {
            socket.send_to(&room[..length], from).unwrap();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_connect_is_used_for_names_streams_and_datagrams() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let _connect = stage.connect().await;
    let udp = echo_udp().to_string();
    let ran = stage.run("lent", &[("PORTS", &udp)]).await;
    ran.ok();
    let status = stage.kdev(&["status", "--json"]).output().await.unwrap();
    let status = text(&status.stdout);
    let report: serde_json::Value = serde_json::from_str(&status).unwrap();
    let connects = report["sessions"]
        .as_array()
        .or_else(|| report.as_array())
        .unwrap();
    let came = connects.iter().find(|s| s["command"] == "connect").unwrap();
    assert!(
        came["app_connections_total"].as_u64().unwrap() >= 2,
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_about_names_decide_for_programs_that_dial_addresses() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let args = ["--never-proxy", "web"];
    stage.run_with("never", &args, &[]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_capture_variables_lead_to_the_proxy_and_with_it_there_are_none() {
    let Some(stage) = Stage::set_up().await else {
        return;
    };
    let print = ["sh", "-c", "echo ${HTTP_PROXY:-none} $KDEV_NAMESPACE"];
    for (capture, proxy) in [("off", "http://127.0.0.1:"), ("on", "none shop")] {
        let mut args = vec!["run", "--capture", capture, "--"];
        args.extend(print);
        let output = stage.kdev(&args).output().await.unwrap();
        assert!(text(&output.stdout).starts_with(proxy), "{output:?}");
    }
    // A proxy of the user's would take what is the cluster's: kdev's stands in its place.
    let mut args = vec!["run", "--capture", "on", "--"];
    args.extend(print);
    let mut kdev = stage.kdev(&args);
    let output = kdev
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .output()
        .await
        .unwrap();
    let shown = text(&output.stdout);
    assert!(
        shown.starts_with("http://127.0.0.1:") && !shown.starts_with("http://127.0.0.1:9 "),
        "{output:?}"
    );
}
