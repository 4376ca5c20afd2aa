//! The three wire forms and how each is refused.

use kdev_sim::{Form, Options, Rule, User};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::frames::{
    Frame, SPDY, Spdy, TUNNEL, client_frame, data, path, server_frame, websocket,
};
use crate::support::http::{Answer, ask, open};
use crate::support::{shop, shop_with, within};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";

/// What client-go (kubectl 1.32) sends for the first stream pair to port 8080: an error stream,
/// its end, a data stream. Captured from the program.
const CLIENT_GO: &str = "\
    800300010000003e0000000100000000000078f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45e01c\
    60616061c0c0c0c0590489c64c50f2663400000000ffff\
    0000000101000000\
    800300010000001a00000003000000000000826a26ac0ad57850499508000000ffff";

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[tokio::test]
async fn client_gos_own_bytes_are_understood_and_answered_in_kind() {
    let cluster = shop().await;
    let (_, head, mut io) = open(
        &cluster,
        "dev-token",
        &format!("POST {}", path("web-1")),
        &SPDY,
    )
    .await;
    assert!(
        head.contains("X-Stream-Protocol-Version: portforward.k8s.io"),
        "{head}"
    );
    assert!(head.contains("Upgrade: SPDY/3.1"), "{head}");
    io.write_all(&bytes(CLIENT_GO)).await.unwrap();
    let mut reply = vec![0; 18];
    within(io.read_exact(&mut reply)).await.unwrap();
    assert_eq!(reply[..4], [0x80, 3, 0, 2]);
    // The first block of a direction begins with zlib's header and the dictionary's id.
    assert_eq!(reply[12..], [0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2]);
}

#[tokio::test]
async fn a_pair_reaches_the_pod_in_both_spdy_forms() {
    let cluster = shop().await;
    for mut spdy in Spdy::both(&cluster, "web-2").await {
        let pair = [spdy.pair(1, 8080), data(3, REQUEST)].concat();
        spdy.send(&pair).await;
        let answer = spdy.data(3, 100).await;
        assert!(String::from_utf8_lossy(&answer).ends_with("hello from web-2\n"));
        assert_eq!(spdy.story(2).await, [Frame::Fin(3), Frame::Fin(1)]);
    }
    assert_eq!(cluster.counts().upgrades[&Form::Spdy], 1);
    assert_eq!(cluster.counts().upgrades[&Form::Tunnel], 1);
    assert_eq!(cluster.pod_counts("shop", "web-2").unwrap().opened, 2);
}

#[tokio::test]
async fn a_get_may_ask_for_plain_spdy_too() {
    let cluster = shop().await;
    let line = format!("GET {}", path("web-1"));
    assert_eq!(open(&cluster, "dev-token", &line, &SPDY).await.0, 101);
}

