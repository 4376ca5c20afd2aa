//! Streams to the ports of pods, in every wire form.

use std::time::{Duration, Instant};

use kdev::addr::Namespaced;
use kdev::dial::PodPort;
use kdev::k8s::Client;
use kdev::k8s::portforward::{Form, KnownForm, PodStream, PortForward};
use kdev::task::Tasks;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab;

async fn a_pod(client: &Client, app: &str, port: u16) -> PodPort {
    let path = format!("/api/v1/namespaces/shop/pods?labelSelector=app%3D{app}");
    let list: Value = client.get(&path).await.unwrap();
    let pod = &list["items"][0]["metadata"];
    PodPort {
        pod: Namespaced::new("shop", pod["name"].as_str().unwrap()),
        uid: pod["uid"].as_str().unwrap().to_owned(),
        port,
    }
}

/// The body of an answer that has a Content-Length or ends with the connection.
async fn exchange(mut stream: PodStream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer[..head])
    );
    answer.split_off(head)
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn every_form_carries_bytes_both_ways() {
    for form in Form::ALL {
        if form == Form::Tunnel && !lab::tunnels_spdy() {
            continue;
        }
        let tasks = Tasks::new();
        let client = Client::connect(lab::options("dev"), &tasks).await.unwrap();
        let web = a_pod(&client, "web", 8080).await;
        let forward = PortForward::new(client, KnownForm::remembered(form));
        let began = Instant::now();
        let name = exchange(forward.open(&web, "web").await.unwrap(), &get("/")).await;
        assert_eq!(String::from_utf8(name).unwrap().trim(), web.pod.name);
        let first = began.elapsed();
        let began = Instant::now();
        let medium = exchange(forward.open(&web, "web").await.unwrap(), &get("/medium")).await;
        assert_eq!(medium.len(), 64 << 20);
        let down = 64.0 / began.elapsed().as_secs_f64();
        let status = forward.status();
        assert_eq!(status.form.unwrap().0, form);
        println!(
            "{form}: first answer {first:?}, {down:.0} MiB/s, {:?}",
            status.round_trip
        );

        let closed = PodPort {
            port: 9,
            ..web.clone()
        };
        let mut stream = forward.open(&closed, "closed:9").await.unwrap();
        let error = stream.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{error}"
        );
        drop(stream);
        forward.close(Duration::from_secs(1)).await;
    }
}