#[tokio::test]
async fn v4_announces_ports_then_carries_bytes_and_closes_when_all_ended() {
    let cluster = shop().await;
    let line = format!("GET {}?ports=8080", path("web-1"));
    for (protocol, answered) in [("v4.channel.k8s.io", "v4.channel.k8s.io"), ("", "")] {
        let (code, head, mut io) = open(&cluster, "dev-token", &line, &websocket(protocol)).await;
        assert_eq!(code, 101, "{head}");
        let answer = Answer {
            code,
            head,
            body: String::new(),
        };
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some(answered));
        assert_eq!(
            answer.header("Sec-WebSocket-Accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        io.write_all(&client_frame(2, &[&[0], REQUEST].concat()))
            .await
            .unwrap();
        assert_eq!(
            within(server_frame(&mut io)).await,
            Some((2, vec![0, 0x90, 0x1f]))
        );
        assert_eq!(
            within(server_frame(&mut io)).await,
            Some((2, vec![1, 0x90, 0x1f]))
        );
        let (_, answer) = within(server_frame(&mut io)).await.unwrap();
        assert!(answer.starts_with(b"\0HTTP/1.1 200 OK"));
        assert_eq!(
            within(server_frame(&mut io)).await,
            Some((8, vec![3, 0xe8]))
        );
        assert_eq!(within(server_frame(&mut io)).await, None);
    }
}

#[tokio::test]
async fn v4_in_base64_writes_channels_as_digits() {
    let cluster = shop().await;
    let line = format!("GET {}?ports=7", path("echo-1"));
    let headers = websocket("v4.base64.channel.k8s.io");
    let (_, _, mut io) = open(&cluster, "dev-token", &line, &headers).await;
    assert_eq!(
        within(server_frame(&mut io)).await,
        Some((1, b"0BwA=".to_vec()))
    );
    assert_eq!(
        within(server_frame(&mut io)).await,
        Some((1, b"1BwA=".to_vec()))
    );
    io.write_all(&client_frame(1, b"0aGk=")).await.unwrap();
    assert_eq!(
        within(server_frame(&mut io)).await,
        Some((1, b"0aGk=".to_vec()))
    );
}

#[tokio::test]
async fn v4_tells_of_a_refused_port_on_its_error_channel_alone() {
    let cluster = shop().await;
    let line = format!("GET {}?ports=7,9", path("echo-1"));
    let (_, _, mut io) = open(
        &cluster,
        "dev-token",
        &line,
        &websocket("v4.channel.k8s.io"),
    )
    .await;
    for channel in 0..4 {
        let port = if channel < 2 { 7 } else { 9 };
        assert_eq!(
            within(server_frame(&mut io)).await,
            Some((2, vec![channel, port, 0]))
        );
    }
    let (_, refusal) = within(server_frame(&mut io)).await.unwrap();
    assert_eq!(refusal[0], 3);
    assert!(String::from_utf8_lossy(&refusal).contains("connect: connection refused"));
    // The other port lives on; unknown and empty messages are nobody's.
    for message in [&b"\x2anobody"[..], b"", b"\x02gone", b"\x00hello"] {
        io.write_all(&client_frame(2, message)).await.unwrap();
    }
    assert_eq!(
        within(server_frame(&mut io)).await,
        Some((2, b"\0hello".to_vec()))
    );
    io.write_all(&client_frame(9, b"are you there"))
        .await
        .unwrap();
    assert_eq!(
        within(server_frame(&mut io)).await,
        Some((10, b"are you there".to_vec()))
    );
    io.write_all(&client_frame(8, &[3, 0xe8])).await.unwrap();
    assert_eq!(
        within(server_frame(&mut io)).await,
        Some((8, vec![3, 0xe8]))
    );
}

#[tokio::test]
async fn what_is_not_offered_is_refused_as_the_real_servers_refuse_it() {
    let cluster = shop_with(Options::old()).await;
    let with_ports = format!("GET {}?ports=8080", path("web-1"));
    for (line, protocol, code, body) in [
        // The runtime's bare refusal: no body, no type, no Status.
        (with_ports.clone(), TUNNEL, 403, ""),
        (with_ports.clone(), "v5.channel.k8s.io", 403, ""),
        // The kubelet looks at the ports first.
        (
            format!("GET {}", path("web-1")),
            TUNNEL,
            400,
            "query parameter \"port\" is required",
        ),
        (
            format!("GET {}?ports=0", path("web-1")),
            "",
            400,
            "port \"0\" must be > 0",
        ),
    ] {
        let answer = ask(&cluster, "dev-token", &line, &websocket(protocol), "").await;
        assert_eq!(
            (answer.code, answer.body.as_str()),
            (code, body),
            "{line} {protocol}"
        );
        assert_ne!(answer.header("Content-Type"), Some("application/json"));
    }
}

#[tokio::test]
async fn spdy_handshakes_need_the_right_version() {
    let cluster = shop().await;
    let line = format!("POST {}", path("web-1"));
    let missing = ask(&cluster, "dev-token", &line, &SPDY[..2], "").await;
    assert_eq!(missing.code, 400);
    assert!(
        missing
            .body
            .contains("X-Stream-Protocol-Version does not exist"),
        "{missing:?}"
    );
    let headers = [SPDY[0], SPDY[1], ("X-Stream-Protocol-Version", "v9.k8s.io")];
    let unknown = ask(&cluster, "dev-token", &line, &headers, "").await;
    assert_eq!(unknown.code, 403);
    let accepted = unknown.header("X-Accepted-Stream-Protocol-Versions");
    assert_eq!(accepted, Some("portforward.k8s.io"));
    let plain = ask(&cluster, "dev-token", &line, &[], "").await;
    assert_eq!(
        (plain.code, plain.message().as_str()),
        (400, "Upgrade request required")
    );
}

#[tokio::test]
async fn each_form_can_be_taken_away_while_the_cluster_runs() {
    let cluster = shop().await;
    let v4 = format!("GET {}?ports=8080", path("web-1"));
    let forms = async || {
        let spdy = open(
            &cluster,
            "dev-token",
            &format!("POST {}", path("web-1")),
            &SPDY,
        )
        .await;
        let tunnel = open(&cluster, "dev-token", &v4, &websocket(TUNNEL)).await;
        let v4 = open(&cluster, "dev-token", &v4, &websocket("v4.channel.k8s.io")).await;
        [spdy.0, tunnel.0, v4.0]
    };
    assert_eq!(forms().await, [101, 101, 101]);
    cluster.set_habits(|habits| habits.tunnel = false);
    assert_eq!(forms().await, [101, 403, 101]);
    cluster.set_habits(|habits| (habits.tunnel, habits.spdy) = (true, false));
    assert_eq!(forms().await, [400, 101, 101]);
    cluster.set_habits(|habits| (habits.spdy, habits.v4) = (true, false));
    assert_eq!(forms().await, [101, 101, 403]);
}

#[tokio::test]
async fn get_and_create_are_asked_for_by_method_and_age() {
    let cluster = shop().await;
    let rule = |verb| Rule::new(&[verb], &["pods/portforward"]).namespace("shop");
    cluster.add_user(User::new("getter").rule(rule("get")));
    cluster.add_user(User::new("creator").rule(rule("create")));
    let get = format!("GET {}", path("web-1"));
    let post = format!("POST {}", path("web-1"));
    let code =
        async |token, line: &str, headers: &[_]| open(&cluster, token, line, headers).await.0;

    let denied = ask(&cluster, "getter-token", &get, &websocket(TUNNEL), "").await;
    assert_eq!(denied.message(), "pods \"web-1\" is forbidden: ");
    assert_eq!(code("creator-token", &get, &websocket(TUNNEL)).await, 403);
    assert_eq!(code("creator-token", &post, &SPDY).await, 101);
    assert_eq!(code("getter-token", &post, &SPDY).await, 403);
    cluster.set_habits(|habits| habits.create_check = false);
    assert_eq!(code("getter-token", &get, &websocket(TUNNEL)).await, 101);
}

#[tokio::test]
async fn pods_that_do_not_run_are_refused_before_the_upgrade() {
    use kdev_sim::{Phase, Pod};
    let cluster = shop().await;
    cluster.add_pod(Pod::new("shop", "new").phase(Phase::Pending));
    cluster.add_pod(Pod::new("shop", "done").phase(Phase::Succeeded));
    let post = async |pod| {
        ask(
            &cluster,
            "dev-token",
            &format!("POST {}", path(pod)),
            &SPDY,
            "",
        )
        .await
    };
    assert_eq!(
        post("new").await.message(),
        "pod new does not have a host assigned"
    );
    let done = post("done").await;
    assert_eq!(
        (done.code, done.body.as_str()),
        (500, "pod not found (\"done_shop\")")
    );
    let nobody = post("nobody").await;
    assert_eq!(
        (nobody.code, nobody.message().as_str()),
        (404, "pods \"nobody\" not found")
    );
}
